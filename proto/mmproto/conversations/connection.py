"""What all conversations of one connection share: who it is, what it has carried, and the rules of reading.

A connection is given up once it is known to carry none of our calls. What cannot be read is a loss (`Failed`)
where it may have been a call, and none (`Dropped`) where its host is known to be no LLM's.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto
from typing import Final, Protocol

from mmproto.endpoint import Endpoint
from mmproto.exchange import Dropped, Exchange, Failed, Outcome, ReadingRules, RequestHead
from mmproto.providers import paths
from mmproto.v1.call_pb2 import HostSource

RESPONSE_WITHOUT_REQUEST: Final = "response_without_request"
SERVER_SIDE: Final = "server_side"
JOINED_LATE: Final = "joined_late"
UPGRADED: Final = "protocol_upgraded"
CLOSED: Final = "connection_closed"
NOT_LLM: Final = "connection_not_llm"
GAP: Final = "capture_gap"
TOO_MANY: Final = "too_many_open_requests"

# Far more than clients have under way: a bound, so that requests whose answers never come cannot pile up.
MAX_OPEN: Final = 256
# A connection that began with requests that are none of ours may still carry one that is (a gateway's health
# check comes first). How long to wait for it: this many requests, or this many bytes.
_UNDECIDED_REQUESTS: Final = 4
_UNDECIDED_BYTES: Final = 256 * 1024
# A connection that was joined late may be in the middle of a long answer, or of something that is no HTTP.
_LATE_BYTES: Final = 4 * 1024 * 1024


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


class Conversation(Protocol):
    """One connection for as long as it speaks one protocol. Outcomes are appended to `outcomes`."""

    #: Who goes on in place of this conversation, once it is over; it has been given all bytes that are its.
    successor: Conversation | None

    @property
    def is_settled(self) -> bool:
        """Whether it is known which protocol is spoken and which end asks."""

    @property
    def open_exchanges(self) -> int:
        """Exchanges that were begun and have no outcome yet."""

    def feed(self, direction: Direction, data: bytes, at_ns: int, outcomes: list[Outcome]) -> None:
        """Takes the next bytes of a direction."""

    def gap(self, direction: Direction, size: int, at_ns: int, outcomes: list[Outcome]) -> None:
        """Bytes of a direction are missing."""

    def close(self, at_ns: int, outcomes: list[Outcome]) -> None:
        """The connection has ended: what is unfinished gets its outcome."""

    def give_up(self, reason: str, at_ns: int, outcomes: list[Outcome]) -> None:
        """Nobody reads on: what is unfinished gets its outcome."""


class Connection:
    """One connection, whatever it speaks."""

    __slots__ = ("connection_id", "foreign", "peer", "received", "rules", "sni", "verdict")

    def __init__(self, rules: ReadingRules, connection_id: str, sni: str | None) -> None:
        self.rules = rules
        self.connection_id = connection_id
        self.sni = sni
        self.peer: Endpoint | None = None
        self.verdict = Verdict.UNDECIDED
        self.foreign = 0  # requests that were none of ours
        self.received = 0  # bytes of both directions, while undecided

    def begin(self, head: RequestHead, place: str, at_ns: int) -> Exchange:
        """The exchange of a request. `place` tells it from every other one of the connection."""
        host, source = self._host_of(head)
        exchange = Exchange(
            head,
            self.rules,
            f"{self.connection_id}:{place}",
            at_ns,
            host=host,
            host_source=source,
            peer=self.peer,
        )
        if exchange.recognised:
            self.verdict = Verdict.LLM
        else:
            self.foreign += 1
        return exchange

    def loss(self, reason: str, host: str | None = None) -> Outcome:
        """The outcome of something unreadable that was said to `host`."""
        return Failed(reason) if self.may_be_llm(host) else Dropped(reason)

    def may_be_llm(self, host: str | None = None) -> bool:
        """Whether a request to `host` may be a call: nothing else is known of it."""
        host = host or self.sni
        return self.verdict is Verdict.LLM or not host or self.is_llm_host(host)

    def is_llm_host(self, host: str) -> bool:
        return bool(paths.provider_of(host, self.rules.hosts))

    @property
    def is_foreign(self) -> bool:
        """Whether so many requests were none of ours that no more are waited for."""
        return self.verdict is Verdict.UNDECIDED and self.foreign >= _UNDECIDED_REQUESTS

    def is_out_of_patience(self, *, settled: bool) -> bool:
        """Whether so many bytes have shown no call that no more are waited for."""
        if self.verdict is not Verdict.UNDECIDED or (settled and not self.foreign):
            return False
        return self.received > (_UNDECIDED_BYTES if settled else _LATE_BYTES)

    def _host_of(self, head: RequestHead) -> tuple[str | None, HostSource]:
        """What stands in for the request's own host, None where it has one; and where the host is from."""
        if any(name == "host" for name, _ in head.headers):
            return None, HostSource.HOST_SOURCE_REQUEST
        if self.sni:
            return self.sni, HostSource.HOST_SOURCE_SNI
        if self.peer:
            return str(self.peer), HostSource.HOST_SOURCE_PEER
        return None, HostSource.HOST_SOURCE_UNSPECIFIED


def finish(exchange: Exchange, cut_off: str, at_ns: int, outcomes: list[Outcome]) -> None:
    """Ends an exchange, with `cut_off` where no end was seen: its outcome, and the calls inside it."""
    outcome = exchange.abort(cut_off, at_ns) if cut_off else exchange.end(at_ns)
    outcomes.append(outcome)
    outcomes.extend(exchange.further(at_ns))
