"""AWS event stream frames (`application/vnd.amazon.eventstream`), sans-IO.

A frame is `[total u32][headers u32][CRC of these][headers][payload][CRC of all before]`, big endian; a header
is `[length u8][name][type u8][value]`. Both checksums are verified: nothing of a frame is read before the
first holds, and a frame of which the second does not hold is left out, or, where its payload was too large to
be held until then, is ended so that no parser takes it. Either is told by `missing`, and the frames after it
are read.

After bytes are missing, or where frames no longer follow each other, the next one is found by the checksum
over its first eight bytes.

An event is named by its `:event-type`; where `:message-type` says exception or error, it is named
"exception:" and the `:exception-type` or `:error-code`. A body that is no event stream has MALFORMED as its
`problem`.

Bound: `MAX_HELD` bytes of a payload are held, a larger one is passed on in pieces; and a frame's headers, of
which there are at most `MAX_HEADERS` bytes.
Source: the AWS common runtime's aws-c-event-stream and botocore.eventstream.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import Final

from mmproto.framing.events import Event, OpenEvent

# The limits of the format.
MAX_HEADERS: Final = 128 * 1024
MAX_FRAME: Final = 24 * 1024 * 1024

MALFORMED: Final = "malformed_event_stream"
BAD_CHECKSUM: Final = "event_stream_checksum"
BAD_HEADERS: Final = "event_stream_headers"

_PRELUDE: Final = struct.Struct(">III")
_CRC: Final = struct.Struct(">I")
# What a prelude may look like, its checksum apart: it spares the search for one most of the sums.
_PLAUSIBLE: Final = re.compile(rb"[\x00\x01]...\x00[\x00-\x02]..", re.DOTALL)
_EXCEPTIONS: Final = ("exception", "error")

# Bytes of a header's value by its type: two booleans without any; integers of 1, 2, 4 and 8 bytes; bytes and
# text, whose size is in two bytes before them; a timestamp; a UUID.
_SIZED: Final = -1
_TEXT: Final = 7
_VALUE_SIZES: Final = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 6: _SIZED, _TEXT: _SIZED, 8: 8, 9: 16}


class FrameReader:
    """The events of one body, however its bytes are split.

    `problem` is "" or MALFORMED; `missing` is "", BAD_CHECKSUM or BAD_HEADERS.
    """

    def __init__(self) -> None:
        self.problem = ""
        self.missing = ""
        self._held = b""  # the beginning of a frame up to the end of its headers, or of its last checksum
        self._open = OpenEvent()
        self._payload_left = -1  # bytes of the open frame's payload that are to come; -1: no frame is open
        self._crc = 0
        self._readable = True  # the open frame's headers could be read
        self._begun = False  # a frame has been seen, so this is an event stream
        self._lost = False

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of an event has been held back."""
        return not self._held and self._payload_left < 0 and not self._lost

    def feed(self, data: bytes) -> list[Event]:
        """The events, and pieces of large ones, that `data` completes."""
        events: list[Event] = []
        if self._held:
            data, self._held = self._held + data, b""
        position = 0
        while position < len(data) and not self.problem:
            if self._payload_left < 0:
                reached = self._begin(data, position)
            else:
                reached = self._read_payload(data, position, events)
            if reached == position:  # more bytes are needed
                self._held = data[position:]
                break
            position = reached
        self._open.rest(events)
        return events

    def lose(self) -> None:
        """Bytes are missing: looks for the next frame."""
        self._abandon()
        self._begun = self._lost = True

    def finish(self) -> list[Event]:
        """Nothing: a frame that was cut off has no checksum, so none of it can be used."""
        self._abandon()
        return []

    def _abandon(self) -> None:
        self._held = b""
        self._open.drop()
        self._payload_left = -1

    # Each step returns the position it consumed up to, or the one it was given where it needs more bytes.

    def _begin(self, data: bytes, position: int) -> int:
        """Reads the prelude and the headers of a frame."""
        if self._lost:
            position = self._find(data, position)
            if self._lost:
                return position
        if len(data) - position < _PRELUDE.size:
            return position
        total, headers, crc = _PRELUDE.unpack_from(data, position)
        payload = total - headers - _PRELUDE.size - _CRC.size
        is_frame = payload >= 0 and headers <= MAX_HEADERS and total <= MAX_FRAME
        if not is_frame or zlib.crc32(data[position : position + 8]) != crc:
            if self._begun:
                self.missing, self._lost = BAD_CHECKSUM, True
            else:
                self.problem = MALFORMED
            return position + 1
        self._begun = True
        end = position + _PRELUDE.size + int(headers)
        if end > len(data):
            return position
        self._crc = zlib.crc32(data[position:end])
        name = event_name(data[position + _PRELUDE.size : end])
        self._readable = name is not None
        self._open.name = name or ""
        self._payload_left = payload
        return end

    def _read_payload(self, data: bytes, position: int, events: list[Event]) -> int:
        """Reads the payload and the checksum behind it."""
        if self._payload_left:
            piece = data[position : position + self._payload_left]
            self._crc = zlib.crc32(piece, self._crc)
            self._payload_left -= len(piece)
            if self._readable:
                self._open.add(piece)
            return position + len(piece)
        if len(data) - position < _CRC.size:
            return position
        self._payload_left = -1
        if _CRC.unpack_from(data, position)[0] != self._crc:
            self.missing = BAD_CHECKSUM
            self._open.spoil(events)
        elif self._readable:
            self._open.end(events)
        else:
            self.missing = BAD_HEADERS
        return position + _CRC.size

    def _find(self, data: bytes, position: int) -> int:
        """Looks for a prelude of which the checksum holds."""
        size = len(data)
        while position + _PRELUDE.size <= size:
            match = _PLAUSIBLE.search(data, position)
            if match is None or match.start() + _PRELUDE.size > size:
                break
            position = match.start()
            if zlib.crc32(match[0]) == _CRC.unpack_from(data, position + 8)[0]:
                self._lost = False
                return position
            position += 1
        return max(position, size - _PRELUDE.size + 1)


def event_name(headers: bytes) -> str | None:
    """What a frame with these headers is called, None where they cannot be read."""
    values: dict[bytes, str] = {}
    position, size = 0, len(headers)
    while position < size:
        name_end = position + 1 + headers[position]
        kind = headers[name_end] if name_end < size else _SIZED
        value_size = _VALUE_SIZES.get(kind)
        if value_size is None or kind == _SIZED:
            return None
        start = name_end + 1
        if value_size == _SIZED:
            value_size = int.from_bytes(headers[start : start + 2], "big")
            start += 2
        if start + value_size > size:
            return None
        if kind == _TEXT:
            values[headers[position + 1 : name_end]] = headers[start : start + value_size].decode(
                "utf-8", "replace"
            )
        position = start + value_size
    if values.get(b":message-type") in _EXCEPTIONS:
        return "exception:" + (values.get(b":exception-type") or values.get(b":error-code", ""))
    return values.get(b":event-type", "")
