"""The TLS server that the matrix's clients call; it keeps every byte it received and sent above TLS.

In a thread of the test's own process, whose TLS is never captured.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.e2e.provider.certificates import Certificates
from tests.sensor.capture.matrix.echo import Echo, Http1Echo, Http2Echo


@dataclass
class Served:
    """One connection. `answered`: how many of the bytes in `sent` a client must have read."""

    protocol: str
    received: bytearray = field(default_factory=bytearray)
    sent: bytearray = field(default_factory=bytearray)
    answered: int = 0


class EchoServer:
    """`protocols`: what it offers by ALPN, in its order of preference. `grpc`: h2 answers are gRPC's."""

    def __init__(self, certificates: Certificates, protocols: tuple[str, ...], grpc: bool = False) -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificates.chain, certificates.key)
        self._context.set_alpn_protocols(list(protocols))
        self._grpc = grpc
        self.journal: list[Served] = []
        self.port = 0
        self._open = 0
        self._idle = threading.Event()
        self._idle.set()

    async def listen(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = writer.get_extra_info("ssl_object").selected_alpn_protocol() or "http/1.1"
        served = Served(protocol)
        self.journal.append(served)
        self._open += 1
        self._idle.clear()
        echo: Echo = Http2Echo(self._grpc) if protocol == "h2" else Http1Echo()
        # A client that closes with something unread resets the connection: what it wrote has arrived by then.
        with suppress(ConnectionError, ssl.SSLError):
            while data := await reader.read(1 << 16):
                served.received += data
                out = echo.feed(data)
                served.answered = echo.answered
                if out:
                    served.sent += out
                    writer.write(out)
                    await writer.drain()
        writer.close()
        self._open -= 1
        if not self._open:
            self._idle.set()

    def finished(self) -> list[Served]:
        """What was served since the last time, once every client has gone, but for silent connections."""
        assert self._idle.wait(30), "a client keeps its connection"
        served, self.journal = self.journal, []
        return [each for each in served if each.received]


@contextmanager
def serving(server: EchoServer) -> Iterator[EchoServer]:
    loop = asyncio.new_event_loop()
    listening = loop.run_until_complete(server.listen())
    thread = threading.Thread(target=loop.run_forever, name="echo server")
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(listening.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
