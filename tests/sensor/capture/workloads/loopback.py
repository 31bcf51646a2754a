"""Python's own ssl module, both ends in one process over loopback sockets.

Usage: loopback.py CERTIFICATE KEY MODE CONNECTIONS SIZE, MODE one of threads, asyncio (memory BIOs).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import sys
import threading

from tests.sensor.capture.workloads.control import Side, pattern, report, wait_for_go

CERTIFICATE, KEY, MODE = sys.argv[1:4]
CONNECTIONS, SIZE = int(sys.argv[4]), int(sys.argv[5])

server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
server_context.load_cert_chain(CERTIFICATE, KEY)
client_context = ssl.create_default_context(cafile=CERTIFICATE)


def threads() -> Side:
    total = Side()
    lock = threading.Lock()
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()

    def read(stream: ssl.SSLSocket, size: int) -> bytes:
        pieces = []
        while size:
            piece = stream.recv(min(size, 65536))
            assert piece
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def serve(connection: socket.socket) -> None:
        with server_context.wrap_socket(connection, server_side=True) as stream:
            stream.sendall(read(stream, SIZE))
            stream.recv(1)

    def accept() -> None:
        for _ in range(CONNECTIONS):
            threading.Thread(target=serve, args=(listener.accept()[0],)).start()

    def call(number: int) -> None:
        data = pattern(SIZE, number)
        with (
            socket.create_connection(address) as plain,
            client_context.wrap_socket(plain, server_hostname="localhost") as stream,
        ):
            stream.sendall(data)
            answer = read(stream, SIZE)
        assert answer == data
        with lock:
            total.wrote(data)
            total.got(answer)

    acceptor = threading.Thread(target=accept)
    acceptor.start()
    callers = [threading.Thread(target=call, args=(number,)) for number in range(CONNECTIONS)]
    for caller in callers:
        caller.start()
    for thread in [*callers, acceptor]:
        thread.join()
    listener.close()
    return total


async def memory_bios() -> Side:
    total = Side()
    served: list[asyncio.Event] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(SIZE))
        await writer.drain()
        await reader.read()
        writer.close()
        served.append(asyncio.Event())

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_context)
    port = server.sockets[0].getsockname()[1]

    async def call(number: int) -> None:
        data = pattern(SIZE, number)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=client_context, server_hostname="localhost"
        )
        writer.write(data)
        answer = await reader.readexactly(SIZE)
        assert answer == data
        writer.close()
        await writer.wait_closed()
        total.wrote(data)
        total.got(answer)

    await asyncio.gather(*(call(number) for number in range(CONNECTIONS)))
    while len(served) < CONNECTIONS:
        await asyncio.sleep(0.01)
    server.close()
    return total


wait_for_go()
result = threads() if MODE == "threads" else asyncio.run(memory_bios())
report(bytes_each_way=result.written_size)
