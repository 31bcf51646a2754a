"""JSON documents one after another, sans-IO: NDJSON, JSON lines, or documents with nothing between them.

Between two documents there may be line ends, other white space, the record separator of RFC 7464, or nothing,
and the last one needs no line end. Nearly all documents come whole and are not nested deep: they are taken by
one regular expression. The others are followed by their brackets.

What is no object and no array is an event up to the end of its line, be it a bare number or damage. So is the
rest of a line in which brackets do not match, and a document in which a line ends inside of a string; the
next line is read as if nothing had been. Whoever parses such an event finds the damage.

Bound: `MAX_HELD` bytes are held; a document that is larger is passed on in pieces.
"""

from __future__ import annotations

import re
from typing import Final

from mmproto.framing.events import Event, OpenEvent
from mmproto.framing.jsonskip import OPENING, MalformedJson, Skip, skippable

# With the bytes of a byte order mark, which cannot begin a document.
_BETWEEN: Final = re.compile(rb"[ \t\r\n\x1e\xef\xbb\xbf]*+")
_WHOLE: Final = re.compile(rb"\{" + skippable(in_line=True) + rb"\}", re.DOTALL)
_LINE_START: Final = b"\n{"


class DocumentReader:
    """The documents of one body, however its bytes are split."""

    problem: Final = ""  # any bytes are lines, if perhaps none with a document
    missing: Final = ""

    def __init__(self) -> None:
        self._open = OpenEvent()
        self._skip = Skip()
        self._to_line_end = False  # the open event ends where its line does
        self._lost = False
        self._tail = b""  # the line end that the bytes ended with while lost

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of an event has been held back."""
        return self._open.is_empty and not self._lost

    def feed(self, data: bytes) -> list[Event]:
        """The documents, and pieces of large ones, that `data` completes."""
        events: list[Event] = []
        if self._lost:
            data = self._find_line(data)
        position, size = 0, len(data)
        while position < size:
            if self._open.is_empty:
                position = _whole_documents(data, position, events)
                if position == size:
                    break
                position = self._begin(data, position)
            position = self._read_on(data, position, events)
        self._open.rest(events)
        return events

    def lose(self) -> None:
        """Bytes are missing: the next document is one that begins a line, where no inner one of it would."""
        self._open.drop()
        self._lost, self._tail = True, b""

    def finish(self) -> list[Event]:
        """The document that the body ended in the middle of."""
        events: list[Event] = []
        if not self._open.is_empty:
            self._open.end(events)
        return events

    def _begin(self, data: bytes, position: int) -> int:
        self._skip = Skip()
        self._to_line_end = data[position] not in OPENING
        if not self._to_line_end:
            self._skip.begin(data[position])
        self._open.add(data[position : position + 1])
        return position + 1

    def _read_on(self, data: bytes, position: int, events: list[Event]) -> int:
        """Reads up to the end of the open event or of its line, whichever comes first."""
        line_end = data.find(b"\n", position) + 1
        line = data[position : line_end or len(data)]
        if not self._to_line_end:
            try:
                reached = self._skip.advance(line, 0)
            except MalformedJson:
                self._to_line_end = True
            else:
                if not self._skip.is_open:
                    self._open.add(line[:reached])
                    self._open.end(events)
                    return position + reached
                self._to_line_end = bool(line_end) and self._skip.in_string
        if self._to_line_end and line_end:
            self._open.add(line[:-1])
            self._open.end(events)
        else:
            self._open.add(line)
        return position + len(line)

    def _find_line(self, data: bytes) -> bytes:
        data = self._tail + data
        start = data.find(_LINE_START)
        if start < 0:
            self._tail = data[-1:] if data.endswith(b"\n") else b""
            return b""
        self._lost = False
        return data[start + 1 :]


def _whole_documents(data: bytes, position: int, events: list[Event]) -> int:
    """Appends the documents from `position` on that are whole; returns where the next one begins."""
    while True:
        position = _BETWEEN.match(data, position).end()  # type: ignore[union-attr]  # matches always
        match = _WHOLE.match(data, position)
        if match is None:
            return position
        events.append(Event("", match[0]))
        position = match.end()
