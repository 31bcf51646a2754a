"""Server-sent events, sans-IO: bytes in, events out.

Follows the WHATWG grammar (CR, LF or CRLF end a line, a blank line ends an event, `:` starts a comment, one
space after the colon is dropped), with two differences that a bystander needs: an event that the end of the
stream cuts off is reported by `finish` rather than dropped, because some servers omit the last blank line;
and an event above `MAX_HELD` bytes is passed on in pieces rather than held, because the last event of a
stream, the one with the usage, may repeat megabytes of generated images.

Nearly all events of a stream are one short `data:` line, and that shape takes a short path.
"""

from __future__ import annotations

import re
from typing import Final

from mmproto.framing.events import MAX_HELD, Event

# Two line ends in a row. The LF of a final CRLF may stay behind: it is an empty line more, which is nothing.
_BLANK: Final = re.compile(rb"\n\n|\n\r|\r\r")
_LINE_END: Final = re.compile(rb"\r\n|\n|\r")

# The shape of nearly all events: a name perhaps, and one line of data.
_SIMPLE: Final = re.compile(rb"(?:event: ?([^\r\n]*)(?:\r\n|\n|\r))?data: ?([^\r\n]*)")


class EventReader:
    """The events of one stream, however its bytes are split."""

    problem: Final = ""  # any bytes are an event stream, if perhaps one without events
    missing: Final = ""

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched = 0  # no event ends before this position of `_held`
        self._large: _LargeEvent | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events, and pieces of large events, that `data` completes."""
        events: list[Event] = []
        if self._large is not None:
            data = self._continue_large(data, events)
        if self._held:
            self._held += data
            if _BLANK.search(self._held, max(0, self._searched - 1)) is None:
                self._searched = len(self._held)
                if len(self._held) > MAX_HELD:
                    self._begin_large(events)
                return events
            data = bytes(self._held)
            self._held.clear()
        rest = _split(data, events)
        if rest < len(data):
            self._held += data[rest:]
            self._searched = len(self._held)
            if len(self._held) > MAX_HELD:
                self._begin_large(events)
        return events

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of an event has been held back."""
        return not self._held and self._large is None

    def lose(self) -> None:
        """Bytes are missing: what is held is damaged, and the next whole event begins after a blank line."""
        self._held.clear()
        # An unfinished comment swallows the rest of the damaged event up to its end.
        self._held += b":"
        self._searched = 1
        self._large = None

    def finish(self) -> list[Event]:
        """What the stream ended in the middle of."""
        events: list[Event] = []
        if self._large is not None:
            self._continue_large(b"\n\n", events)
        elif self._held:
            _append_event(bytes(self._held), events)
        self._held.clear()
        return events

    def _begin_large(self, events: list[Event]) -> None:
        held = bytes(self._held)
        self._held.clear()
        self._large = _LargeEvent()
        self._continue_large(held, events)

    def _continue_large(self, data: bytes, events: list[Event]) -> bytes:
        """Feeds the large event; returns what comes after it."""
        if self._large is None:
            return data
        piece, rest = self._large.feed(data)
        ended = self._large.ended
        if piece or ended:
            events.append(Event(self._large.name, piece, ended))
        if ended:
            self._large = None
        return rest


class _LargeEvent:
    """Passes the data lines of one event on as they come; holds the beginning of a line only."""

    _PREFIX = 256  # enough for `data:` and for an event's name

    def __init__(self) -> None:
        self.name = ""
        self.ended = False
        self._line = b""  # beginning of a line of which the field is not known yet
        self._in_data = False
        self._in_other = False
        self._lines = 0  # a blank line before the first one is the end of the event before
        self._data_lines = 0

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """(data of the event, bytes after the event)."""
        pieces: list[bytes] = []
        data, self._line = self._line + data, b""
        position = 0
        while position < len(data):
            end, line_end = _next_line(data, position)
            if self._in_data:
                pieces.append(data[position:end])
            elif not self._in_other:
                line = data[position:end]
                if not line_end and len(line) < self._PREFIX:
                    self._line = line
                    break
                if line:
                    self._begin_line(line, pieces)
                elif self._lines:
                    self.ended = True
                    return b"".join(pieces), data[end + len(line_end) :]
            if not line_end:
                break
            if line_end == b"\r" and end + 1 == len(data):
                # Perhaps half of a CRLF. The line ends here in either case; a lone LF that follows would
                # look like a blank line, so wait for the next byte.
                self._line = b"\r"
                break
            self._in_data = self._in_other = False
            position = end + len(line_end)
        return b"".join(pieces), b""

    def _begin_line(self, line: bytes, pieces: list[bytes]) -> None:
        field, value = _field(line)
        self._lines += 1
        if field == b"data":
            self._in_data = True
            if self._data_lines:
                pieces.append(b"\n")
            self._data_lines += 1
            pieces.append(value)
        else:
            self._in_other = True
            if field == b"event":
                self.name = value.decode("utf-8", "replace")


def _next_line(data: bytes, position: int) -> tuple[int, bytes]:
    """(where the line ends, what ends it), (len(data), b"") where it goes on."""
    feed = data.find(b"\n", position)
    end = feed if feed >= 0 else len(data)
    carriage = data.find(b"\r", position, end)
    if carriage < 0:
        return end, data[end : end + 1]
    return carriage, b"\r\n" if carriage + 1 == feed else b"\r"


def _split(data: bytes, events: list[Event]) -> int:
    """Appends the whole events of `data`; returns where the unfinished one begins."""
    position = 0
    if b"\r" not in data:
        while (end := data.find(b"\n\n", position)) >= 0:
            _append_event(data[position:end], events)
            position = end + 2
        return position
    while (match := _BLANK.search(data, position)) is not None:
        _append_event(data[position : match.start()], events)
        position = match.end()
    return position


def _append_event(block: bytes, events: list[Event]) -> None:
    """Appends the event that the lines of `block` make, if they carry data."""
    simple = _SIMPLE.fullmatch(block)
    if simple is not None:
        name, value = simple.groups()
        events.append(Event(name.decode("utf-8", "replace") if name else "", value))
        return
    name, lines = b"", []
    for line in _LINE_END.split(block):
        field, value = _field(line)
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
    if lines:
        events.append(Event(name.decode("utf-8", "replace"), b"\n".join(lines)))


def _field(line: bytes) -> tuple[bytes, bytes]:
    field, _, value = line.partition(b":")
    return field, value[1:] if value[:1] == b" " else value
