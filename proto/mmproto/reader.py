"""The exchanges of one HTTP/1.1 connection, from the bytes that a process wrote and read.

Responses answer requests in order, so a queue of open exchanges pairs them. Everything that was begun gets
exactly one outcome: at its end, when the connection closes, or when a gap makes it unknowable.

A reader is cheap for connections that are not ours: after a few requests that are no LLM operation, or the
first bytes that are no HTTP, its verdict lets the caller stop feeding it (and the kernel stop copying).

Beyond the interface agreed at first, `late=True` says that the connection was joined in the middle: then
bytes are skipped up to the first request, instead of being taken for another protocol.
"""

from __future__ import annotations

from collections import deque
from enum import Enum, IntEnum, auto
from typing import Final

from mmproto.endpoint import Endpoint
from mmproto.exchange import Dropped, Exchange, Failed, Outcome, ReadingRules, RequestHead, ResponseHead
from mmproto.framing.http1 import Malformed, Mark, MessageReader, Part
from mmproto.providers import paths
from mmproto.v1.call_pb2 import HostSource

RESPONSE_WITHOUT_REQUEST: Final = "response_without_request"
SERVER_SIDE: Final = "server_side"
JOINED_LATE: Final = "joined_late"
UPGRADED: Final = "protocol_upgraded"

# A connection that began with requests that are none of ours may still carry one that is (a gateway's health
# check comes first). How long to wait for it: this many requests, or this many bytes.
_UNDECIDED_REQUESTS: Final = 4
_UNDECIDED_BYTES: Final = 256 * 1024
# A connection that was joined late may be in the middle of a long answer, or of something that is no HTTP.
_LATE_BYTES: Final = 4 * 1024 * 1024
# Far more than clients pipeline: a bound, so that requests whose responses never come cannot pile up.
_MAX_OPEN: Final = 256


class Direction(IntEnum):
    """As the observed process did it."""

    WRITE = 0
    READ = 1


class Verdict(Enum):
    """What the connection is. At NOT_LLM and SERVER_SIDE the caller may stop feeding."""

    UNDECIDED = auto()
    LLM = auto()
    NOT_LLM = auto()
    SERVER_SIDE = auto()


# Looked up for every piece of every stream: before Python 3.12 an enum's member costs more than a global.
_LLM: Final = Verdict.LLM
_WRITE: Final = Direction.WRITE


class _Open:
    """An exchange whose end has not been seen."""

    __slots__ = ("exchange", "method", "responding")

    def __init__(self, exchange: Exchange, method: str) -> None:
        self.exchange = exchange
        self.method = method
        self.responding = False


class ConnectionReader:
    """Reads one connection.

    `connection_id` must be unique for ever (node, boot, process, connection): with the byte offset of a
    request it names calls that have no better id. `sni`, and after it `peer`, stand in for a missing Host
    header; both may be learned later.
    """

    def __init__(
        self, rules: ReadingRules, connection_id: str, sni: str | None = None, *, late: bool = False
    ) -> None:
        self.verdict = Verdict.UNDECIDED
        self.sni = sni
        self.peer: Endpoint | None = None
        self._rules = rules
        self._connection_id = connection_id
        self._late = late
        self._open: deque[_Open] = deque()
        self._receiving: _Open | None = None  # the exchange whose request body is on its way
        self._requests = MessageReader(joined_late=late)
        self._responses = MessageReader(self._answered_method, joined_late=late)
        self._request_direction: Direction | None = None
        self._foreign_requests = 0
        self._bytes = 0
        self._opening = b""
        # Until it is known who the client is, a connection joined late is searched for requests both ways.
        self._served = MessageReader(joined_late=late)
        self._skipped_answer = False

    @property
    def open_exchanges(self) -> int:
        """Exchanges that were begun and have no outcome yet."""
        return len(self._open)

    def feed(self, direction: Direction, data: bytes, at_ns: int) -> list[Outcome]:
        """The outcomes that `data`, the next bytes of `direction`, bring about."""
        outcomes: list[Outcome] = []
        verdict = self.verdict
        if verdict is _LLM:
            self._read(direction, data, at_ns, outcomes)
        elif verdict is Verdict.SERVER_SIDE:
            self._serve(direction, data, outcomes)
        elif verdict is Verdict.UNDECIDED:
            self._bytes += len(data)
            if self._request_direction is None:
                data = self._find_client(direction, data, outcomes)
            if self._request_direction is Direction.READ:
                self._serve(direction, data, outcomes)
            else:
                self._read(direction, data, at_ns, outcomes)
                if self.verdict is Verdict.UNDECIDED and self._bytes > self._patience():
                    self._give_up(outcomes, at_ns)
        return outcomes

    def _read(self, direction: Direction, data: bytes, at_ns: int, outcomes: list[Outcome]) -> None:
        if direction is _WRITE:
            for part in self._requests.feed(data):
                self._take_request_part(part, at_ns, outcomes)
        else:
            for part in self._responses.feed(data):
                self._take_response_part(part, at_ns, outcomes)

    def gap(self, direction: Direction, size: int, at_ns: int) -> list[Outcome]:
        """`size` bytes of `direction` are missing here."""
        outcomes: list[Outcome] = []
        if self.verdict is Verdict.NOT_LLM:
            return outcomes
        if self.verdict is Verdict.SERVER_SIDE:
            if direction is Direction.READ:
                self._served.gap(size)
            return outcomes
        if self._request_direction is None:
            self._served.gap(size)
        if direction is Direction.WRITE:
            for part in self._requests.gap(size):
                self._take_request_part(part, at_ns, outcomes)
        else:
            for part in self._responses.gap(size):
                self._take_response_part(part, at_ns, outcomes)
        return outcomes

    def close(self, at_ns: int) -> list[Outcome]:
        """The connection has ended: what is unfinished gets its outcome."""
        outcomes: list[Outcome] = []
        for part in self._responses.close():
            self._take_response_part(part, at_ns, outcomes)
        self._abort_all("connection_closed", at_ns, outcomes)
        if (
            self._late
            and self._request_direction is None
            and self._bytes
            and self.verdict is Verdict.UNDECIDED
        ):
            outcomes.append(Dropped(JOINED_LATE))
        return outcomes

    def _find_client(self, direction: Direction, data: bytes, outcomes: list[Outcome]) -> bytes:
        """Finds out which end sends the requests; returns the bytes to go on with."""
        if self._late:
            if direction is Direction.READ:
                self._skipped_answer = True
                for part in self._served.feed(data):
                    if isinstance(part, RequestHead):
                        outcomes.append(Dropped(SERVER_SIDE))
                        self._become_server()
                        return b""
            return data
        data, self._opening = self._opening + data, b""
        if data == b"H":  # HTTP/1.1 of an answer, or HEAD of a request
            self._opening = data
            return b""
        # The first bytes of a connection are the client's, unless they are an answer.
        answers = data.startswith(b"HTTP/1."[: len(data)])
        if answers == (direction is Direction.WRITE):
            self._become_server()
        else:
            self._request_direction = Direction.WRITE
        return data

    def _become_server(self) -> None:
        self.verdict = Verdict.SERVER_SIDE
        self._request_direction = Direction.READ

    def _patience(self) -> int:
        """How many bytes to read before giving up on a connection that has not shown a call."""
        if self._late and self._request_direction is None:
            return _LATE_BYTES
        return _UNDECIDED_BYTES if self._foreign_requests else 1 << 62

    def _serve(self, direction: Direction, data: bytes, outcomes: list[Outcome]) -> None:
        if direction is not Direction.READ:
            return
        for part in self._served.feed(data):
            if isinstance(part, RequestHead):
                outcomes.append(Dropped(SERVER_SIDE))
            elif isinstance(part, Malformed):
                not_http = part.reason == "not_http"
                outcomes.append(Dropped(part.reason if not_http else SERVER_SIDE))
                self.verdict = Verdict.NOT_LLM

    def _take_request_part(self, part: Part, at_ns: int, outcomes: list[Outcome]) -> None:
        if isinstance(part, bytes):
            if self._receiving is not None:
                self._receiving.exchange.request_body(part, at_ns)
        elif isinstance(part, RequestHead):
            self._begin(part, at_ns, outcomes)
        elif part is Mark.END:
            if self._receiving is not None:
                self._receiving.exchange.request_end(at_ns)
                self._receiving = None
        elif part is Mark.GAP:
            if self._receiving is not None:
                self._receiving.exchange.gap(at_ns)
        elif part is Mark.LOST:
            if self._receiving is not None:
                self._receiving.exchange.gap(at_ns)
                self._receiving.exchange.request_end(at_ns)
                self._receiving = None
        elif isinstance(part, Malformed):
            self._malformed(part.reason, at_ns, outcomes)

    def _begin(self, head: RequestHead, at_ns: int, outcomes: list[Outcome]) -> None:
        self._request_direction = Direction.WRITE
        if self._skipped_answer:  # joined in the middle of an answer whose head and request were not seen
            self._skipped_answer = False
            outcomes.append(Failed(RESPONSE_WITHOUT_REQUEST))
        if self._responses.is_lost and self._open and self._open[0].responding:
            # Its response ran into a gap, and a client that sends again has its answer: nothing more will
            # come.
            outcomes.append(self._open.popleft().exchange.abort("capture_gap", at_ns))
        if len(self._open) >= _MAX_OPEN:
            outcomes.append(self._open.popleft().exchange.abort("too_many_open_requests", at_ns))
        fallback_id = f"{self._connection_id}:{head.offset}"
        host, source = self._host_of(head)
        exchange = Exchange(
            head, self._rules, fallback_id, at_ns, host=host, host_source=source, peer=self.peer
        )
        opened = _Open(exchange, head.method)
        self._open.append(opened)
        self._receiving = opened
        if exchange.recognised:
            self.verdict = Verdict.LLM
        else:
            self._foreign_requests += 1

    def _answered_method(self) -> str | None:
        return self._open[0].method if self._open else None

    def _take_response_part(self, part: Part, at_ns: int, outcomes: list[Outcome]) -> None:
        current = self._open[0] if self._open else None
        if isinstance(part, bytes):
            if current is not None and current.responding:
                current.exchange.response_body(part, at_ns)
        elif isinstance(part, ResponseHead):
            self._request_direction = Direction.WRITE
            self._skipped_answer = False
            if current is None:
                outcomes.append(Failed(RESPONSE_WITHOUT_REQUEST))
            elif not current.responding:
                current.responding = True
                current.exchange.response_head(part, at_ns)
        elif isinstance(part, Malformed):
            self._malformed(part.reason, at_ns, outcomes)
        elif part is Mark.OPAQUE:
            self._upgrade(outcomes)
        elif current is not None and isinstance(part, Mark):
            self._take_response_mark(part, current, at_ns, outcomes)

    def _take_response_mark(self, mark: Mark, current: _Open, at_ns: int, outcomes: list[Outcome]) -> None:
        if mark is Mark.GAP:
            current.exchange.gap(at_ns)
        elif not current.responding:
            return
        elif mark is Mark.END:
            self._finish(current, at_ns, outcomes)
        elif mark is Mark.LOST:
            self._open.popleft()
            current.exchange.gap(at_ns)
            outcomes.append(current.exchange.abort("capture_gap", at_ns))

    def _finish(self, current: _Open, at_ns: int, outcomes: list[Outcome]) -> None:
        self._open.popleft()
        if self._receiving is current:
            self._receiving = None
        outcomes.append(current.exchange.end(at_ns))
        if self.verdict is Verdict.UNDECIDED and self._foreign_requests >= _UNDECIDED_REQUESTS:
            self._give_up(outcomes, at_ns)

    def _upgrade(self, outcomes: list[Outcome]) -> None:
        """From here on another protocol is spoken: what was asked for in HTTP has been answered."""
        self._requests.become_opaque()
        while self._open:
            exchange = self._open.popleft().exchange
            outcomes.append(Failed(UPGRADED) if exchange.recognised else exchange.end(0))
        self._receiving = None
        self.verdict = Verdict.NOT_LLM

    def _malformed(self, reason: str, at_ns: int, outcomes: list[Outcome]) -> None:
        """The connection cannot be read any further."""
        if not self._open:
            # HTTP/2 to a provider has carried calls; anything else that is not HTTP/1 has not.
            http2_to_llm = reason != "not_http" and (self.sni is None or self._is_llm_host(self.sni))
            is_loss = self.verdict is Verdict.LLM or http2_to_llm
            outcomes.append(Failed(reason) if is_loss else Dropped(reason))
        self._abort_all(reason, at_ns, outcomes)
        self.verdict = Verdict.NOT_LLM

    def _host_of(self, head: RequestHead) -> tuple[str | None, HostSource]:
        """What stands in for the request's own host, None where it has one; and where the host is from."""
        if any(name == "host" for name, _ in head.headers):
            return None, HostSource.HOST_SOURCE_REQUEST
        if self.sni:
            return self.sni, HostSource.HOST_SOURCE_SNI
        if self.peer:
            return str(self.peer), HostSource.HOST_SOURCE_PEER
        return None, HostSource.HOST_SOURCE_UNSPECIFIED

    def _is_llm_host(self, host: str) -> bool:
        return bool(paths.provider_of(host, self._rules.hosts))

    def _give_up(self, outcomes: list[Outcome], at_ns: int) -> None:
        if self._request_direction is None:
            outcomes.append(Dropped(JOINED_LATE))
        self._abort_all("connection_not_llm", at_ns, outcomes)
        self.verdict = Verdict.NOT_LLM

    def _abort_all(self, reason: str, at_ns: int, outcomes: list[Outcome]) -> None:
        while self._open:
            outcomes.append(self._open.popleft().exchange.abort(reason, at_ns))
        self._receiving = None
