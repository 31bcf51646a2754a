"""The frames of one direction of HTTP/2, sans-IO: pieces of DATA and other frames as wholes come out.

Payloads of DATA frames pass through and are never held. Frames that must be read as a whole are held up to
`MAX_BLOCK`; all others are skipped, those of unknown types too, as the protocol asks. However the bytes are
split, the same comes out (pieces aside).

A hole inside a frame leaves the framing intact. Beyond it, or where the connection was joined in its middle,
the next frame has to be found (`http2_sync`). A frame that the protocol forbids is the end, unless the frames
before it were found in that way: then it was no frame, and the search goes on.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from mmproto.framing import http2_wire as wire
from mmproto.framing.http1 import Malformed, Mark
from mmproto.framing.http2_sync import FrameSearch

MALFORMED: Final = "malformed_http2"
TOO_LARGE: Final = "header_too_large"
GAP: Final = "capture_gap"
# As for a head of HTTP/1.
MAX_BLOCK: Final = 64 * 1024

#: Frames that are read as a whole, with how much of their payload is wanted.
_WHOLE: Final = {
    wire.HEADERS: MAX_BLOCK,
    wire.RST_STREAM: 4,
    wire.SETTINGS: MAX_BLOCK,
    wire.PUSH_PROMISE: MAX_BLOCK,
    wire.GOAWAY: 8,
    wire.CONTINUATION: MAX_BLOCK,
}
#: Of these the beginning tells all: a long text for people may follow.
_BEGINNINGS: Final = frozenset({wire.RST_STREAM, wire.GOAWAY})


class Frame(NamedTuple):
    """A frame other than DATA. `offset` is where in the direction's bytes it begins, missing ones included.

    Where `problem` is set the payload could not be had: capture_gap, header_too_large.
    """

    kind: int
    flags: int
    stream: int
    payload: bytes
    offset: int
    problem: str = ""


class Piece(NamedTuple):
    """The next bytes of a stream's DATA; `missing` says that some are lost before them."""

    stream: int
    data: bytes
    end: bool
    missing: bool = False


FramePart = Frame | Piece | Mark | Malformed


class FrameReader:
    """`preface`: the direction begins with the client's preface. `joined_late`: anywhere."""

    def __init__(self, *, preface: bool = False, joined_late: bool = False) -> None:
        self._search = FrameSearch() if joined_late else None
        self._found = False  # frames are such by a search, not by the protocol
        self._preface = preface
        self._dead = False
        self._held: list[bytes] = []
        self._held_size = 0
        self._need = 0
        self._consumed = 0  # bytes of the direction before what is held, missing ones included
        # Of the frame whose payload is passing:
        self._stream = 0
        self._ends_stream = False
        self._content = 0  # bytes of DATA to come
        self._skipped = 0  # then bytes that nobody wants

    @property
    def is_lost(self) -> bool:
        """Whether the next frame still has to be found."""
        return self._search is not None

    @property
    def has_frames(self) -> bool:
        """Whether frames of HTTP/2 have been found on a connection that was joined late."""
        return self._found or self._search is None

    def feed(self, data: bytes) -> list[FramePart]:
        """What `data`, the next bytes of the direction, completes."""
        parts: list[FramePart] = []
        if self._held_size:
            self._held.append(data)
            self._held_size += len(data)
            if self._held_size < self._need:
                return parts
            data = self._release()
        position, size = 0, len(data)
        while position < size and not self._dead:
            if self._content:
                piece = data[position : position + self._content]
                self._content -= len(piece)
                position += len(piece)
                parts.append(Piece(self._stream, piece, self._ends_stream and not self._content))
            elif self._skipped:
                step = min(self._skipped, size - position)
                self._skipped -= step
                position += step
            else:
                reached = self._advance(data, position, parts)
                if reached < 0:
                    break
                position = reached
        if not self._dead:
            self._consumed += size - self._held_size
        return parts

    def gap(self, size: int) -> list[FramePart]:
        """`size` bytes of the direction are missing here."""
        held = self._release()
        self._consumed += len(held) + size
        if self._dead or self.is_lost:
            return []
        if not held and size <= self._content + self._skipped:
            return self._pass_over(size)
        if len(held) >= wire.HEADER_SIZE and not self._preface:
            header = wire.frame_header(held, 0)
            rest = wire.HEADER_SIZE + header.length - len(held) - size
            if rest >= 0:
                self._skipped = rest
                if header.kind == wire.DATA:
                    return [Piece(header.stream, b"", bool(header.flags & wire.END_STREAM), missing=True)]
                offset = self._consumed - len(held) - size
                return [Frame(header.kind, header.flags, header.stream, b"", offset, GAP)]
        self._lose()
        return [Mark.LOST]

    def close(self) -> list[FramePart]:
        """The direction has ended: frames that a search has not been sure of."""
        if self._search is None or not self._held_size:
            return []
        data = self._release()
        at, need = self._search.find(data, 0, final=True)
        if need:
            return []
        self._search, self._found = None, True
        return self.feed(data[at:])

    def _advance(self, data: bytes, position: int, parts: list[FramePart]) -> int:
        """Begins a frame, or finds one; returns the position reached, or -1 where more bytes are needed."""
        if self._search is not None:
            return self._find(self._search, data, position)
        if self._preface:
            return self._read_preface(data, position, parts)
        return self._begin(data, position, parts)

    def _begin(self, data: bytes, position: int, parts: list[FramePart]) -> int:
        if len(data) - position < wire.HEADER_SIZE:
            return self._hold(data[position:], wire.HEADER_SIZE)
        header = wire.frame_header(data, position)
        if not wire.is_allowed(header):
            return self._violation(data, position, parts)
        if header.kind == wire.DATA:
            return self._begin_data(header, data, position, parts)
        wanted = _WHOLE.get(header.kind)
        if wanted is not None:
            return self._take_whole(header, wanted, data, position, parts)
        self._skipped = header.length
        return position + wire.HEADER_SIZE

    def _find(self, search: FrameSearch, data: bytes, position: int) -> int:
        at, need = search.find(data, position)
        if need:
            return self._hold(data[at:], need)
        self._search, self._found = None, True
        return at

    def _read_preface(self, data: bytes, position: int, parts: list[FramePart]) -> int:
        if len(data) - position < len(wire.PREFACE):
            return self._hold(data[position:], len(wire.PREFACE))
        self._preface = False
        if not data.startswith(wire.PREFACE, position):
            return self._violation(data, position, parts)
        return position + len(wire.PREFACE)

    def _begin_data(
        self, header: wire.FrameHeader, data: bytes, position: int, parts: list[FramePart]
    ) -> int:
        body, padding, length = position + wire.HEADER_SIZE, 0, header.length
        if header.flags & wire.PADDED:
            if len(data) == body:
                return self._hold(data[position:], wire.HEADER_SIZE + 1)
            padding = data[body]
            body, length = body + 1, length - 1
            if padding > length:
                return self._violation(data, position, parts)
        elif body + length <= len(data):
            return self._take_data(header, data, body, parts)
        self._stream, self._ends_stream = header.stream, bool(header.flags & wire.END_STREAM)
        self._content, self._skipped = length - padding, padding
        if not self._content and self._ends_stream:
            parts.append(Piece(header.stream, b"", end=True))
        return body

    @staticmethod
    def _take_data(header: wire.FrameHeader, data: bytes, body: int, parts: list[FramePart]) -> int:
        """Takes a whole frame, and all that follow it with the same header but for their lengths.

        In a stream of events nearly all do, and they are many.
        """
        end = body + header.length
        pieces = [data[body:end]]
        same = data[body - 6 : body] if not header.flags else b""
        while same and data[end + 3 : end + 9] == same:
            begin = end + wire.HEADER_SIZE
            beyond = begin + int.from_bytes(data[end : end + 3], "big")
            if beyond > len(data):
                break
            pieces.append(data[begin:beyond])
            end = beyond
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        ends_stream = bool(header.flags & wire.END_STREAM)
        if piece or ends_stream:
            parts.append(Piece(header.stream, piece, ends_stream))
        return end

    def _take_whole(
        self, header: wire.FrameHeader, wanted: int, data: bytes, position: int, parts: list[FramePart]
    ) -> int:
        body = position + wire.HEADER_SIZE
        length, problem = min(header.length, wanted), ""
        if length < header.length and header.kind not in _BEGINNINGS:
            length, problem = 0, TOO_LARGE
        if len(data) - body < length:
            return self._hold(data[position:], wire.HEADER_SIZE + length)
        payload, offset = data[body : body + length], self._consumed + position
        parts.append(Frame(header.kind, header.flags, header.stream, payload, offset, problem))
        self._skipped = header.length - length
        return body + length

    def _pass_over(self, size: int) -> list[FramePart]:
        """A hole within the payload that is passing."""
        if not self._content:
            self._skipped -= size
            return []
        if size < self._content:
            self._content -= size
            return [Piece(self._stream, b"", end=False, missing=True)]
        self._skipped -= size - self._content
        self._content = 0
        return [Piece(self._stream, b"", self._ends_stream, missing=True)]

    def _violation(self, data: bytes, position: int, parts: list[FramePart]) -> int:
        if self._found:
            self._lose()
            parts.append(Mark.LOST)
            return position + 1
        self._dead = True
        parts.append(Malformed(MALFORMED))
        return len(data)

    def _lose(self) -> None:
        self._search, self._preface = FrameSearch(), False
        self._content = self._skipped = 0

    def _hold(self, data: bytes, need: int) -> int:
        self._held, self._held_size, self._need = [data], len(data), need
        return -1

    def _release(self) -> bytes:
        held, self._held, self._held_size = b"".join(self._held), [], 0
        return held
