"""HTTP/2 of one direction of one connection, sans-IO: frames in, headers and bodies of streams out.

Which end sends the requests is not known here; the headers tell whoever pairs the two directions. Header
blocks are read in their order whether or not anybody wants them (pushed responses, streams that are over):
each of them may change the table that the next ones stand on.

After a hole that took the framing with it (`Mark.LOST`) nothing is known of the table either: fields that
name its entries are counted as unresolved until they are sent anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from mmproto.framing import http2_wire as wire
from mmproto.framing.hpack_block import BlockReader
from mmproto.framing.http1 import Headers, Malformed, Mark
from mmproto.framing.http2_frames import (
    MALFORMED,
    MAX_BLOCK,
    TOO_LARGE,
    Frame,
    FramePart,
    FrameReader,
    Piece,
)

_HEADER_TABLE_SIZE: Final = 1  # among the settings
_SETTING: Final = 6  # bytes


class Block(NamedTuple):
    """Headers or trailers of a stream, pseudo-headers included, and how many fields could not be read.

    `offset` is where in the direction's bytes they began, missing bytes included.
    """

    stream: int
    headers: Headers
    unresolved: int
    end: bool  # of the stream
    offset: int


class BrokenBlock(NamedTuple):
    """Headers or trailers that could not be read, and why."""

    stream: int
    reason: str
    end: bool


class Reset(NamedTuple):
    stream: int
    code: int


class GoAway(NamedTuple):
    """No stream above `last` has been or will be served."""

    last: int


class TableSize(NamedTuple):
    """The size that the header table of the OTHER direction may have from here on."""

    size: int


Part = Piece | Block | BrokenBlock | Reset | GoAway | TableSize | Mark | Malformed


class _Assembly:
    """A header block whose end has not come."""

    __slots__ = ("_size", "block", "first", "problem")

    def __init__(self, first: Frame) -> None:
        self.first = first
        self.block = bytearray()  # fragments may be empty, and without number
        self.problem = first.problem
        self._size = 0

    def add(self, fragment: bytes | None) -> None:
        if fragment is None:
            self.problem = self.problem or MALFORMED
            return
        self._size += len(fragment)
        if self._size > MAX_BLOCK:
            self.problem = self.problem or TOO_LARGE
        if not self.problem:
            self.block += fragment


class StreamReader:
    """The streams of one direction; arguments as for `FrameReader`."""

    def __init__(self, *, preface: bool = False, joined_late: bool = False) -> None:
        self._frames = FrameReader(preface=preface, joined_late=joined_late)
        self._blocks = BlockReader(joined_late=joined_late)
        self._assembly: _Assembly | None = None

    @property
    def has_frames(self) -> bool:
        """Whether frames of HTTP/2 have been found on a connection that was joined late."""
        return self._frames.has_frames

    def allow_table(self, size: int) -> None:
        """The other direction has sent a `TableSize`."""
        self._blocks.allow(size)

    def feed(self, data: bytes) -> list[Part]:
        """The parts that `data`, the next bytes of the direction, completes."""
        return self._read(self._frames.feed(data))

    def gap(self, size: int) -> list[Part]:
        """`size` bytes of the direction are missing here."""
        return self._read(self._frames.gap(size))

    def close(self) -> list[Part]:
        """The direction has ended."""
        return self._read(self._frames.close())

    def _read(self, frames: Iterable[FramePart]) -> list[Part]:
        parts: list[Part] = []
        for frame in frames:
            if isinstance(frame, Frame):
                self._take(frame, parts)
                continue
            if frame is Mark.LOST:
                self._assembly = None
                self._blocks.forget()
            parts.append(frame)
        return parts

    def _take(self, frame: Frame, parts: list[Part]) -> None:
        kind, payload = frame.kind, frame.payload
        if kind in (wire.HEADERS, wire.PUSH_PROMISE):
            self._abandon(parts)
            self._assembly = _Assembly(frame)
            self._extend(frame, b"" if frame.problem else wire.fragment(kind, frame.flags, payload), parts)
        elif kind == wire.CONTINUATION:
            if self._assembly is None or self._assembly.first.stream != frame.stream:
                self._abandon(parts)
                self._blocks.forget()  # the beginning of this block was not seen
            else:
                self._assembly.problem = self._assembly.problem or frame.problem
                self._extend(frame, payload, parts)
        elif frame.problem:
            return
        elif kind == wire.RST_STREAM:
            parts.append(Reset(frame.stream, int.from_bytes(payload, "big")))
        elif kind == wire.GOAWAY:
            parts.append(GoAway(int.from_bytes(payload[:4], "big") & 0x7FFFFFFF))
        elif not frame.flags & wire.ACK:
            for at in range(0, len(payload), _SETTING):
                if int.from_bytes(payload[at : at + 2], "big") == _HEADER_TABLE_SIZE:
                    parts.append(TableSize(int.from_bytes(payload[at + 2 : at + _SETTING], "big")))

    def _extend(self, frame: Frame, fragment: bytes | None, parts: list[Part]) -> None:
        assembly = self._assembly
        if assembly is None:
            return
        assembly.add(fragment)
        if frame.flags & wire.END_HEADERS:
            self._assembly = None
            self._finish(assembly, parts)

    def _abandon(self, parts: list[Part]) -> None:
        """Something else has come in the middle of a header block."""
        assembly, self._assembly = self._assembly, None
        if assembly is not None:
            assembly.add(None)
            self._finish(assembly, parts)

    def _finish(self, assembly: _Assembly, parts: list[Part]) -> None:
        first = assembly.first
        end = bool(first.flags & wire.END_STREAM) and first.kind == wire.HEADERS
        fields = None
        if assembly.problem:
            self._blocks.forget()
        else:
            fields = self._blocks.read(bytes(assembly.block))
        if first.kind == wire.PUSH_PROMISE:
            return  # what a server pushes is no answer to anything
        if fields is None:
            parts.append(BrokenBlock(first.stream, assembly.problem or MALFORMED, end))
        else:
            parts.append(Block(first.stream, fields.headers, fields.unresolved, end, first.offset))


def is_request(block: Block) -> bool:
    """Whether headers open a request; those of a response and trailers do not."""
    return any(name == ":method" for name, _ in block.headers)
