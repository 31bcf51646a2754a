"""Many short calls, both ends in one process over loopback sockets.

Usage: dialogue CERTIFICATE KEY MODE CONNECTIONS TURNS SIZE, all connections at once. In the mode `events` one
request is answered by TURNS events of SIZE bytes, sent one by one; in the mode `requests` TURNS requests of
SIZE bytes come back. Reports the digest of what each client read.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import sys

from tests.sensor.capture.workloads.control import pattern, report, wait_for_go

CERTIFICATE, KEY, MODE = sys.argv[1:4]
CONNECTIONS, TURNS, SIZE = map(int, sys.argv[4:7])


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    if MODE == "events":
        number = int(await reader.readline())
        for turn in range(TURNS):
            writer.write(event(number, turn))
            await writer.drain()
            await asyncio.sleep(0)
    else:
        for _ in range(TURNS):
            writer.write(await reader.readexactly(SIZE))
            await writer.drain()
    await reader.read()
    writer.close()


def event(number: int, turn: int) -> bytes:
    return b"data: " + pattern(SIZE - 8, number * TURNS + turn).replace(b"\n", b" ") + b"\n\n"


async def call(number: int, port: int, context: ssl.SSLContext) -> str:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    digest = hashlib.sha256()
    if MODE == "events":
        writer.write(b"%d\n" % number)
        digest.update(await reader.readexactly(TURNS * SIZE))
    else:
        for turn in range(TURNS):
            writer.write(pattern(SIZE, turn))
            digest.update(await reader.readexactly(SIZE))
    writer.close()
    await writer.wait_closed()
    return digest.hexdigest()


async def main() -> list[str]:
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(CERTIFICATE, KEY)
    ours = ssl.create_default_context(cafile=CERTIFICATE)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=theirs)
    port = server.sockets[0].getsockname()[1]
    try:
        return await asyncio.gather(*(call(number, port, ours) for number in range(CONNECTIONS)))
    finally:
        server.close()


wait_for_go()
report(streams=asyncio.run(main()))
