"""Content codings: what is undone, what is named, and that bombs stay small."""

from __future__ import annotations

import gzip
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmproto.framing import bodies
from mmproto.framing.bodies import BodyDecoder

TEXT = b'{"usage": {"prompt_tokens": 3}}' * 20


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def decode(encoding: str, data: bytes, size: int = 1 << 30) -> tuple[bytes, str]:
    decoder = BodyDecoder(encoding)
    out = b""
    for start in range(0, len(data), size):
        out += b"".join(decoder.feed(data[start : start + size]))
    return out + b"".join(decoder.finish()), decoder.problem


@pytest.mark.parametrize(
    ("encoding", "data"),
    [
        ("", TEXT),
        ("identity", TEXT),
        ("gzip", gzip.compress(TEXT)),
        ("GZIP, identity", gzip.compress(TEXT)),
        ("x-gzip", gzip.compress(TEXT)),
        ("gzip", gzip.compress(TEXT[:100]) + gzip.compress(TEXT[100:])),
        ("gzip", gzip.compress(TEXT) + b"\0" * 10),
        ("gzip", TEXT),
        ("deflate", zlib.compress(TEXT)),
        ("deflate", raw_deflate(TEXT)),
        ("deflate", TEXT),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_decoded(encoding: str, data: bytes, size: int) -> None:
    assert decode(encoding, data, size) == (TEXT, "")


@given(st.binary(max_size=5000), st.integers(1, 400))
def test_gzip_in_any_split(data: bytes, size: int) -> None:
    assert decode("gzip", gzip.compress(data), size) == (data, "")


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, br", "compress"])
def test_unsupported_codings_are_named(encoding: str) -> None:
    assert decode(encoding, b"\x1b\x00\x00") == (b"", bodies.UNSUPPORTED)


def test_damage_is_named() -> None:
    damaged = bytearray(gzip.compress(TEXT))
    damaged[15:20] = b"\xff" * 5
    assert decode("gzip", bytes(damaged))[1] == bodies.MALFORMED


def test_bytes_missing_from_a_compressed_body_are_named() -> None:
    decoder = BodyDecoder("gzip")
    list(decoder.feed(gzip.compress(TEXT)[:30]))
    decoder.lose()
    assert list(decoder.feed(b"more")) == []
    assert decoder.problem == bodies.LOST


def test_bomb() -> None:
    compressor = zlib.compressobj(9, wbits=31)
    bomb = b"".join(compressor.compress(b"\0" * (1 << 20)) for _ in range(200)) + compressor.flush()
    decoder = BodyDecoder("gzip")
    total = 0
    for piece in decoder.feed(bomb):
        assert len(piece) <= bodies.MAX_PIECE
        total += len(piece)
    assert decoder.problem == bodies.BOMB
    assert total < 100 << 20


def test_large_answers_that_compress_well_are_no_bomb() -> None:
    data = (b"0.12345, " * 100 + TEXT) * 2000
    assert decode("gzip", gzip.compress(data), 16384) == (data, "")
