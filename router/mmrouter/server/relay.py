"""One call on its way through: decide, send on, stream back, settle.

Bytes go on before they are looked at: every piece is written to the other side first and read for its
usage after. The reader of usage can therefore fail without the call failing, and never delays it. Where a
budget applies, the request is held until it is whole, because its model and limits decide whether it may
be sent at all; a request too large to hold is decided by its size.

However a call ends (answer complete, client gone, provider gone, silence), `_close_books` runs exactly once.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from mmproto.exchange import (
    Dropped,
    Exchange,
    Failed,
    Outcome,
    ReadingRules,
    Recognised,
    RequestHead,
    ResponseHead,
)
from mmproto.v1.call_pb2 import OBSERVER_ROUTER, Call
from mmproto.v1.routing_pb2 import RoutingDecision
from mmrouter.dialects import Refusal, Route, error_response
from mmrouter.keys import VirtualKey
from mmrouter.policy.gate import Admitted, Gate, Refused
from mmrouter.records import Records
from mmrouter.server.client import ClientConnection
from mmrouter.server.counts import Counts
from mmrouter.server.upstream import Pool, UpstreamConnection
from mmrouter.server.wire import Headers, Request, Response, client_head, upstream_head

# Request bytes kept while a connection to the provider is being made, before the client is paused.
_CONNECT_BUFFER = 256 * 1024


@dataclass(frozen=True, slots=True)
class Upstream:
    """A provider as this router reaches it. `credentials` are headers, never shown or logged."""

    name: str
    provider: str
    pool: Pool
    credentials: Headers
    reading: ReadingRules
    host: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", self.pool.endpoint.authority.encode("ascii"))

    def __repr__(self) -> str:
        return f"Upstream({self.name!r})"


@dataclass(frozen=True, slots=True)
class Desk:
    """What every relay of a router shares."""

    gate: Gate
    records: Records
    counts: Counts
    clock_ns: Callable[[], int]
    node: str


class Relay:
    """Carries one request and its response. See the module's docstring."""

    def __init__(
        self,
        desk: Desk,
        client: ClientConnection,
        request: Request,
        *,
        route: Route,
        key: VirtualKey,
        upstream: Upstream,
        call_id: str,
    ) -> None:
        self._desk = desk
        self._client = client
        self._request = request
        self._route = route
        self._key = key
        self._upstream = upstream
        self._call_id = call_id
        self._started_ns = desk.clock_ns()
        self._admitted: Admitted | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._connecting: asyncio.Task[None] | None = None
        self._link: UpstreamConnection | None = None
        self._exchange: Exchange | None = None
        self._request_sent = False
        self._response: Response | None = None
        self._head = b""
        self._dechunk = False
        self._keep = False
        self._closed = False

    @property
    def answering(self) -> bool:
        return self._response is not None

    # -- from the client

    def start(self) -> None:
        gate = self._desk.gate
        if not gate.needs_body(self._key, self._route):
            self._pass(Admitted(None, ""))
        elif self._too_large(self._request.content_length or 0):
            self._decide_large()
        if self._request.expects_continue and not self._closed:
            self._client.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def body(self, data: bytes) -> None:
        if self._closed:
            return
        if self._link is not None:
            self._send(self._link, data)
            return
        self._held.append(data)
        self._held_bytes += len(data)
        if self._admitted is None:
            if self._too_large(self._held_bytes):
                self._decide_large()
        elif self._held_bytes > _CONNECT_BUFFER:
            self._client.pause_reading()

    def body_end(self) -> None:
        if self._closed:
            return
        if self._admitted is None:
            encoding = self._request.header(b"content-encoding") or b""
            body = self._held[0] if len(self._held) == 1 else b"".join(self._held)
            verdict = self._desk.gate.admit(self._key, self._route, self._upstream.provider, body, encoding)
            self._act_on(verdict)
        elif self._link is not None:
            self._end_request(self._link)

    def client_writable(self, writable: bool) -> None:
        if self._link is not None:
            if writable:
                self._link.resume_reading()
            else:
                self._link.pause_reading()

    def gone(self, reason: str) -> None:
        if self._closed:
            return
        self._desk.counts.ended[reason] += 1
        self._drop_link()
        self._close_books(self._abort(reason), may_have_cost=self._request_sent, why=reason)

    # -- the decision

    def _too_large(self, size: int) -> bool:
        return size > self._desk.gate.rules.hold_bytes

    def _decide_large(self) -> None:
        gate, length = self._desk.gate, self._request.content_length
        self._act_on(gate.admit_large(self._key, self._route, self._upstream.provider, length))

    def _act_on(self, verdict: Admitted | Refused) -> None:
        if isinstance(verdict, Admitted):
            self._pass(verdict)
        else:
            self._closed = True
            self._held.clear()
            keep = self._request.keep_alive and self._client.body_complete
            self._client.write(refuse(self._desk, self._route, self._key, verdict, not keep))
            self._client.finished(keep)

    def _pass(self, admitted: Admitted) -> None:
        self._admitted = admitted
        link = self._upstream.pool.take()
        if link is not None:
            self._go(link)
        else:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        try:
            link = await self._upstream.pool.connect()
        except (OSError, TimeoutError) as error:
            self._connecting = None
            timed_out = isinstance(error, TimeoutError)
            self._upstream.pool.counts.failed += 1
            self.upstream_failed(
                "upstream_timeout" if timed_out else "upstream_unreachable", reason_of(error)
            )
            return
        self._connecting = None
        self._go(link)

    def _go(self, link: UpstreamConnection) -> None:
        request = self._request
        self._link = link
        link.begin(self)
        target = self._upstream.pool.endpoint.prefix + request.target
        own = [*self._upstream.credentials, (b"x-modelmeter-call-id", self._call_id.encode("ascii"))]
        head, seen = upstream_head(request, target, self._upstream.host, own)
        held, self._held = self._held, []
        link.write(b"".join([head, *self._framed(held)]))  # one write is one TLS record and one packet
        if self._route.method == "POST":
            # The reader sees the request as the provider does, without any credential.
            headers = (*seen, ("x-modelmeter-call-id", self._call_id))
            self._exchange = Exchange(
                RequestHead(request.method, target, headers),
                self._upstream.reading,
                self._call_id,
                self._started_ns,
            )
            self._read_held(held)
        self._client.resume_reading()
        if self._client.body_complete:
            self._end_request(link)

    # -- towards the provider

    def _framed(self, pieces: list[bytes]) -> list[bytes]:
        if not self._request.chunked:
            return pieces
        return [part for piece in pieces for part in (b"%x\r\n" % len(piece), piece, b"\r\n")]

    def _send(self, link: UpstreamConnection, piece: bytes) -> None:
        link.write(b"".join(self._framed([piece])) if self._request.chunked else piece)
        self._read_request([piece])

    def _end_request(self, link: UpstreamConnection) -> None:
        if self._request.chunked:
            link.write(b"0\r\n\r\n")
        self._request_sent = True
        if self._exchange is not None:
            try:
                self._exchange.request_end(self._desk.clock_ns())
            except Exception as error:
                self._lose_reader(error)

    # -- from the provider

    def response_head(self, response: Response) -> None:
        self._response = response
        self._upstream.pool.failing = False
        request = self._request
        self._dechunk = response.chunked and request.http_1_0
        endless = not response.chunked and response.content_length is None
        self._keep = request.keep_alive and self._client.body_complete and not endless and not self._dechunk
        self._head = client_head(response, http_1_0=request.http_1_0, close=not self._keep)

    def response_data(self, raw: bytes, payload: list[bytes], done: bool) -> None:
        out = b"".join(payload) if self._dechunk else raw
        if self._head:
            out, head = self._head + out, self._response
            self._head = b""
        else:
            head = None
        if out:
            self._client.write(out)
        if head is not None:
            self._read_head(head)
        self._read_response(payload)
        if done:
            self._complete()

    def upstream_writable(self, writable: bool) -> None:
        if writable:
            self._client.resume_reading()
        elif not self._request_sent:
            self._client.pause_reading()

    def upstream_failed(self, reason: str, detail: str) -> None:
        if self._closed:
            return
        self._link = None
        self._desk.counts.ended[reason] += 1
        self._upstream.pool.last_error = f"{reason}: {detail}"
        self._upstream.pool.failing = True
        answering = self._response is not None
        # A provider that closed before it said anything has not billed; one that was silent may have.
        may_have_cost = self._request_sent and (answering or reason == "upstream_timeout")
        self._close_books(self._abort(reason), may_have_cost=may_have_cost, why=reason)
        if answering:
            self._client.abort()  # the client must see that what it has is not all
            return
        refusal = Refusal.UPSTREAM_TIMEOUT if reason == "upstream_timeout" else Refusal.UPSTREAM_FAILED
        message = f"the provider '{self._upstream.name}' gave no answer ({reason}): {detail}"
        keep = self._request.keep_alive and self._client.body_complete
        self._client.write(error_response(self._route.dialect, refusal, message, close=not keep))
        self._client.finished(keep)

    # -- the end

    def _complete(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.release(clean=self._request_sent)
        self._desk.counts.ended["complete"] += 1
        outcome: Outcome | None = None
        if self._exchange is not None:
            try:
                outcome = self._exchange.end(self._desk.clock_ns())
            except Exception as error:
                self._lose_reader(error)
        self._close_books(outcome, may_have_cost=self._status < 400, why="")
        self._client.finished(self._keep)

    @property
    def _status(self) -> int:
        return 0 if self._response is None else self._response.status

    def _abort(self, reason: str) -> Outcome | None:
        if self._exchange is None:
            return None
        try:
            return self._exchange.abort(reason, self._desk.clock_ns())
        except Exception as error:
            self._lose_reader(error)
            return None

    def _drop_link(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _close_books(self, outcome: Outcome | None, *, may_have_cost: bool, why: str) -> None:
        """Settle with the budgets and hand over the records of this call: exactly once."""
        if self._closed:
            return
        self._closed = True
        desk, key, admitted = self._desk, self._key, self._admitted or Admitted(None, "")
        further = self._further()
        self._exchange = None
        answered = self._response is not None
        decision = RoutingDecision(
            outcome=RoutingDecision.OUTCOME_FORWARDED
            if answered
            else RoutingDecision.OUTCOME_UPSTREAM_FAILED,
            reason=why,
            requested_model=admitted.model,
            routed_provider=self._upstream.provider,
            routed_model=admitted.model,
        )
        if not isinstance(outcome, Recognised) or not self._request_sent:
            if self._route.spends and self._request_sent:
                reason = outcome.reason if isinstance(outcome, Dropped | Failed) else "reader_failed"
                desk.counts.unread[reason] += 1
            if may_have_cost and self._route.spends:
                desk.gate.hold(admitted, self._call_id)
            else:
                desk.gate.release(admitted)
            desk.records.decision(decision, key, self._started_ns)
            return
        call = self._own(outcome.call)
        decision.call_id = call.id
        decision.requested_model = decision.routed_model = call.request_model or admitted.model
        if may_have_cost:
            desk.gate.settle(admitted, call)
        else:
            desk.gate.release(admitted)
        desk.records.call(call)
        desk.counts.calls += 1
        for each in further:
            desk.gate.add(admitted, self._own(each.call))
            desk.records.call(each.call)
            desk.counts.calls += 1
        desk.records.decision(decision, key, self._started_ns)

    def _own(self, call: Call) -> Call:
        """Writes down whose call it is."""
        key = self._key
        call.observer = OBSERVER_ROUTER
        call.tenant, call.team, call.application, call.user = key.tenant, key.team, key.application, key.user
        call.virtual_key_id = key.id
        call.node = self._desk.node
        return call

    # -- the reader of usage, which must never hurt the call

    def _further(self) -> list[Recognised]:
        """The calls that the request brought about besides its own."""
        if self._exchange is None:
            return []
        try:
            return self._exchange.further(self._desk.clock_ns())
        except Exception as error:
            self._lose_reader(error)
            return []

    def _read_held(self, pieces: list[bytes]) -> None:
        """What was held for the decision. Where that has parsed it, it is not parsed again."""
        admitted = self._admitted
        if admitted is None or admitted.document is None:
            self._read_request(pieces)
            return
        document, admitted.document = admitted.document, None
        if self._exchange is not None:
            try:
                self._exchange.request_document(document, pieces)
            except Exception as error:
                self._lose_reader(error)

    def _read_request(self, pieces: list[bytes]) -> None:
        if self._exchange is not None and pieces:
            now = self._desk.clock_ns()
            try:
                for piece in pieces:
                    self._exchange.request_body(piece, now)
            except Exception as error:
                self._lose_reader(error)

    def _read_response(self, pieces: list[bytes]) -> None:
        if self._exchange is not None and pieces:
            now = self._desk.clock_ns()
            try:
                for piece in pieces:
                    self._exchange.response_body(piece, now)
            except Exception as error:
                self._lose_reader(error)

    def _read_head(self, response: Response) -> None:
        if self._exchange is not None:
            headers = tuple(
                [
                    (name.lower().decode("latin-1"), value.decode("latin-1"))
                    for name, value in response.headers
                ]
            )
            try:
                self._exchange.response_head(ResponseHead(response.status, headers), self._desk.clock_ns())
            except Exception as error:
                self._lose_reader(error)

    def _lose_reader(self, error: Exception) -> None:
        self._exchange = None
        self._desk.counts.reader_errors[type(error).__name__] += 1


def refuse(desk: Desk, route: Route, key: VirtualKey, refused: Refused, close: bool) -> bytes:
    """The answer to a call that is not sent anywhere; records that it was refused."""
    desk.counts.refused[refused.refusal.code] += 1
    blocked = refused.refusal in (Refusal.BUDGET_EXCEEDED, Refusal.BUDGET_RESERVED)
    decision = RoutingDecision(
        outcome=RoutingDecision.OUTCOME_BUDGET_BLOCKED if blocked else RoutingDecision.OUTCOME_REJECTED,
        reason=refused.refusal.code,
        requested_model=refused.model,
        budget_id=refused.budget_id if blocked else "",
    )
    desk.records.refusal(decision, key, desk.clock_ns())
    return error_response(
        route.dialect,
        refused.refusal,
        refused.message,
        close=close,
        retry_after_s=refused.retry_after_s,
        should_retry=refused.should_retry,
    )


def reason_of(error: BaseException) -> str:
    """A connection error in a few words, without addresses that only confuse."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message})"
    if isinstance(error, TimeoutError):
        return "no connection in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
