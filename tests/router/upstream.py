"""A provider whose every byte a test decides: a TLS server in a thread of its own.

`respond` gets each request as it was received and yields what to send: bytes as they are, `Pause` for a
moment of silence, `CUT` to break the connection off.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.e2e.provider.certificates import Certificates


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


class Cut:
    """The end of the connection in the middle of things."""


CUT = Cut()
Step = bytes | Pause | Cut


@dataclass(frozen=True, slots=True)
class Seen:
    """One request, as it arrived. `framed` is the body with its chunk framing."""

    head: bytes
    body: bytes
    framed: bytes

    @property
    def line(self) -> str:
        return self.head.split(b"\r\n", 1)[0].decode()

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    @property
    def headers(self) -> dict[str, str]:
        lines = self.head.decode("latin-1").split("\r\n")[1:-2]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}


Respond = Callable[[Seen], Iterator[Step]]


def whole(body: bytes, kind: str = "application/json", status: str = "200 OK", extra: str = "") -> bytes:
    """A response with Content-Length."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\n{extra}content-length: {len(body)}\r\n\r\n"
    return head.encode() + body


@dataclass
class Upstream:
    """`with Upstream(certificates) as upstream`: `upstream.respond = ...`, then look at `upstream.seen`."""

    certificates: Certificates
    respond: Respond | None = None
    seen: list[Seen] = field(default_factory=list)
    connections: int = 0
    disconnects: int = 0
    body_bytes: int = 0
    keep_bodies: bool = True
    port: int = 0

    def __enter__(self) -> Self:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificates.chain, self.certificates.key)
        tasks: set[asyncio.Task[None]] = set()

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = self._loop.create_task(self._connection(reader, writer))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", self.port, ssl=context)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while (seen := await self._request(reader)) is not None:
                self.seen.append(seen)
                assert self.respond is not None
                for step in self.respond(seen):
                    if isinstance(step, Pause):
                        await asyncio.sleep(step.seconds)
                    elif isinstance(step, Cut):
                        return
                    else:
                        writer.write(step)
                        await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            self.disconnects += 1
        finally:
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                writer.transport.abort()

    async def _request(self, reader: asyncio.StreamReader) -> Seen | None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return None
        headers = Seen(head, b"", b"").headers
        if headers.get("transfer-encoding") == "chunked":
            body, framed = await self._chunks(reader)
            return Seen(head, body, framed)
        left = int(headers.get("content-length", "0"))
        pieces = []
        while left:
            piece = await reader.read(min(left, 1 << 16))
            if not piece:
                raise asyncio.IncompleteReadError(b"", left)
            left -= len(piece)
            self.body_bytes += len(piece)
            if self.keep_bodies:
                pieces.append(piece)
        body = b"".join(pieces)
        return Seen(head, body, body)

    async def _chunks(self, reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
        body, framed = b"", b""
        while True:
            line = await reader.readuntil(b"\r\n")
            framed += line
            size = int(line, 16)
            piece = await reader.readexactly(size + 2)
            framed += piece
            body += piece[:-2]
            if size == 0:
                return body, framed
