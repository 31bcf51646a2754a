"""Pooled connections to one provider, one exchange at a time on each.

A connection goes back to the pool only after an exchange whose request was sent whole and whose response
ended cleanly, with nothing behind it. The youngest idle one is taken first, so that the others can grow
old and go. A request is never sent twice: a provider that has begun to work on it bills it, and only the
caller can know whether to ask again.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from mmrouter.server.wire import (
    MAX_HEAD_BYTES,
    BodyReader,
    ChunkedBody,
    EndlessBody,
    FixedBody,
    Malformed,
    Response,
    parse_response,
)

_WRITE_HIGH = 256 * 1024
_READ_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is. `prefix` is the path before `/v1/...`; `tls` None means plain HTTP."""

    host: str
    port: int
    prefix: str
    tls: ssl.SSLContext | None

    @property
    def authority(self) -> str:
        """Host and, where it is not the scheme's own, port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """Seconds to connect, seconds of silence, seconds an idle connection is kept, connections at most."""

    connect_s: float
    silence_s: float
    idle_s: float
    connections: int


class Exchanger(Protocol):
    """Who an upstream connection works for while it carries one exchange."""

    def response_head(self, response: Response) -> None:
        """Always followed by `response_data`, at once: head and first bytes can leave in one write."""

    def response_data(self, raw: bytes, payload: list[bytes], done: bool) -> None:
        """`raw` are the bytes as they came, perhaps none, `payload` the same without chunk framing."""

    def upstream_writable(self, writable: bool) -> None: ...
    def upstream_failed(self, reason: str, detail: str) -> None:
        """No (whole) response: `upstream_closed`, `upstream_timeout`, `malformed_response`."""


class UpstreamConnection(asyncio.BufferedProtocol):
    """One connection to a provider.

    It brings its own buffer because without one uvloop reads TLS into 256 KiB of fresh memory each time:
    three system calls, and an interrupt on every core when the memory is given back.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._user: Exchanger | None = None
        self._inbox = b""
        self._body: BodyReader | None = None
        self._keep_alive = False
        self.deadline = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)

    def begin(self, user: Exchanger) -> None:
        """Carry an exchange for `user`."""
        self._user = user
        self._body = None
        self._keep_alive = False
        self.deadline = self._pool.clock() + self._pool.limits.silence_s

    def write(self, data: bytes) -> None:
        self._transport.write(data)
        self.deadline = self._pool.clock() + self._pool.limits.silence_s

    def pause_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.pause_reading()
        self.deadline = 0.0  # it is the client who is slow now, and has a deadline of its own

    def resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self.deadline = self._pool.clock() + self._pool.limits.silence_s

    def release(self, clean: bool) -> None:
        """The exchange is over. `clean`: request sent whole, response read whole."""
        self._user = None
        if clean and self._keep_alive and not self._inbox and not self._transport.is_closing():
            self._pool.give_back(self)
        else:
            self.close()

    def close(self) -> None:
        self._user = None
        self._pool.forget(self)
        self._transport.abort()

    @property
    def usable(self) -> bool:
        return not self._transport.is_closing()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._pool.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._received(bytes(self._pool.buffer[:nbytes]))

    def _received(self, data: bytes) -> None:
        user = self._user
        if user is None:  # bytes on an idle connection belong to no exchange (a 408 before closing, or worse)
            self.close()
            return
        if self.deadline:
            self.deadline = self._pool.clock() + self._pool.limits.silence_s
        try:
            if self._body is None:
                self._inbox += data
                self._take_heads(user)
            else:
                self._take_body(user, data)
        except Malformed as problem:
            self._fail("malformed_response", str(problem))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._pool.forget(self)
        user, self._user = self._user, None
        if user is None:
            return
        if isinstance(self._body, EndlessBody) and exc is None:
            user.response_data(b"", [], True)
        else:
            user.upstream_failed(
                "upstream_closed", "the provider closed the connection" if exc is None else str(exc)
            )

    def pause_writing(self) -> None:
        if self._user is not None:
            self._user.upstream_writable(False)

    def resume_writing(self) -> None:
        if self._user is not None:
            self._user.upstream_writable(True)

    def expire(self) -> None:
        """The deadline has passed: silence during an exchange, or idle for long enough."""
        if self._user is None:
            self.close()
        else:
            self._fail("upstream_timeout", f"no byte for {self._pool.limits.silence_s:g} seconds")

    def _take_heads(self, user: Exchanger) -> None:
        while True:
            end = self._inbox.find(b"\r\n\r\n")
            if end < 0 or end > MAX_HEAD_BYTES:
                if len(self._inbox) > MAX_HEAD_BYTES:
                    raise Malformed(f"its head is larger than {MAX_HEAD_BYTES} bytes")
                return
            response = parse_response(self._inbox[: end + 4])
            rest, self._inbox = self._inbox[end + 4 :], b""
            if response.status == 101:
                raise Malformed("it switches to a protocol nobody asked for")
            if response.status >= 200:
                break
            self._inbox = rest  # 100 and 103 are for this hop: the router has answered Expect itself
        self._keep_alive = response.keep_alive
        if response.chunked:
            self._body = ChunkedBody()
        elif response.content_length is not None:
            self._body = FixedBody(response.content_length)
        else:
            self._body = EndlessBody()
        user.response_head(response)
        if self._body.done:
            self._inbox = rest
            user.response_data(b"", [], True)
        else:
            self._take_body(user, rest)

    def _take_body(self, user: Exchanger, data: bytes) -> None:
        body = self._body
        if body is None or body.done:
            self._inbox = data  # more than the response: such a connection is not kept
            return
        payload = body.feed(data)
        raw = data
        if excess := body.excess:
            self._inbox = excess
            raw = data[: len(data) - len(excess)]
        user.response_data(raw, payload, body.done)

    def _fail(self, reason: str, detail: str) -> None:
        user, self._user = self._user, None
        self.close()
        if user is not None:
            user.upstream_failed(reason, detail)


@dataclass(slots=True)
class PoolCounts:
    """What happened to connections since the start."""

    opened: int = 0
    reused: int = 0
    failed: int = 0


class Pool:
    """All connections to one provider."""

    def __init__(self, endpoint: Endpoint, limits: UpstreamLimits, clock: Callable[[], float]) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self.clock = clock
        self.counts = PoolCounts()
        self.last_error = ""
        self.failing = False
        # One for all connections: what is read is taken out before the loop does anything else.
        self.buffer = memoryview(bytearray(_READ_BYTES))
        self._idle: list[UpstreamConnection] = []
        self._all: set[UpstreamConnection] = set()
        self._connecting = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def take(self) -> UpstreamConnection | None:
        """An idle connection at once, or None: then `connect`."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                self.counts.reused += 1
                return connection
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection; waits for a place where all are taken. Raises OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        endpoint = self.endpoint
        async with asyncio.timeout(self.limits.connect_s):
            while len(self._all) + self._connecting >= self.limits.connections:
                place: asyncio.Future[None] = loop.create_future()
                self._waiting.append(place)
                try:
                    await place
                finally:
                    if place in self._waiting:
                        self._waiting.remove(place)
                if (idle := self.take()) is not None:
                    return idle
            self._connecting += 1
            try:
                _, connection = await loop.create_connection(
                    lambda: UpstreamConnection(self),
                    endpoint.host,
                    endpoint.port,
                    ssl=endpoint.tls,
                    server_hostname=endpoint.host if endpoint.tls else None,
                )
            finally:
                self._connecting -= 1
        self._all.add(connection)
        self.counts.opened += 1
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        connection.deadline = self.clock() + self.limits.idle_s
        self._idle.append(connection)
        self._wake()

    def forget(self, connection: UpstreamConnection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._wake()

    def sweep(self, now: float) -> None:
        """Hold every connection against its deadline."""
        for connection in [c for c in self._all if 0.0 < c.deadline < now]:
            connection.expire()

    def close(self) -> None:
        for connection in list(self._all):
            connection.close()

    @property
    def open(self) -> int:
        return len(self._all)

    @property
    def idle(self) -> int:
        return len(self._idle)

    def _wake(self) -> None:
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
