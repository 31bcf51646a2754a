"""What HTTP gave way to (WebSocket): an exchange that takes the bytes of both directions until the end."""

from __future__ import annotations

from mmproto.conversations.connection import CLOSED, Conversation, Direction, finish
from mmproto.exchange import Exchange, Outcome


class UpgradedConversation:
    """Nothing comes after an upgrade: the connection ends with it."""

    is_settled = True

    def __init__(self, exchange: Exchange) -> None:
        self.successor: Conversation | None = None
        self._exchange: Exchange | None = exchange

    @property
    def open_exchanges(self) -> int:
        """Exchanges that were begun and have no outcome yet."""
        return 1 if self._exchange is not None else 0

    def feed(self, direction: Direction, data: bytes, at_ns: int, outcomes: list[Outcome]) -> None:
        """Takes the next bytes of a direction."""
        exchange = self._exchange
        if exchange is None:
            return
        if direction is Direction.WRITE:
            exchange.request_body(data, at_ns)
        else:
            exchange.response_body(data, at_ns)
        outcomes.extend(exchange.further(at_ns))

    def gap(self, direction: Direction, size: int, at_ns: int, outcomes: list[Outcome]) -> None:
        """Bytes of a direction are missing."""
        if self._exchange is not None:
            self._exchange.gap(at_ns)

    def close(self, at_ns: int, outcomes: list[Outcome]) -> None:
        """The connection has ended."""
        self.give_up(CLOSED, at_ns, outcomes)

    def give_up(self, reason: str, at_ns: int, outcomes: list[Outcome]) -> None:
        """Nobody reads on."""
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            finish(exchange, reason, at_ns, outcomes)
