"""The provider as a TLS server on asyncio. What a client sends wrong is answered with 400 and closed."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from tests.e2e.provider.answer import Answer, Request
from tests.e2e.provider.certificates import Certificates
from tests.e2e.provider.journal import Journal
from tests.e2e.provider.routes import answer
from tests.e2e.provider.wire import HEAD_LIMIT, MalformedRequest, read_request, response_bytes

BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Provider:
    """`await start()`, then `port` is known; `await close()` ends every connection."""

    def __init__(self, certificates: Certificates, journal: Journal) -> None:
        self.port = 0
        self._certificates = certificates
        self._journal = journal
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, port: int = 0) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificates.chain, self._certificates.key)
        context.set_alpn_protocols(["http/1.1"])
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", port, ssl=context, limit=HEAD_LIMIT
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            await self._exchanges(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            pass  # the client went away; what it had asked for is in the journal
        except (MalformedRequest, asyncio.LimitOverrunError):
            with contextlib.suppress(ConnectionError):
                writer.write(BAD_REQUEST)
                await writer.drain()
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            self._connections.discard(task)
            writer.close()

    async def _exchanges(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await read_request(reader, writer)) is not None:
            reply = answer(request)
            await asyncio.sleep(reply.delay_s)
            if not await self._reply(request, reply, writer):
                return
            if request.headers.get("connection", "").lower() == "close":
                return

    async def _reply(self, request: Request, reply: Answer, writer: asyncio.StreamWriter) -> bool:
        """Write the answer and its journal line; False where the answer was ordered to be cut off."""
        complete = False
        try:
            items = response_bytes(request, reply)
            waiting = next(items)  # always one item behind, to know which is the last
            for number, item in enumerate(items):
                writer.write(waiting)
                await writer.drain()
                if reply.cut is not None and number >= reply.cut:
                    return False
                if reply.stream:
                    await asyncio.sleep(reply.gap_s)
                waiting = item
            complete = True
            self._journal.record(request, reply, complete=True)
            writer.write(waiting)
            await writer.drain()
        finally:
            if not complete:
                self._journal.record(request, reply, complete=False)
        return True
