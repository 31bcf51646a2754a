"""The exchanges of one connection, from the bytes that a process wrote and read, whatever it speaks.

HTTP/1.1, HTTP/2 (from its preface, by prior knowledge or by upgrade) and WebSocket, each a conversation of
its own (`conversations`). Everything that was begun gets exactly one outcome: at its end, when the connection
closes, or when a gap makes it unknowable. How the bytes of a direction are split makes no difference.

A reader is cheap for connections that are not ours: after a few requests that are no LLM operation, or first
bytes that are no HTTP, its verdict lets the caller stop feeding it (and the kernel stop copying).
"""

from __future__ import annotations

from typing import Final

from mmproto.conversations.connection import (
    JOINED_LATE,
    NOT_LLM,
    Connection,
    Conversation,
    Direction,
    Verdict,
)
from mmproto.conversations.opening import Joining, Opening
from mmproto.endpoint import Endpoint
from mmproto.exchange import Dropped, Outcome, ReadingRules

__all__ = ["ConnectionReader", "Direction", "Verdict"]

# Looked up for every piece of every stream: before Python 3.12 an enum's member costs more than a global.
_LLM: Final = Verdict.LLM
_NOT_LLM: Final = Verdict.NOT_LLM


class ConnectionReader:
    """Reads one connection.

    `connection_id` must be unique for ever (node, boot, process, connection): with the place of a request it
    names calls that have no better id. `sni`, and after it `peer`, stand in for a missing host; both may be
    learned later. `late` says that the connection was joined in the middle: then bytes are skipped up to the
    first message, instead of being taken for another protocol.
    """

    def __init__(
        self, rules: ReadingRules, connection_id: str, sni: str | None = None, *, late: bool = False
    ) -> None:
        self._connection = Connection(rules, connection_id, sni)
        self._conversation: Conversation = (Joining if late else Opening)(self._connection)

    @property
    def verdict(self) -> Verdict:
        """What the connection is."""
        return self._connection.verdict

    @property
    def sni(self) -> str | None:
        """The host name that the client asked TLS for."""
        return self._connection.sni

    @sni.setter
    def sni(self, host: str | None) -> None:
        self._connection.sni = host

    @property
    def peer(self) -> Endpoint | None:
        """The other end of the socket."""
        return self._connection.peer

    @peer.setter
    def peer(self, endpoint: Endpoint | None) -> None:
        self._connection.peer = endpoint

    @property
    def open_exchanges(self) -> int:
        """Exchanges that were begun and have no outcome yet."""
        return self._conversation.open_exchanges

    def feed(self, direction: Direction, data: bytes, at_ns: int) -> list[Outcome]:
        """The outcomes that `data`, the next bytes of `direction`, bring about."""
        outcomes: list[Outcome] = []
        connection = self._connection
        if connection.verdict is _NOT_LLM or not data:
            return outcomes
        if connection.verdict is not _LLM:
            connection.received += len(data)
        self._conversation.feed(direction, data, at_ns, outcomes)
        self._hand_over()
        if connection.verdict is not _LLM and connection.is_out_of_patience(settled=self._is_settled):
            self._give_up(at_ns, outcomes)
        return outcomes

    def gap(self, direction: Direction, size: int, at_ns: int) -> list[Outcome]:
        """`size` bytes of `direction` are missing here."""
        outcomes: list[Outcome] = []
        if self._connection.verdict is not _NOT_LLM:
            self._conversation.gap(direction, size, at_ns, outcomes)
            self._hand_over()
        return outcomes

    def close(self, at_ns: int) -> list[Outcome]:
        """The connection has ended: what is unfinished gets its outcome."""
        outcomes: list[Outcome] = []
        connection = self._connection
        if connection.verdict is _NOT_LLM:
            return outcomes  # all that was open had its outcome then
        self._conversation.close(at_ns, outcomes)
        if not self._is_settled and connection.received and connection.verdict is Verdict.UNDECIDED:
            outcomes.append(Dropped(JOINED_LATE))
        return outcomes

    @property
    def _is_settled(self) -> bool:
        return self._conversation.is_settled

    def _hand_over(self) -> None:
        while (successor := self._conversation.successor) is not None:
            self._conversation = successor

    def _give_up(self, at_ns: int, outcomes: list[Outcome]) -> None:
        if not self._is_settled:
            outcomes.append(Dropped(JOINED_LATE))
        self._connection.verdict = Verdict.NOT_LLM
        self._conversation.give_up(NOT_LLM, at_ns, outcomes)
