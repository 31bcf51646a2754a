"""The beginning of a connection, or the point where it was joined: which protocol is it, and which end asks?

A connection that is seen from its birth shows it in its first bytes. The client's are a request line of
HTTP/1, or the preface of HTTP/2; a server that speaks first sends the settings of HTTP/2, a gateway that
refuses a client an answer of HTTP/1. On one that is joined late both protocols are looked for, in both
directions, until one is found.
"""

from __future__ import annotations

from typing import Final

from mmproto.conversations.connection import Connection, Conversation, Direction
from mmproto.conversations.http1 import Http1Conversation
from mmproto.conversations.http2 import Http2Conversation
from mmproto.conversations.server import ServerConversation
from mmproto.exchange import Dropped, Outcome
from mmproto.framing import http2_wire as wire
from mmproto.framing.http1 import MessageReader
from mmproto.framing.http2 import StreamReader

_NOT_HTTP: Final = "not_http"
_ANSWER: Final = b"HTTP/1."
# Shorter than the preface, and enough to tell it from a request.
_PREFACE: Final = wire.PREFACE[:14]


def _speaks(data: bytes) -> tuple[bool, bool] | None:
    """(is it HTTP/2, does the client say it) by the first bytes of a direction; None: too few to tell."""
    for start, meaning in ((_ANSWER, (False, False)), (_PREFACE, (True, True))):
        if data.startswith(start):
            return meaning
        # "H" may also begin HEAD, and "P" begins POST.
        if start.startswith(data):
            return None
    if data[0] == 0:
        if len(data) < wire.HEADER_SIZE:
            return None
        header = wire.frame_header(data, 0)
        if header.kind == wire.SETTINGS and not header.flags and wire.is_allowed(header):
            return True, False
    return False, True


class Opening:
    """A connection seen from its first byte."""

    is_settled = True
    open_exchanges = 0

    def __init__(self, connection: Connection) -> None:
        self.successor: Conversation | None = None
        self._connection = connection
        # What came before it could be told, in its order: a few bytes.
        self._held: dict[Direction, bytes] = {}

    def feed(self, direction: Direction, data: bytes, at_ns: int, outcomes: list[Outcome]) -> None:
        """Takes the next bytes of a direction."""
        held = self._held.get(direction, b"") + data
        self._held[direction] = held
        spoken = _speaks(held)
        if spoken is None:
            return
        is_http2, by_client = spoken
        self.successor = successor = self._begin(is_http2, by_client == (direction is Direction.WRITE))
        for whose, what in self._held.items():
            successor.feed(whose, what, at_ns, outcomes)

    def _begin(self, is_http2: bool, is_client: bool) -> Conversation:
        if is_client:
            kind = Http2Conversation if is_http2 else Http1Conversation
            return kind(self._connection)
        requests = StreamReader(preface=True) if is_http2 else MessageReader()
        return ServerConversation(self._connection, requests)

    def gap(self, direction: Direction, size: int, at_ns: int, outcomes: list[Outcome]) -> None:
        """The beginning is missing: as on a connection that was joined late."""
        self.successor = successor = Joining(self._connection)
        for whose, what in self._held.items():
            successor.feed(whose, what, at_ns, outcomes)
        successor.gap(direction, size, at_ns, outcomes)

    def close(self, at_ns: int, outcomes: list[Outcome]) -> None:
        """The connection has ended."""
        if self._held:
            outcomes.append(Dropped(_NOT_HTTP))

    def give_up(self, reason: str, at_ns: int, outcomes: list[Outcome]) -> None:
        """Nobody reads on."""


class Joining:
    """A connection that was joined in its middle."""

    is_settled = False

    def __init__(self, connection: Connection) -> None:
        self.successor: Conversation | None = None
        self._http1 = Http1Conversation(connection, late=True)
        self._http2 = Http2Conversation(connection, late=True)

    @property
    def open_exchanges(self) -> int:
        """Exchanges that were begun and have no outcome yet."""
        return 0

    def feed(self, direction: Direction, data: bytes, at_ns: int, outcomes: list[Outcome]) -> None:
        """Takes the next bytes of a direction."""
        self._http2.feed(direction, data, at_ns, outcomes)
        if self._http2.is_found:
            self.successor = self._http2.successor or self._http2
            return
        self._http1.feed(direction, data, at_ns, outcomes)
        if self._http1.is_settled or self._http1.successor is not None:
            self.successor = self._http1.successor or self._http1

    def gap(self, direction: Direction, size: int, at_ns: int, outcomes: list[Outcome]) -> None:
        """Bytes of a direction are missing."""
        self._http2.gap(direction, size, at_ns, outcomes)
        self._http1.gap(direction, size, at_ns, outcomes)

    def close(self, at_ns: int, outcomes: list[Outcome]) -> None:
        """The connection has ended."""
        self._http2.close(at_ns, outcomes)
        self._http1.close(at_ns, outcomes)

    def give_up(self, reason: str, at_ns: int, outcomes: list[Outcome]) -> None:
        """Nobody reads on: nothing was begun."""
