"""Content codings, as servers apply them: at once to a whole body, or flushed as it streams."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Mapping
from typing import Final

import brotli
import zstandard

IDENTITY: Final = "identity"


def encode(coding: str, body: bytes, *, unfinished: bool = False) -> bytes:
    """`body` in a coding; `unfinished` leaves out its end, as where a connection broke in the middle."""
    if coding == IDENTITY:
        return body
    return (_UNFINISHED if unfinished else _WHOLE)[coding](body)


def _zlib(body: bytes, bits: int) -> bytes:
    packer = zlib.compressobj(4, zlib.DEFLATED, bits)
    return packer.compress(body) + packer.flush(zlib.Z_SYNC_FLUSH)


def _brotli(body: bytes) -> bytes:
    packer = brotli.Compressor(quality=4)
    return bytes(packer.process(body) + packer.flush())


def _zstd(body: bytes) -> bytes:
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    return packer.compress(body) + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)


_WHOLE: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda body: gzip.compress(body, 4, mtime=0),
    "deflate": lambda body: zlib.compress(body, 4),
    "br": lambda body: bytes(brotli.compress(body, quality=4)),
    "zstd": lambda body: zstandard.ZstdCompressor(level=1).compress(body),
}
_UNFINISHED: Final[Mapping[str, Callable[[bytes], bytes]]] = {
    "gzip": lambda body: _zlib(body, 31),
    "deflate": lambda body: _zlib(body, 15),
    "br": _brotli,
    "zstd": _zstd,
}
CODINGS: Final = (IDENTITY, *_WHOLE)
