"""The server's end of a connection: what it is asked is counted, and is nobody's spend here.

The client may be observed too, on this machine or another; whoever asks is who pays.
"""

from __future__ import annotations

from mmproto.conversations.connection import SERVER_SIDE, Connection, Conversation, Direction, Verdict
from mmproto.exchange import Dropped, Outcome, RequestHead
from mmproto.framing import http1, http2


class ServerConversation:
    """Counts requests in the direction that the observed process reads."""

    is_settled = True
    open_exchanges = 0

    def __init__(self, connection: Connection, requests: http1.MessageReader | http2.StreamReader) -> None:
        self.successor: Conversation | None = None
        self._connection = connection
        self._requests = requests
        connection.verdict = Verdict.SERVER_SIDE

    def feed(self, direction: Direction, data: bytes, at_ns: int, outcomes: list[Outcome]) -> None:
        """Takes the next bytes of a direction."""
        if direction is Direction.READ:
            for part in self._requests.feed(data):
                self.take(part, outcomes)

    def take(self, part: http1.Part | http2.Part, outcomes: list[Outcome]) -> None:
        """Takes the next part of what the process reads."""
        if isinstance(part, RequestHead) or (isinstance(part, http2.Block) and http2.is_request(part)):
            outcomes.append(Dropped(SERVER_SIDE))
        elif isinstance(part, http1.Malformed):
            not_http = part.reason == "not_http"
            outcomes.append(Dropped(part.reason if not_http else SERVER_SIDE))
            self._connection.verdict = Verdict.NOT_LLM

    def gap(self, direction: Direction, size: int, at_ns: int, outcomes: list[Outcome]) -> None:
        """Bytes of a direction are missing."""
        if direction is Direction.READ:
            for part in self._requests.gap(size):
                self.take(part, outcomes)

    def close(self, at_ns: int, outcomes: list[Outcome]) -> None:
        """The connection has ended."""

    def give_up(self, reason: str, at_ns: int, outcomes: list[Outcome]) -> None:
        """Nobody reads on."""
