"""What every framing of a streamed body yields: events, however they were separated on the wire.

Server-sent events, lines or arrays of JSON documents, frames of AWS event streams, gRPC and WebSocket
messages all become `Event`s, so that nothing behind this point asks how they came. A framing never raises on
input: what it cannot read becomes its `problem`, the name of a reason, and nothing more comes out.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

# No framing that can pass a large event on in pieces holds more of it than this.
MAX_HELD: Final = 64 * 1024
# Ends an event that turned out to be damaged when pieces of it were gone already.
_SPOILT: Final = b"\0"


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
    def missing(self) -> str:
        """Empty, or the reason why what came out lacks an event or has a damaged one, bytes lost apart."""

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of an event has been held back."""

    def feed(self, data: bytes) -> list[Event]:
        """The events, and pieces of large events, that `data` completes."""

    def lose(self) -> None:
        """Bytes are missing here: goes on at the next event where the framing lets it find one."""

    def finish(self) -> list[Event]:
        """The body has ended: what it ended in the middle of."""


class OpenEvent:
    """An event of which the end has not come yet: held while it is small, then passed on in pieces."""

    __slots__ = ("_held", "_passed_on", "name")

    def __init__(self) -> None:
        self.name = ""
        self._held = bytearray()
        self._passed_on = False

    @property
    def is_empty(self) -> bool:
        """Whether no byte of an event is here, nor has been passed on."""
        return not self._held and not self._passed_on

    def add(self, data: bytes | memoryview) -> None:
        """The next bytes of the event."""
        self._held += data

    def rest(self, events: list[Event]) -> None:
        """No more of it can be read for now: passes it on where it has become too large to be held."""
        if len(self._held) > MAX_HELD or (self._passed_on and self._held):
            events.append(Event(self.name, bytes(self._held), False))
            self._held.clear()
            self._passed_on = True

    def end(self, events: list[Event]) -> None:
        """The event is complete."""
        events.append(Event(self.name, bytes(self._held)))
        self.drop()

    def spoil(self, events: list[Event]) -> None:
        """The event is damaged: nothing more of it comes out, and what came is no event to any parser."""
        if self._passed_on:
            events.append(Event(self.name, _SPOILT))
        self.drop()

    def drop(self) -> None:
        """What is held is damaged, and whoever took pieces of it knows: nothing more of it comes out."""
        self._held.clear()
        self._passed_on = False
