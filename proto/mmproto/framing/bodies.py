"""Content codings of a body, undone as it streams in and in bounded memory.

gzip, deflate (zlib or raw, as both are in use), br and zstd are undone, several of them the last first. A
coding that we do not know is named once and the body is then unreadable. Archives and some proxies keep the
header but store the decoded bytes, and some servers send a header that names no coding at all; so a body that
does not begin as its coding does, or looks like JSON or an event stream under one that we do not know, counts
as plain.

Bound: a piece of MAX_PIECE and the window of `codings` for each of at most `MAX_CODINGS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from mmproto.framing.codings import (
    GZIP_MAGIC,
    MAX_PIECE,
    ZSTD_STARTS,
    Brotli,
    Coding,
    Damaged,
    Inflate,
    Plain,
    TooLarge,
    Zstd,
)

__all__ = ["BOMB", "LOST", "MALFORMED", "MAX_PIECE", "TOO_LARGE", "UNSUPPORTED", "BodyDecoder"]

MAX_CODINGS: Final = 3
# Past this ratio and size a body is an attack on the observer, not an answer of a provider.
_BOMB_RATIO: Final = 200
_BOMB_FLOOR: Final = 64 * 1024 * 1024

UNSUPPORTED: Final = "content_encoding_unsupported"
MALFORMED: Final = "malformed_content_encoding"
LOST: Final = "gap_in_compressed_body"
BOMB: Final = "decompression_bomb"
TOO_LARGE: Final = "content_encoding_window"

# Enough to tell whether a body looks like text, and whether br can be what it claims to be.
_LOOK: Final = 64
_PLAIN_STARTS: Final = (b"{", b"[", b"data:", b"event:", b"id:", b"retry:", b":")
_IGNORED: Final = b"\xef\xbb\xbf \t\r\n"


class _Stop(Exception):
    """A body cannot be decoded any further, for the reason that it carries."""


class _Layer:
    """One coding of a body: whether it is there is decided by the first bytes."""

    def __init__(self, name: str) -> None:
        self._choose = _CHOICES.get(name, _unknown)
        self._first = b""
        self.coding: Coding | None = None  # None while undecided
        self._read = self._written = 0

    @property
    def is_plain(self) -> bool:
        return isinstance(self.coding, Plain)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What `data` decodes to. Raises _Stop."""
        coding = self.coding
        if coding is None:
            coding, data = self._decide(data, is_whole=False)
        return self._decode(coding, data) if coding is not None else iter(())

    def finish(self) -> Iterator[bytes]:
        """What was held back because it was too short to tell what it is. Raises _Stop."""
        if self.coding is None:
            coding, data = self._decide(b"", is_whole=True)
            if coding is not None:
                return self._decode(coding, data)
        return iter(())

    def _decide(self, data: bytes, *, is_whole: bool) -> tuple[Coding | None, bytes]:
        """Chooses how to read the body, if it can be told yet, and what is to be read."""
        self._first += data
        self.coding = self._choose(self._first, is_whole)
        if self.coding is None:
            return None, b""
        first, self._first = self._first, b""
        return self.coding, first

    def _decode(self, coding: Coding, data: bytes) -> Iterator[bytes]:
        self._read += len(data)
        try:
            for piece in coding.feed(data):
                self._written += len(piece)
                if self._written > _BOMB_FLOOR and self._written > self._read * _BOMB_RATIO:
                    raise _Stop(BOMB)
                yield piece
        except Damaged:
            raise _Stop(MALFORMED) from None
        except TooLarge:
            raise _Stop(TOO_LARGE) from None


# How a body is read, given its first bytes, or all of them; None: more are needed.


def _gzip(first: bytes, is_whole: bool) -> Coding | None:
    if len(first) < len(GZIP_MAGIC) and not is_whole:
        return None
    return Inflate() if first.startswith(GZIP_MAGIC) else Plain()


def _deflate(first: bytes, is_whole: bool) -> Coding | None:
    if len(first) < 2:
        return Plain() if is_whole else None
    if first[0] & 0x0F == 8 and (first[0] << 8 | first[1]) % 31 == 0:
        return Inflate(15)
    return Plain() if first[:2].lstrip()[:1] in (b"{", b"[", b"d", b"e", b":") else Inflate(-15)


def _zstd(first: bytes, is_whole: bool) -> Coding | None:
    if len(first) < len(ZSTD_STARTS[0]) and not is_whole:
        return None
    return Zstd() if first.startswith(ZSTD_STARTS) else Plain()


def _br(first: bytes, is_whole: bool) -> Coding | None:
    """br has no magic number: what looks like text has to prove that it is br."""
    plain = _looks_plain(first, is_whole)
    if plain is None or (plain and len(first) < _LOOK and not is_whole):
        return None
    if not plain:
        return Brotli()
    trial = Brotli()
    try:
        for _ in trial.feed(first[:_LOOK]):
            pass
    except Damaged:
        return Plain()
    return Brotli() if trial.is_complete or len(first) >= _LOOK else Plain()


def _unknown(first: bytes, is_whole: bool) -> Coding | None:
    plain = _looks_plain(first, is_whole)
    if plain is None:
        return None
    if not plain:
        raise _Stop(UNSUPPORTED)
    return Plain()


_CHOICES: Final[dict[str, Callable[[bytes, bool], Coding | None]]] = {
    "gzip": _gzip,
    "deflate": _deflate,
    "br": _br,
    "zstd": _zstd,
}


def _looks_plain(first: bytes, is_whole: bool) -> bool | None:
    """Whether a body begins like JSON or an event stream; None: it is too short to tell."""
    if not first[:_LOOK].lstrip(_IGNORED):  # padding, of which JSON may have much
        return True if is_whole or len(first) >= _LOOK else None
    start = first.lstrip(_IGNORED)
    if start.startswith(_PLAIN_STARTS):
        return True
    may_be = any(mark.startswith(start) for mark in _PLAIN_STARTS)
    return None if may_be and not is_whole else False


class BodyDecoder:
    """Undoes the `content-encoding` of one body.

    `problem` is "" or the reason why nothing more comes out: UNSUPPORTED, MALFORMED, LOST, BOMB or TOO_LARGE.
    """

    def __init__(self, content_encoding: str) -> None:
        codings = _codings(content_encoding) if content_encoding else []
        self.problem = UNSUPPORTED if len(codings) > MAX_CODINGS else ""
        self._layers = [_Layer(name) for name in reversed(codings)]
        self._is_plain = not codings

    @property
    def is_plain(self) -> bool:
        """Whether bytes come out as they go in."""
        if not self._is_plain and not self.problem:
            self._is_plain = all(layer.is_plain for layer in self._layers)
        return self._is_plain

    @property
    def is_complete(self) -> bool:
        """Whether what was decoded has come to an end that it names itself, or is plain."""
        return not self.problem and all(layer.coding and layer.coding.is_complete for layer in self._layers)

    @property
    def damage(self) -> str:
        """`problem` where the body itself is to blame, not our means or the capture."""
        return self.problem if self.problem in (MALFORMED, BOMB) else ""

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The decoded bytes of `data`, in pieces of at most MAX_PIECE (plain ones as they are)."""
        if self.problem:
            return
        if self.is_plain:
            if data:
                yield data
            return
        try:
            yield from self._through(0, data)
        except _Stop as stop:
            self.problem = str(stop)

    def lose(self) -> None:
        """Bytes are missing: a compressed body cannot be read past them."""
        if not self.is_plain and not self.problem:
            self.problem = LOST

    def finish(self) -> Iterator[bytes]:
        """What was held back because it was too short to tell what it is."""
        if self.problem:
            return
        try:
            for index, layer in enumerate(self._layers):
                for piece in layer.finish():
                    yield from self._through(index + 1, piece)
        except _Stop as stop:
            self.problem = str(stop)

    def _through(self, index: int, data: bytes) -> Iterator[bytes]:
        """`data` through the layers from `index` on."""
        if index == len(self._layers):
            yield data
        elif index == len(self._layers) - 1:
            yield from self._layers[index].feed(data)
        else:
            for piece in self._layers[index].feed(data):
                yield from self._through(index + 1, piece)


def _codings(content_encoding: str) -> list[str]:
    """The codings that were applied, in order, by their registered names."""
    names = (name.strip().removeprefix("x-") for name in content_encoding.lower().split(","))
    return [name for name in names if name not in ("", "identity")]
