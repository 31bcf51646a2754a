"""One HTTP exchange becomes one call: the narrow waist between bytes and money.

The sensor (through `reader.ConnectionReader`), the router and the replay of archives all drive the same
`Exchange`: the heads, then the bodies as they come, in any pieces and still content-encoded, then `end` or
`abort`. Exactly one `Outcome` comes back, whatever was fed, and besides it what `further` tells. It never
raises on input, holds a bounded amount however large the bodies are (docs/develop/architecture.md adds it
up), and keeps nothing of prompts and answers beyond what the dialects' trees name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mmproto import identity
from mmproto.credentials import CREDENTIAL_HEADERS, api_key
from mmproto.endpoint import Endpoint
from mmproto.estimation.estimate import Estimate
from mmproto.framing.http1 import Headers, RequestHead, ResponseHead
from mmproto.framing.jsonpick import JsonBody, MalformedJson
from mmproto.framing.payload import Payload
from mmproto.framing.websocket import MessageReader, negotiated
from mmproto.outcome import Dropped, Failed, Outcome, ReadingRules, Recognised
from mmproto.providers import paths
from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.facts import Facts, Measured, Portion
from mmproto.usage import output_tokens
from mmproto.v1.call_pb2 import Call, HostSource
from mmproto.v1.usage_pb2 import QUALITY_UNKNOWN

__all__ = [
    "CREDENTIAL_HEADERS",
    "Dropped",
    "Exchange",
    "Failed",
    "Outcome",
    "ReadingRules",
    "Recognised",
    "RequestHead",
    "ResponseHead",
]

_NS: Final = 1_000_000_000
_SWITCHING: Final = 101

_SESSION_HEADERS: Final = ("x-session-id", "session-id", "session_id", "x-claude-code-session-id")

MALFORMED_JSON: Final = "malformed_json"
STREAM_INCOMPLETE: Final = "stream_incomplete"
NO_RESPONSE_BODY: Final = "response_body_missing"
# An exchange whose calls were its portions, each of them counted for itself.
COUNTED_IN_PORTIONS: Final = "counted_in_portions"
# In the place of a portion that was told.
_TOLD: Final = Portion(Facts(), Measured())

# Ends at which the observer knows that no provider worked: it never had a connection, or one that was closed
# before the first byte of an answer, or the server said that it had not begun.
NOT_SERVED: Final = frozenset({"upstream_unreachable", "upstream_closed", "stream_refused"})


class Exchange:
    """Reads one exchange. All times are unix nanoseconds.

    `fallback_id` names the exchange where neither provider nor router gave it an id (see `identity`). `host`
    replaces the Host header where the observer knows better, and `host_source` says from where: an archive's
    URL, the SNI of a connection, its peer. `peer` is the other end of the socket.
    """

    def __init__(
        self,
        head: RequestHead,
        rules: ReadingRules,
        fallback_id: str,
        at_ns: int,
        *,
        host: str | None = None,
        host_source: HostSource = HostSource.HOST_SOURCE_REQUEST,
        peer: Endpoint | None = None,
    ) -> None:
        self._head = head
        self._headers = _first_values(head.headers)
        self._rules = rules
        self.fallback_id = fallback_id
        self._started_ns = at_ns
        self._first_content_ns: int | None = None
        self.host = (host or self._headers.get("host", "")).lower()
        self._host_source = host_source
        self._peer = peer
        self._match = paths.match(head.method, self.host, head.target, rules.hosts)
        self._dialect = self._open_dialect()
        self._estimate = self._open_estimate(self._dialect)
        self._request: Payload | None = None
        self._request_read = False
        self._request_ended = False
        self._client_messages: MessageReader | None = None  # after an upgrade to WebSocket
        self._response_head: ResponseHead | None = None
        self._response: Payload | None = None
        self._damaged = False
        self._portions_told = 0

    def _open_dialect(self) -> Dialect | None:
        match = self._match
        if match.dialect is None:
            return None
        asked = Asked(
            match.provider,
            self._head.method,
            match.path,
            paths.query_of(self._head.target),
            match.names,
            match.quirks,
            match.free,
        )
        dialect = match.dialect(asked)
        dialect.read_request_head(self._headers)
        return dialect

    def _open_estimate(self, dialect: Dialect | None) -> Estimate | None:
        if dialect is None or dialect.facts.free or not dialect.costs or not dialect.has_text:
            return None
        if dialect.speaks_websocket:
            return None
        return Estimate(type(dialect).__name__, dialect.operation, self._match.provider)

    @property
    def recognised(self) -> bool:
        """Whether method, host and path are those of an LLM operation that can be read."""
        return self._dialect is not None

    @property
    def takes_upgrade(self) -> bool:
        """Whether the exchange goes on after the upgrade that was just answered.

        What either side sends from then on is its request and its response body.
        """
        head, dialect = self._response_head, self._dialect
        return (
            dialect is not None
            and head is not None
            and head.status == _SWITCHING
            and dialect.speaks_websocket
        )

    @property
    def provider(self) -> str | None:
        """OpenTelemetry name of the provider, None where the request is no LLM operation."""
        return self._match.provider if self._dialect else None

    @property
    def operation(self) -> str | None:
        """OpenTelemetry name of the operation, None where the request is none."""
        return self._dialect.operation if self._dialect else None

    @property
    def request_model(self) -> str | None:
        """The model that was asked for; None until the request body has been read, or where it names none."""
        return (self._dialect.facts.request_model or None) if self._dialect else None

    @property
    def streaming(self) -> bool | None:
        """Whether the response streams, as far as known: first what was asked for, then what came."""
        if self._dialect is None or not (self._request_read or self._response):
            return None
        if self._response is not None and self._response.events is not None:
            return True
        return self._dialect.facts.stream_requested

    def request_body(self, data: bytes, at_ns: int) -> None:
        """The next bytes of the request body; after an upgrade, of what the client sends."""
        dialect = self._dialect
        if dialect is None:
            return
        if self._client_messages is not None:
            for event in self._client_messages.feed(data):
                dialect.read_request_event(event)
        elif not self._request_read:
            request = self._request_payload(dialect)
            for piece in request.decoder.feed(data):
                if self._estimate is not None:
                    self._estimate.request_bytes(piece)
                for event in request.read(piece):
                    dialect.read_request_event(event)

    def request_document(self, document: Mapping[str, Any], body: Iterable[bytes] = ()) -> None:
        """The whole request, in place of `request_body`, from a caller that has parsed it already.

        `document` is pruned to `providers.dialect.REQUEST_TREE`; `body` is what it was parsed from.
        """
        if self._dialect is not None and not self._request_read:
            self._request_read = True
            self._dialect.read_request(document)
            if self._estimate is not None:
                for piece in body:
                    self._estimate.request_bytes(piece)
            self._begin_estimate(self._dialect, document)

    def _request_payload(self, dialect: Dialect) -> Payload:
        if self._request is None:
            self._request = Payload(self._headers, JsonBody(dialect.request_tree))
        return self._request

    def request_end(self, at_ns: int) -> None:
        """The request is complete."""
        self._request_ended = True
        self._read_request(complete=True)

    def response_head(self, head: ResponseHead, at_ns: int) -> None:
        """The final response's status and headers."""
        if self._response_head is not None:
            return
        self._response_head = head
        if self._dialect is not None:
            headers = _first_values(head.headers)
            self._dialect.read_response_head(head.status, headers)
            self._response = Payload(headers, JsonBody(self._dialect.response_tree), self._dialect.style)
            if self.takes_upgrade:
                extensions = headers.get("sec-websocket-extensions", "")
                self._client_messages = MessageReader(negotiated(extensions, from_client=True))
                self._response.become(MessageReader(negotiated(extensions, from_client=False)))

    def response_trailers(self, headers: Headers, at_ns: int) -> None:
        """Headers that came after the response's body."""
        if self._dialect is not None:
            self._dialect.read_trailers(_first_values(headers))

    def response_body(self, data: bytes, at_ns: int) -> None:
        """The next bytes of the response body; after an upgrade, of what the server sends."""
        response, dialect = self._response, self._dialect
        if response is None or dialect is None:
            return
        if response.decoder.is_plain:
            self._read_piece(response, dialect, data, at_ns)
            return
        for piece in response.decoder.feed(data):
            self._read_piece(response, dialect, piece, at_ns)

    def _read_piece(self, response: Payload, dialect: Dialect, piece: bytes, at_ns: int) -> None:
        if not response.decided:
            piece = response.sniff(piece)
            if not piece:
                return
        estimate = self._estimate
        if response.events is None:
            if estimate is not None:
                estimate.answer_bytes(piece, streamed=False)
            response.read(piece)
            return
        if estimate is not None and response.has_lines:
            estimate.answer_bytes(piece, streamed=True)
            estimate = None
        if (
            self._first_content_ns is not None
            and response.has_lines
            and piece.endswith(b"\n\n")
            and response.events.is_between_events
            and not dialect.tells(piece)
            and b"[DONE]" not in piece  # any dialect may end so
        ):
            return  # whole events, all of them deltas: they need not even be taken apart
        for event in response.events.feed(piece):
            if self._first_content_ns is None:
                self._first_content_ns = at_ns
            if estimate is not None:
                estimate.answer_event(event.data)
            dialect.read_event(event)

    def gap(self, at_ns: int) -> None:
        """Bytes of the request or of the response are missing at this point.

        Usage that is read whole after it still counts as exact; a document with a hole does not.
        """
        self._damaged = True
        if self._estimate is not None:
            self._estimate.lose(of_request=not self._request_read)
        if self._client_messages is not None:
            self._client_messages.lose()
        if not self._request_read:
            if self._dialect is not None:
                self._request_payload(self._dialect).lose()
        elif self._response is not None and self._dialect is not None:
            self._response.lose()
            self._dialect.lose()

    def further(self, at_ns: int) -> list[Recognised]:
        """The calls inside this exchange, besides the one that `end` tells, that are complete by now.

        To be asked after feeding and once more after `end` or `abort`. Each call is told once.
        """
        dialect = self._dialect
        if dialect is None or self._portions_told == len(dialect.portions):
            return []
        start, self._portions_told = self._portions_told, len(dialect.portions)
        told = dialect.portions[start:]
        dialect.portions[start:] = [_TOLD] * len(told)  # a batch may have a hundred thousand
        return [self._portion(dialect, portion, number, at_ns) for number, portion in enumerate(told, start)]

    def end(self, at_ns: int) -> Outcome:
        """The exchange is complete."""
        return self._outcome("", at_ns)

    def abort(self, reason: str, at_ns: int) -> Outcome:
        """No end was seen: client_disconnected, connection_closed, capture_gap, upstream_failed, ...

        A client that has read the last event of a stream often closes at once: where the response itself said
        that it was complete, that is an end.
        """
        return self._outcome(reason, at_ns)

    def _outcome(self, cut_off: str, at_ns: int) -> Outcome:
        dialect = self._dialect
        if dialect is None:
            return Failed(self._match.reason) if self._match.is_loss else Dropped(self._match.reason)
        self._read_request(complete=not cut_off)
        malformed = self._finish_response(dialect)
        facts = dialect.facts
        if facts.terminated:
            cut_off = ""
        dialect.close(complete=not cut_off and not self._damaged)
        if not self._match.known_host and not (facts.request_shaped or facts.response_shaped):
            return Dropped(paths.NOT_LLM)
        status = self._response_head.status if self._response_head else None
        succeeded = status is not None and (status == _SWITCHING or 200 <= status < 300)
        if facts.free:
            return Dropped(facts.free, self._call(dialect, cut_off, at_ns))
        if dialect.is_container and succeeded:
            return Dropped(COUNTED_IN_PORTIONS)
        if malformed and succeeded and not cut_off and not self._damaged:
            return Failed(malformed)
        call = self._call(dialect, cut_off, at_ns)
        return Recognised(call, self._kept_headers(), tuple(facts.anomalies))

    def _read_request(self, *, complete: bool) -> None:
        if self._request_read or self._dialect is None:
            return
        self._request_read = True
        request, self._request = self._request, None
        if request is None:
            return
        dialect = self._dialect
        for piece in request.decoder.finish():
            if self._estimate is not None:
                self._estimate.request_bytes(piece)
            for event in request.read(piece):
                dialect.read_request_event(event)
        if request.events is not None:
            for event in request.events.finish():
                dialect.read_request_event(event)
            return
        if request.is_empty:
            return
        document: Any = None
        try:
            document = request.finish()
        except MalformedJson:
            document = request.partial()
            sound = dialect.takes_bytes and not request.is_json
            if complete and not self._damaged and not sound:
                dialect.facts.anomaly("malformed_request")
        dialect.read_request(document)
        self._begin_estimate(dialect, document)

    def _begin_estimate(self, dialect: Dialect, document: Any) -> None:
        if self._estimate is not None and isinstance(document, Mapping):
            self._estimate.request_end(dialect.facts, document)

    def _finish_response(self, dialect: Dialect) -> str:
        """Reads what is left of the response; returns why it is malformed, or ""."""
        response = self._response
        if response is None:
            return ""
        for piece in response.decoder.finish():
            self._read_piece(response, dialect, piece, self._started_ns)
        if response.decoder.problem:
            dialect.facts.anomaly(response.decoder.problem)
        if response.events is not None:
            for event in response.events.finish():
                dialect.read_event(event)
            for reason in (response.events.problem, response.events.missing):
                if reason:
                    dialect.facts.anomaly(reason)
                    self._damaged = True
            return ""
        if response.is_empty:
            return response.decoder.damage or ("" if response.decoder.problem else NO_RESPONSE_BODY)
        try:
            dialect.read_response(response.finish())
        except MalformedJson:
            if dialect.answers_bytes and not response.is_json:
                return ""
            if not response.decoder.problem:
                partial = response.partial()
                if isinstance(partial, dict):
                    dialect.read_response(partial)
                    dialect.facts.terminated = False
            return response.decoder.problem or MALFORMED_JSON
        return ""

    def _call(self, dialect: Dialect, cut_off: str, at_ns: int) -> Call:
        """The exchange itself as a call."""
        facts = dialect.facts
        status = self._response_head.status if self._response_head else None
        streamed = facts.streamed
        if streamed is None:
            streamed = self._response is not None and self._response.events is not None
        succeeded = status is not None and 200 <= status < 300
        response_headers = self._response_head.headers if self._response_head else ()
        whole = not cut_off and not self._damaged
        measured = Measured() if facts.free else dialect.measured(complete=whole)
        # What could not be decoded says nothing, not even how long it was.
        readable = self._response is not None and not self._response.decoder.problem
        if self._estimate is not None and succeeded and readable:
            lengths = (_length(self._headers), _length(_first_values(response_headers)))
            measured = self._estimate.complete(measured, facts, ended=whole, lengths=lengths)
        call = self._begin_call(facts, dialect.operation, at_ns)
        call.request_model = facts.request_model or self._match.names.get("deployment", "")
        call.streaming = streamed or (facts.stream_requested and not succeeded)
        call.error_type = _error_type(facts, status, cut_off, streamed=streamed)
        costs = dialect.costs and not facts.free and not dialect.paid_by_portions
        call.billable = costs and self._may_cost(facts, measured, status, cut_off)
        if status is not None:
            call.http_status = status
        if streamed and self._first_content_ns is not None:
            call.time_to_first_token_s = max(0, self._first_content_ns - self._started_ns) / _NS
        call.id = identity.call_id(
            dialect.flavour,
            # What costs nothing must not take the id of the call that paid for it.
            "" if facts.free else facts.response_id,
            response_headers,
            self._head.headers,
            self.fallback_id,
        )
        self._put_usage(call, measured)
        return call

    def _portion(self, dialect: Dialect, portion: Portion, number: int, at_ns: int) -> Recognised:
        """A call inside the exchange. Its id is its own: headers name the exchange, not its portions."""
        facts = portion.facts
        call = self._begin_call(facts, portion.operation or dialect.operation, at_ns)
        call.request_model = facts.request_model
        call.streaming = self._client_messages is not None if facts.streamed is None else facts.streamed
        call.error_type = facts.error_type or ("error" if facts.error_type is not None else "")
        call.billable = dialect.costs and (facts.error_type is None or _has_output(portion.measured))
        if self._response_head is not None:
            call.http_status = self._response_head.status
        own_id = facts.response_id if identity.is_strong(facts.response_id) else ""
        call.id = identity.call_id(
            dialect.flavour,
            f"{own_id}{portion.suffix}",
            (),
            (),
            f"{self.fallback_id}#{number}",
        )
        self._put_usage(call, portion.measured)
        return Recognised(call, self._kept_headers(), tuple(facts.anomalies))

    def _begin_call(self, facts: Facts, operation: str, at_ns: int) -> Call:
        """What a call and the portions of its exchange have in common."""
        call = Call()  # filled one by one: keywords of the constructor take twice the time
        call.provider = self._match.provider
        call.operation = operation
        call.response_model = facts.response_model
        call.response_id = facts.response_id
        if self.host:
            call.host = self.host
            call.host_source = self._host_source
        if self._peer is not None:
            call.peer_address, call.peer_port = self._peer
        call.started_at_unix_ns = self._started_ns
        call.duration_s = max(0, at_ns - self._started_ns) / _NS
        call.service_tier = facts.response_tier or facts.request_tier
        if facts.finish_reasons:
            call.finish_reasons.extend(facts.finish_reasons)
        if facts.reported_cost_nano_usd is not None:
            call.reported_cost_nano_usd = facts.reported_cost_nano_usd
        self._put_origin(call, facts)
        return call

    def _may_cost(self, facts: Facts, measured: Measured, status: int | None, cut_off: str) -> bool:
        """Whether the exchange may cost money.

        Unknown is not free: a request that went out whole may have been served though its answer was not
        seen, and then its price is unknown and not zero.
        """
        if status is None:
            return self._request_ended and cut_off not in NOT_SERVED
        # An error that comes with final counts (a limit reached after the last token) has been served.
        return 200 <= status < 300 and (facts.error_type is None or _has_output(measured))

    def _put_usage(self, call: Call, measured: Measured) -> None:
        usage = call.usage
        usage.quality = measured.quality
        if measured.estimated:
            usage.estimated.extend(measured.estimated)
        tokens, units = usage.tokens, usage.units
        for bucket, count in measured.tokens.items():  # the `update` of protobuf's maps is slow
            tokens[bucket] = count
        for unit, amount in measured.units.items():
            units[unit] = amount
        if usage.quality == QUALITY_UNKNOWN:
            usage.SetInParent()

    def _put_origin(self, call: Call, facts: Facts) -> None:
        headers = self._headers
        organization = headers.get("openai-organization", "")
        project = headers.get("openai-project", "")
        session = facts.session or _first_of(headers, _SESSION_HEADERS)
        key = api_key(headers, paths.query_of(self._head.target))
        hashed = self._rules.hash_key(key) if key else ""
        if organization or project or session or hashed or facts.end_user:
            origin = call.origin
            origin.api_key_hash = hashed
            origin.organization = organization
            origin.project = project
            origin.end_user = facts.end_user
            origin.session = session

    def _kept_headers(self) -> dict[str, str]:
        if not self._rules.keep_headers:
            return {}
        wanted = self._rules.keep_headers - CREDENTIAL_HEADERS
        return {name: value for name, value in self._head.headers if name in wanted}


def _error_type(facts: Facts, status: int | None, cut_off: str, *, streamed: bool) -> str:
    if facts.error_type is not None:
        return facts.error_type or str(status or cut_off or "error")
    if status is None:
        return cut_off or "no_response"
    if not 200 <= status < 300:
        return str(status)
    if cut_off:
        return cut_off
    if streamed and not facts.terminated and not facts.finish_reasons:
        return STREAM_INCOMPLETE
    return ""


def _has_output(measured: Measured) -> bool:
    return bool(output_tokens(measured.tokens))


def _first_values(headers: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Headers by name; of a repeated one the first."""
    return dict(reversed(headers))


def _length(headers: Mapping[str, str]) -> int:
    """Bytes of a body as it is read, 0 where its headers do not tell."""
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 16 and "content-encoding" not in headers else 0


def _first_of(headers: Mapping[str, str], names: tuple[str, ...]) -> str:
    for name in names:
        if value := headers.get(name):
            return value
    return ""
