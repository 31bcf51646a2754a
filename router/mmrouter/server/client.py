"""The client's side of a connection: bytes in, one request at a time out.

A request is handed on as soon as its head is complete; its body follows piece by piece as it arrives. The
next request of the connection waits, unparsed, until the answer to this one is finished, so that memory
is bounded by what one read brings. Time is bounded as well: every phase has a deadline, held against the
clock by one sweep over all connections instead of a timer for each.

    HEAD ──head complete──▶ BODY ──last byte──▶ ANSWER ──finished()──▶ HEAD
                              └──answered──▶ DISCARD ──EOF or deadline──▶ closed
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol, cast

from mmrouter.dialects import Dialect, Refusal, error_response
from mmrouter.server.wire import (
    MAX_HEAD_BYTES,
    BodyReader,
    ChunkedBody,
    FixedBody,
    Malformed,
    Request,
    parse_request,
)

# Requests sent ahead of their turn are kept up to this size; then the client is not read from.
_MAX_AHEAD = 64 * 1024
# A refused client gets this long to stop sending before the connection is closed under it: closed at once,
# the reset would destroy the answer before the client has read it.
_DISCARD_S = 2.0
# Bytes waiting in the kernel's and the loop's buffers for a client that reads slowly, before its upstream
# is paused.
_WRITE_HIGH = 256 * 1024


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How long a client may take, in seconds, and how much it may send, in bytes."""

    head_s: float
    idle_s: float
    body_idle_s: float
    body_total_s: float
    stalled_s: float
    body_bytes: int


class Handler(Protocol):
    """What answers one request. The connection calls it, in this order, and nothing after `gone`."""

    @property
    def answering(self) -> bool:
        """Whether a part of the answer was written."""

    def start(self) -> None: ...
    def body(self, data: bytes) -> None: ...
    def body_end(self) -> None: ...
    def client_writable(self, writable: bool) -> None: ...
    def gone(self, reason: str) -> None:
        """The client is away; nobody will read the answer."""


class House(Protocol):
    """What a connection needs of the server it belongs to."""

    limits: ClientLimits

    def clock(self) -> float: ...
    def opened(self, connection: ClientConnection) -> bool: ...
    def closed(self, connection: ClientConnection) -> None: ...
    def handler(self, connection: ClientConnection, request: Request) -> Handler: ...
    def rejected(self, reason: str) -> None: ...


class _Phase(Enum):
    HEAD = auto()
    BODY = auto()
    ANSWER = auto()
    DISCARD = auto()
    CLOSED = auto()


class ClientConnection(asyncio.Protocol):
    """One connection from an application."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self._phase = _Phase.HEAD
        self._inbox = b""
        self._pumping = False
        self._reading = True
        self._stalled = False
        self._body: BodyReader = FixedBody(0)
        self._received = 0
        self._body_ends_by = 0.0
        self._handler: Handler | None = None
        self.deadline = 0.0

    # -- what the loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self.deadline = self._house.clock() + self._house.limits.head_s
        if not self._house.opened(self):
            message = "the router has no connection to spare; try again shortly"
            self._transport.write(
                error_response(Dialect.OPENAI, Refusal.OVERLOADED, message, close=True, retry_after_s=1)
            )
            self._close()

    def data_received(self, data: bytes) -> None:
        if self._phase is _Phase.HEAD and not self._inbox:
            self.deadline = self._house.clock() + self._house.limits.head_s
        self._inbox = self._inbox + data if self._inbox else data
        if not self._pumping:
            self._pump()

    def eof_received(self) -> bool:
        return False  # a client that stops sending before its answer came has gone: close

    def connection_lost(self, exc: Exception | None) -> None:
        was, self._phase = self._phase, _Phase.CLOSED
        self._house.closed(self)
        handler, self._handler = self._handler, None
        if handler is not None and was in (_Phase.BODY, _Phase.ANSWER):
            handler.gone("client_disconnected")

    def pause_writing(self) -> None:
        self._stalled = True
        self.deadline = self._house.clock() + self._house.limits.stalled_s
        if self._handler is not None:
            self._handler.client_writable(False)

    def resume_writing(self) -> None:
        self._stalled = False
        if self._phase is _Phase.ANSWER:
            self.deadline = 0.0
        if self._handler is not None:
            self._handler.client_writable(True)

    # -- what the handler calls

    def write(self, data: bytes) -> None:
        self._transport.write(data)

    def pause_reading(self) -> None:
        if self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()
            if self._phase is _Phase.BODY:
                self._extend_body_deadline()

    def finished(self, keep_alive: bool) -> None:
        """The answer is written whole; the next request may come, where the connection is kept."""
        self._handler = None
        if self._phase is _Phase.CLOSED:
            return
        self.resume_reading()
        if self._phase is _Phase.BODY:
            self._discard()
        elif keep_alive:
            self._phase = _Phase.HEAD
            self.deadline = self._house.clock() + self._house.limits.idle_s
            if not self._pumping:
                self._pump()
        else:
            self._close()

    @property
    def body_complete(self) -> bool:
        """Whether the whole request was received. An answer before that must close the connection."""
        return self._body.done

    def abort(self) -> None:
        """Cut the connection so that the client sees an answer that is not complete."""
        self._handler = None
        self._phase = _Phase.CLOSED
        self._inbox = b""
        self._transport.abort()

    def shut_down(self) -> None:
        """Close now if no request is being answered."""
        if self._phase is _Phase.HEAD:
            self._close()

    def expire(self) -> None:
        """The deadline has passed."""
        phase = self._phase
        if self._stalled:
            self._lose("client_too_slow")
        elif phase is _Phase.BODY:
            self._lose("request_too_slow")
        elif phase is _Phase.HEAD and self._inbox:
            self._refuse(Refusal.SLOW_REQUEST, "the head of the request did not arrive in time", "slow_head")
        else:
            self._close()

    # -- inside

    def _lose(self, reason: str) -> None:
        handler = self._handler
        self.abort()
        if handler is not None:
            handler.gone(reason)
        self._house.rejected(reason)

    def _pump(self) -> None:
        """Take from the inbox as far as it goes. Never re-entered: an answer given at once returns here."""
        self._pumping = True
        try:
            while self._inbox:
                if self._phase is _Phase.HEAD:
                    if not self._take_head():
                        break
                elif self._phase is _Phase.BODY:
                    self._take_body()
                elif self._phase is _Phase.ANSWER:
                    if len(self._inbox) > _MAX_AHEAD:
                        self.pause_reading()
                    break
                else:
                    self._inbox = b""
        finally:
            self._pumping = False

    def _take_head(self) -> bool:
        inbox = self._inbox
        while inbox.startswith(b"\r\n"):  # an empty line before a request is to be ignored: RFC 9112, 2.2
            inbox = inbox[2:]
        end = inbox.find(b"\r\n\r\n")
        self._inbox = inbox
        if not 0 <= end <= MAX_HEAD_BYTES:
            if len(inbox) > MAX_HEAD_BYTES:
                message = f"the head of a request is limited to {MAX_HEAD_BYTES} bytes"
                self._refuse(Refusal.HEAD_TOO_LARGE, message, "head_too_large")
            elif inbox and not 0x41 <= inbox[0] <= 0x5A:
                self._refuse(Refusal.MALFORMED, "this port speaks plain HTTP/1.1", "not_http")
            return False
        try:
            request = parse_request(inbox[: end + 4])
        except Malformed as problem:
            self._refuse(Refusal.MALFORMED, f"malformed request: {problem}", "malformed_request")
            return False
        self._inbox = inbox[end + 4 :]
        limit = self._house.limits.body_bytes
        if (request.content_length or 0) > limit:
            self._refuse(Refusal.TOO_LARGE, f"a request body is limited to {limit} bytes", "body_too_large")
            return False
        self._begin(request)
        return True

    def _begin(self, request: Request) -> None:
        self._body = ChunkedBody() if request.chunked else FixedBody(request.content_length or 0)
        self._received = 0
        self._phase = _Phase.BODY
        self._body_ends_by = self._house.clock() + self._house.limits.body_total_s
        handler = self._handler = self._house.handler(self, request)
        if self._body.done:
            self._phase = _Phase.ANSWER
            self.deadline = 0.0
            handler.start()
            handler.body_end()
        else:
            self._extend_body_deadline()
            handler.start()

    def _take_body(self) -> None:
        data, self._inbox = self._inbox, b""
        try:
            pieces = self._body.feed(data)
        except Malformed as problem:
            self._bad_body(Refusal.MALFORMED, f"malformed request body: {problem}", "malformed_body")
            return
        self._received += len(data)
        if self._received > self._house.limits.body_bytes:
            limit = self._house.limits.body_bytes
            self._bad_body(Refusal.TOO_LARGE, f"a request body is limited to {limit} bytes", "body_too_large")
            return
        if self._reading:
            self._extend_body_deadline()
        for piece in pieces:
            if self._handler is not None:
                self._handler.body(piece)
        if not self._body.done:
            return
        self._inbox = self._body.excess
        if self._handler is not None:
            self._phase = _Phase.ANSWER
            self.deadline = 0.0
            self._handler.body_end()

    def _extend_body_deadline(self) -> None:
        self.deadline = min(self._house.clock() + self._house.limits.body_idle_s, self._body_ends_by)

    def _bad_body(self, refusal: Refusal, message: str, reason: str) -> None:
        handler, self._handler = self._handler, None
        begun = handler is None or handler.answering
        if handler is not None:
            handler.gone(reason)
        if begun:  # part of an answer is on its way: an error inside it could only confuse
            self._house.rejected(reason)
            self.abort()
        else:
            self._refuse(refusal, message, reason)

    def _refuse(self, refusal: Refusal, message: str, reason: str) -> None:
        self._house.rejected(reason)
        self._transport.write(error_response(Dialect.OPENAI, refusal, message, close=True))
        self._discard()

    def _discard(self) -> None:
        self._handler = None
        self._inbox = b""
        self._phase = _Phase.DISCARD
        self.deadline = self._house.clock() + _DISCARD_S

    def _close(self) -> None:
        self._phase = _Phase.CLOSED
        self._inbox = b""
        self._transport.close()
