"""Content codings of a body, undone as it streams in and in bounded memory.

gzip and deflate (zlib or raw, as both are in use) are undone; a coding that we cannot undo is named once and
the body is then unreadable. Archives and some proxies keep the header but store the decoded bytes, so a body
that claims gzip and is none counts as plain.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

# A decompression bomb expands a thousandfold: never more than this much of it exists at once.
MAX_PIECE: Final = 256 * 1024
# Past this ratio and size a body is an attack on the observer, not an answer of a provider.
_BOMB_RATIO: Final = 200
_BOMB_FLOOR: Final = 64 * 1024 * 1024

UNSUPPORTED: Final = "content_encoding_unsupported"
MALFORMED: Final = "malformed_content_encoding"
LOST: Final = "gap_in_compressed_body"
BOMB: Final = "decompression_bomb"


def _codings(content_encoding: str) -> list[str]:
    return [c for part in content_encoding.lower().split(",") if (c := part.strip()) not in ("", "identity")]


class BodyDecoder:
    """Undoes the `content-encoding` of one body.

    `problem` is "" or the reason why nothing more comes out: UNSUPPORTED, MALFORMED, LOST or BOMB.
    """

    def __init__(self, content_encoding: str) -> None:
        codings = _codings(content_encoding) if content_encoding else []
        self.problem = ""
        self._coding = codings[0].removeprefix("x-") if len(codings) == 1 else ""
        self._inflate: zlib._Decompress | None = None
        self._first = b""
        self._decided = not codings
        self._read = self._written = 0
        if codings and self._coding not in ("gzip", "deflate"):
            self.problem, self._decided = UNSUPPORTED, True

    @property
    def is_plain(self) -> bool:
        """Whether bytes come out as they go in."""
        return self._decided and self._inflate is None and not self.problem

    @property
    def damage(self) -> str:
        """`problem` where the body itself is to blame, not our means or the capture."""
        return self.problem if self.problem in (MALFORMED, BOMB) else ""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes of `data`, in pieces of at most MAX_PIECE."""
        if self.problem:
            return
        if not self._decided:
            self._first += data
            if len(self._first) < 2:
                return
            data, self._first = self._first, b""
            self._decide(data)
        if self._inflate is None:
            if data:
                yield data
            return
        yield from self._decompress(data)

    def lose(self) -> None:
        """Bytes are missing: a compressed body cannot be read past them."""
        if self._inflate is not None or not self._decided:
            self.problem = LOST
            self._decided = True

    def finish(self) -> Iterator[bytes]:
        """What was held back because it was too short to tell what it is."""
        if self._first:
            yield self._first
            self._first = b""

    def _decide(self, data: bytes) -> None:
        """Chooses by the magic number: the header alone cannot be trusted."""
        self._decided = True
        zlib_header = data[0] & 0x0F == 8 and (data[0] << 8 | data[1]) % 31 == 0
        if self._coding == "gzip":
            if data[:2] == b"\x1f\x8b":
                self._inflate = zlib.decompressobj(31)
        elif zlib_header:
            self._inflate = zlib.decompressobj(15)
        elif data.lstrip()[:1] not in (b"{", b"[", b"d", b"e", b":"):
            self._inflate = zlib.decompressobj(-15)

    def _decompress(self, data: bytes) -> Iterator[bytes]:
        self._read += len(data)
        pending = True  # the limit on a piece can leave output inside zlib when its input is used up
        while (data or pending) and self._inflate is not None:
            try:
                piece = self._inflate.decompress(data, MAX_PIECE)
            except zlib.error:
                self.problem = MALFORMED
                return
            self._written += len(piece)
            if self._written > _BOMB_FLOOR and self._written > self._read * _BOMB_RATIO:
                self.problem = BOMB
                return
            if piece:
                yield piece
            pending = len(piece) == MAX_PIECE
            data = self._inflate.unconsumed_tail
            if self._inflate.eof:
                # A gzip body may have several members; anything else after the end is padding.
                data = self._inflate.unused_data
                if data[:2] != b"\x1f\x8b":
                    return
                self._inflate = zlib.decompressobj(31)
