"""The elements of a JSON array as they stream in, sans-IO.

Gemini streams so where it was not asked for server-sent events: one array over the whole body, each element
a chunk of the answer. Where a single document came instead of an array, an error mostly, it is the one event.

Brackets, commas and the ends of strings are judged; what is inside an element is for its parser to judge.
After bytes are missing the depth is unknown, and the next element is found only where elements are separated
as Google's servers do it, by a comma alone on its line and a brace at the beginning of the next one: inside
of an element neither compact nor indented JSON looks like that, and strings have no line ends.

Bound: `MAX_HELD` bytes are held; an element that is larger is passed on in pieces.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from mmproto.framing.events import Event, OpenEvent
from mmproto.framing.jsonskip import MalformedJson, Skip

MALFORMED: Final = "malformed_json"
LOST: Final = "gap_in_json_array"

_BETWEEN: Final = re.compile(rb"[ \t\r\n\xef\xbb\xbf]*+")
_SCALAR: Final = re.compile(rb'[^ \t\r\n,"{}\[\]]*+')
_SEPARATOR: Final = re.compile(rb"\n,\r?\n(?=\{)")
_MAX_SEPARATOR: Final = 4


class _State(Enum):
    START = auto()
    ELEMENT_OR_END = auto()
    ELEMENT = auto()
    COMMA_OR_END = auto()
    CONTAINER = auto()
    SCALAR = auto()
    LOST = auto()
    DONE = auto()


class ArrayReader:
    """The elements of one body's array, however its bytes are split.

    `problem` is "", MALFORMED, or LOST where the body ended before an element was found after missing bytes.
    """

    missing: Final = ""

    def __init__(self) -> None:
        self.problem = ""
        self._state = _State.START
        self._open = OpenEvent()
        self._skip = Skip()
        self._is_array = False
        self._tail = b""  # the beginning of a separator while lost

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of an event has been held back."""
        return self._open.is_empty and self._state is not _State.LOST

    def feed(self, data: bytes) -> list[Event]:
        """The elements, and pieces of large ones, that `data` completes."""
        events: list[Event] = []
        position, size = 0, len(data)
        if self._state is _State.LOST:
            data, position = self._find_element(data)
            size = len(data)
        while position < size and not self.problem:
            if self._state is _State.CONTAINER:
                position = self._read_container(data, position, events)
                continue
            if self._state is _State.SCALAR:
                position = self._read_scalar(data, position, events)
                continue
            position = _BETWEEN.match(data, position).end()  # type: ignore[union-attr]  # matches always
            if position < size:
                position = self._step(data, position)
        self._open.rest(events)
        return events

    def lose(self) -> None:
        """Bytes are missing: looks for the next element."""
        if self._state is not _State.DONE and not self.problem:
            self._open.drop()
            self._state, self._is_array, self._tail = _State.LOST, True, b""

    def finish(self) -> list[Event]:
        """The element that the body ended in the middle of."""
        events: list[Event] = []
        if not self._open.is_empty:
            self._open.end(events)
        if self._state is _State.LOST:
            self.problem = LOST
        return events

    def _step(self, data: bytes, position: int) -> int:
        """One token between the elements."""
        byte, state = data[position], self._state
        if state is _State.START and byte == 0x5B:
            self._is_array = True
            self._state = _State.ELEMENT_OR_END
        elif byte == 0x5D and state in (_State.ELEMENT_OR_END, _State.COMMA_OR_END):
            self._state = _State.DONE
        elif byte == 0x2C and state is _State.COMMA_OR_END:
            self._state = _State.ELEMENT
        elif state in (_State.COMMA_OR_END, _State.DONE) or byte in b"}],:":
            self.problem = MALFORMED
        elif byte in b'{["':
            self._skip.begin(byte)
            self._open.add(data[position : position + 1])
            self._state = _State.CONTAINER
        else:
            self._state = _State.SCALAR
            return position
        return position + 1

    def _read_container(self, data: bytes, position: int, events: list[Event]) -> int:
        try:
            reached = self._skip.advance(data, position)
        except MalformedJson:
            self._open.spoil(events)
            self.problem = MALFORMED
            return position
        self._open.add(data[position:reached])
        if not self._skip.is_open:
            self._end(events)
        return reached

    def _read_scalar(self, data: bytes, position: int, events: list[Event]) -> int:
        reached = _SCALAR.match(data, position).end()  # type: ignore[union-attr]  # matches always
        self._open.add(data[position:reached])
        if reached < len(data):
            self._end(events)
        return reached

    def _end(self, events: list[Event]) -> None:
        self._open.end(events)
        self._state = _State.COMMA_OR_END if self._is_array else _State.DONE

    def _find_element(self, data: bytes) -> tuple[bytes, int]:
        data, self._tail = self._tail + data, b""
        match = _SEPARATOR.search(data)
        if match is None:
            self._tail = data[-_MAX_SEPARATOR:]
            return data, len(data)
        self._skip = Skip()
        self._state = _State.ELEMENT
        return data, match.end()
