"""The content codings that we can undo, each as a stream: gzip, deflate, br, zstd.

A `Coding` is fed the coded bytes and yields the decoded ones in pieces of at most `MAX_PIECE`, however much a
few bytes expand to. It raises `Damaged` where they cannot be decoded. What it yields before that depends on
how the bytes were split; whether it raises does not.

Bound, besides a piece: the window, which is 32 KiB for gzip and deflate, 16 MiB for br, and for zstd the
8 MiB that RFC 9659 allows (`TooLarge` is raised for more).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final, Protocol

import brotli
import zstandard

# A decompression bomb expands a thousandfold and more: never more than this much of it exists at once.
MAX_PIECE: Final = 256 * 1024
MAX_ZSTD_WINDOW: Final = 8 * 1024 * 1024

GZIP_MAGIC: Final = b"\x1f\x8b"
# Of a frame, and of the sixteen kinds of skippable frames.
ZSTD_STARTS: Final = (b"\x28\xb5\x2f\xfd", *(bytes([kind]) + b"\x2a\x4d\x18" for kind in range(0x50, 0x60)))


class Damaged(Exception):
    """The bytes are not coded as they were said to be."""


class TooLarge(Exception):
    """The decoder would need more memory than a body may take."""


class Coding(Protocol):
    """Undoes one coding of one body."""

    @property
    def is_complete(self) -> bool:
        """Whether the coded bytes have come to an end that they name themselves."""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes of `data`. Raises Damaged and TooLarge."""


_GZIP: Final = 31


class Plain:
    """No coding at all."""

    is_complete: Final = True

    def feed(self, data: bytes) -> Iterator[bytes]:
        if data:
            yield data


class Inflate:
    """gzip, zlib or raw deflate, as `wbits` of the zlib module tells.

    A gzip body may have several members; anything else that follows is padding.
    """

    def __init__(self, wbits: int = _GZIP) -> None:
        self._wbits = wbits
        self._inflate = zlib.decompressobj(wbits)
        self._magic = b""  # the first byte of what may be a further member
        self._padding = False

    @property
    def is_complete(self) -> bool:
        return self._inflate.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        while self._is_open or (data := self._next_member(data)):
            piece = self._decompress(data)
            if piece:
                yield piece
            # The limit on a piece can leave output inside zlib when its input is used up.
            if not self._is_open:
                data = self._inflate.unused_data
            elif not (data := self._inflate.unconsumed_tail) and len(piece) < MAX_PIECE:
                return

    @property
    def _is_open(self) -> bool:
        """Whether the end of the member is still to come."""
        return not self._inflate.eof

    def _decompress(self, data: bytes) -> bytes:
        try:
            return self._inflate.decompress(data, MAX_PIECE)
        except zlib.error as error:
            raise Damaged from error

    def _next_member(self, data: bytes) -> bytes:
        """Begins the next member where there is one; returns its bytes, none where there is no more."""
        data, self._magic = self._magic + data, b""
        if self._padding or self._wbits != _GZIP or not GZIP_MAGIC.startswith(data[: len(GZIP_MAGIC)]):
            self._padding = True
            return b""
        if len(data) < len(GZIP_MAGIC):
            self._magic = data
            return b""
        self._inflate = zlib.decompressobj(self._wbits)
        return data


class Brotli:
    """br: one stream, and nothing may follow it."""

    # The library's buffer grows by blocks: what it returns exceeds this, but not MAX_PIECE.
    _LIMIT: Final = 128 * 1024

    def __init__(self) -> None:
        self._brotli = brotli.Decompressor()

    @property
    def is_complete(self) -> bool:
        return bool(self._brotli.is_finished())

    def feed(self, data: bytes) -> Iterator[bytes]:
        pending = bool(data)
        while pending:
            try:
                piece = self._brotli.process(data, output_buffer_limit=self._LIMIT)
            except brotli.error as error:
                raise Damaged from error
            if piece:
                yield piece
            # What was flushed in the middle comes out by windows, however much room the buffer has, while the
            # library says that it wants more input: only an empty piece says that nothing is left.
            pending, data = bool(piece) and not self._brotli.is_finished(), b""


class Zstd:
    """zstd: frames and skippable frames one after another; anything else that follows one is padding.

    The library expands whatever it is given at once, four bytes to 128 KiB. So it is given the blocks of a
    frame one by one: none may expand to more than that. Source: RFC 8878.
    """

    def __init__(self) -> None:
        self._library = zstandard.ZstdDecompressor(max_window_size=MAX_ZSTD_WINDOW)
        self._frame: zstandard.ZstdDecompressionObj | None = None  # None between frames and in skippable ones
        self._held = b""  # the beginning of a header
        self._left = 0  # bytes of a header, block, checksum or skippable frame that are to come
        self._checksum = False
        self._last_block = False  # what is to come is the frame's last block
        self._last = False  # what is to come is the last of the frame
        self._complete = False
        self._padding = False

    @property
    def is_complete(self) -> bool:
        return self._complete

    def feed(self, data: bytes) -> Iterator[bytes]:
        data, self._held = self._held + data, b""
        position = 0
        while position < len(data) and not self._padding:
            if not self._left:
                self._left = self._next_size(data, position)
                if not self._left:
                    self._held = data[position:]
                    return
            piece = data[position : position + self._left]
            position += len(piece)
            self._left -= len(piece)
            if self._frame is not None:
                yield from self._decompress(self._frame, piece)
            if self._last and not self._left:
                self._frame, self._last, self._complete = None, False, True

    def _decompress(self, frame: zstandard.ZstdDecompressionObj, piece: bytes) -> Iterator[bytes]:
        try:
            decoded = frame.decompress(piece)
        except zstandard.ZstdError as error:
            raise Damaged from error
        if decoded:
            yield decoded

    def _next_size(self, data: bytes, position: int) -> int:
        """The size of the part of a frame that begins here, its header included; 0: more bytes are needed."""
        if self._frame is None:
            return self._frame_size(data[position : position + _MAX_FRAME_HEADER])
        if self._last_block:  # and a checksum is left
            self._last_block, self._last = False, True
            return _CHECKSUM_SIZE
        if len(data) - position < _BLOCK_HEADER:
            return 0
        header = int.from_bytes(data[position : position + _BLOCK_HEADER], "little")
        self._last_block = bool(header & 1) and self._checksum
        self._last = bool(header & 1) and not self._checksum
        return _BLOCK_HEADER + (1 if header >> 1 & 3 == _RUN else header >> 3)

    def _frame_size(self, header: bytes) -> int:
        """Begins a frame; the size of its header, or of the whole frame where it is a skippable one."""
        if not header.startswith(ZSTD_STARTS):
            self._padding = not any(start.startswith(header) for start in ZSTD_STARTS)
            if self._padding and not self._complete:
                raise Damaged
            return 0
        if len(header) < 8:  # no frame is smaller
            return 0
        if header[0] & 0xF0 == 0x50:
            return 8 + int.from_bytes(header[4:8], "little")
        flags = header[4]
        single, dictionary = flags >> 5 & 1, (0, 1, 2, 4)[flags & 3]
        content_size = (single, 2, 4, 8)[flags >> 6]
        size = 5 + (1 - single) + dictionary + content_size
        if len(header) < size:
            return 0
        window = int.from_bytes(header[size - content_size : size], "little")
        if not single:
            window = (8 + (header[5] & 7)) << (7 + (header[5] >> 3))
        if window > MAX_ZSTD_WINDOW:
            raise TooLarge
        self._checksum, self._complete = bool(flags & 4), False
        self._frame = self._library.decompressobj()
        return size


_MAX_FRAME_HEADER: Final = 18
_BLOCK_HEADER: Final = 3
_CHECKSUM_SIZE: Final = 4
_RUN: Final = 1  # a block of one byte, repeated
