"""What every framing of a streamed body yields: events, however they were separated on the wire.

Server-sent events, lines or arrays of JSON documents, frames of AWS event streams, gRPC and WebSocket
messages all become `Event`s, so that nothing behind this point asks how they came. A framing never raises on
input: what it cannot read becomes its `problem`, the name of a reason, and nothing more comes out.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Event(NamedTuple):
    """An event: its name ("" where its framing has none) and its data.

    Where `last` is false this is one piece of a large event, and the next one continues it.
    """

    name: str
    data: bytes
    last: bool = True


class EventFraming(Protocol):
    """Separates the events of one body, however its bytes are split, in bounded memory."""

    @property
    def problem(self) -> str:
        """Empty, or the reason why nothing more comes out."""

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of an event has been held back."""

    def feed(self, data: bytes) -> list[Event]:
        """The events, and pieces of large events, that `data` completes."""

    def lose(self) -> None:
        """Bytes are missing here: goes on at the next event where the framing lets it find one."""

    def finish(self) -> list[Event]:
        """The body has ended: what it ended in the middle of."""
