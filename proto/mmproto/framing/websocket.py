"""WebSocket messages of one direction, sans-IO (RFC 6455; RFC 7692 for permessage-deflate).

Frames are unmasked, fragments joined and messages decompressed; pings and pongs, which may come between
fragments, are passed over. Events are named "text", "binary" and "close"; nothing is read after a close.

Where bytes are missing inside of one frame's payload and their number is known, only that message is lost.
Otherwise the next message is searched for. Messages that are compressed with context takeover lean on all
those before them: after a loss the first one ends the reading.

Bound: `MAX_HELD` bytes of a message are held, a larger one is passed on in pieces; while searching `REACH`
bytes are held; a decompressor has a window of 32 KiB. One `feed` returns at most `_BOMB_FLOOR` bytes and
`_BOMB_RATIO` times what it was given; what expands further is a bomb and ends the reading.
"""

from __future__ import annotations

import zlib
from typing import Final, NamedTuple

from mmproto.framing.events import Event, OpenEvent
from mmproto.framing.wsframes import (
    BINARY,
    CLOSE,
    CONTINUATION,
    MALFORMED,
    TEXT,
    Header,
    find_message,
    header_at,
    unmasked,
)

BAD_COMPRESSION: Final = "malformed_websocket_compression"
BOMB: Final = "decompression_bomb"
LOST: Final = "gap_in_compressed_websocket"

_NAMES: Final = {TEXT: "text", BINARY: "binary", CLOSE: "close"}
_MAX_PIECE: Final = 256 * 1024
_BOMB_FLOOR: Final = 4 * 1024 * 1024
_BOMB_RATIO: Final = 200
# What a sender leaves out at the end of each compressed message.
_TAIL: Final = b"\x00\x00\xff\xff"
# Reads every smaller window as well, whatever was negotiated.
_WINDOW_BITS: Final = -15


class Deflate(NamedTuple):
    """How one direction may be compressed."""

    takeover: bool  # each message goes on with the window of the one before


def negotiated(extensions: str, *, from_client: bool) -> Deflate | None:
    """What a response's `sec-websocket-extensions` agreed on for one direction; None: no compression."""
    for extension in extensions.lower().split(","):
        name, *parameters = (part.strip() for part in extension.split(";"))
        if name == "permessage-deflate":
            side = "client" if from_client else "server"
            return Deflate(takeover=f"{side}_no_context_takeover" not in parameters)
    return None


class MessageReader:
    """The messages of one direction, however its bytes are split.

    `problem` is "" or MALFORMED, `wsframes.EXTENSION`, BAD_COMPRESSION, BOMB or LOST.
    """

    missing: Final = ""

    def __init__(self, deflate: Deflate | None = None) -> None:
        self.problem = ""
        self.is_closed = False  # a close has been read
        self._deflate = deflate
        self._held = b""  # the beginning of a header, or what is searched
        self._searching = False
        self._is_masked: bool | None = None
        self._frame: Header | None = None
        self._read = 0  # bytes of the frame's payload so far
        self._control = b""  # the payload of a control frame
        self._open = OpenEvent()
        self._in_message = False
        self._compressed = False
        self._damaged = False  # bytes of the open message are missing
        self._inflate: zlib._Decompress | None = None
        self._window_lost = False
        self._allowance = 0  # what this `feed` may still decompress to

    @property
    def is_between_events(self) -> bool:
        """Whether nothing of an event has been held back."""
        return not (self._held or self._searching or self._in_message or self._frame)

    def feed(self, data: bytes) -> list[Event]:
        """The messages, and pieces of large ones, that `data` completes."""
        events: list[Event] = []
        self._allowance = _BOMB_FLOOR + _BOMB_RATIO * len(data)
        if self._held:
            data, self._held = self._held + data, b""
        position = 0
        while position < len(data) and not (self.problem or self.is_closed):
            if self._searching:
                position = self._search(data, position)
            elif self._frame is not None:
                position = self._read_payload(self._frame, data, position, events)
            else:
                header = header_at(data, position)
                if header is None:
                    self._held = data[position:]
                    break
                position = header.end
                self._begin(header, events)
        if self.problem:
            self._open.drop()
        self._open.rest(events)
        return events

    def lose(self, size: int | None = None) -> None:
        """Bytes are missing here, `size` of them where that is known."""
        if self.problem or self.is_closed:
            return
        self._window_lost = self._deflate is not None and self._deflate.takeover
        self._open.drop()
        frame = self._frame
        if frame is not None and size is not None and size <= frame.size - self._read:
            self._read += size
            self._damaged = True
            if self._read == frame.size:
                self._end_frame(frame, [])
            return
        self._held, self._frame, self._in_message, self._control = b"", None, False, b""
        self._searching = True

    def finish(self) -> list[Event]:
        """Nothing: a message that was cut off is no message."""
        self._held = b""
        self._open.drop()
        return []

    def _search(self, data: bytes, position: int) -> int:
        """Looks for the beginning of a message; returns where it is, or the end of `data`."""
        position, found = find_message(
            data, position, is_masked=self._is_masked, may_compress=self._deflate is not None
        )
        if found:
            self._searching = False
            return position
        self._held = data[position:]
        return len(data)

    def _begin(self, header: Header, events: list[Event]) -> None:
        """Begins a frame, and a message with it unless it is a fragment or a control frame."""
        self.problem = header.wrong(may_compress=self._deflate is not None)
        if not header.is_control and (header.opcode == CONTINUATION) != self._in_message:
            self.problem = self.problem or MALFORMED
        if self.problem:
            return
        self._is_masked = bool(header.mask)
        self._frame, self._read, self._control = header, 0, b""
        if not header.is_control and not self._in_message:
            self._begin_message(header)
        if not header.size and not self.problem:
            self._end_frame(header, events)

    def _begin_message(self, header: Header) -> None:
        self._in_message, self._damaged = True, False
        self._open.name = _NAMES[header.opcode]
        self._compressed = header.is_compressed
        if self._compressed and self._window_lost:
            self.problem = LOST
        elif self._compressed and (self._inflate is None or not (self._deflate and self._deflate.takeover)):
            self._inflate = zlib.decompressobj(_WINDOW_BITS)

    def _read_payload(self, frame: Header, data: bytes, position: int, events: list[Event]) -> int:
        piece = data[position : position + frame.size - self._read]
        plain = unmasked(piece, frame.mask, self._read)
        self._read += len(piece)
        if frame.is_control:
            self._control += plain
        else:
            self._add(plain)
        if self._read == frame.size and not self.problem:
            self._end_frame(frame, events)
        return position + len(piece)

    def _end_frame(self, frame: Header, events: list[Event]) -> None:
        self._frame = None
        if frame.opcode == CLOSE:
            self.is_closed = True
            self._open.drop()
            events.append(Event(_NAMES[CLOSE], self._control))
        elif not frame.is_control and frame.is_final:
            self._in_message = False
            if self._compressed:
                self._add(_TAIL)
            if self._damaged or self.problem:
                self._open.drop()
            else:
                self._open.end(events)

    def _add(self, data: bytes) -> None:
        """The next bytes of the open message, as they are in its frames."""
        if self._damaged:
            return
        if not self._compressed:
            self._open.add(data)
            return
        pending = True  # the limit on a piece can leave output inside zlib when its input is used up
        while (data or pending) and self._inflate is not None:
            try:
                piece = self._inflate.decompress(data, _MAX_PIECE)
            except zlib.error:
                self.problem = BAD_COMPRESSION
                return
            self._allowance -= len(piece)
            if self._allowance < 0:
                self.problem = BOMB
                return
            self._open.add(piece)
            pending = len(piece) == _MAX_PIECE
            data = self._inflate.unconsumed_tail
            if self._inflate.eof:  # a last block, which is allowed and says nothing about the next message
                data = self._inflate.unused_data
                self._inflate = zlib.decompressobj(_WINDOW_BITS)
