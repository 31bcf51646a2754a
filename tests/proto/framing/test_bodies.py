"""Content codings: what is undone, what is named, and that bombs stay small."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mmproto.framing import bodies
from mmproto.framing.bodies import BodyDecoder
from mmproto.score.coding import encode as written

TEXT = b'{"usage": {"prompt_tokens": 3}}' * 20


def raw_deflate(data: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush()


def stored_blocks(data: bytes) -> bytes:
    """zstd as a server flushes it: a block of its own for every few bytes."""
    coder = zstandard.ZstdCompressor(write_checksum=True).compressobj()
    out = b"".join(
        coder.compress(data[start : start + 50]) + coder.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        for start in range(0, len(data), 50)
    )
    return out + coder.flush()


def skippable(data: bytes) -> bytes:
    return b"\x5a\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


ENCODERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": brotli.compress,
    "zstd": zstandard.compress,
}


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
        ("br", brotli.compress(TEXT)),
        ("br", brotli.compress(TEXT, quality=0)),
        ("zstd", zstandard.compress(TEXT)),
        ("zstd", stored_blocks(TEXT)),
        (
            "zstd",
            skippable(b"abc") + zstandard.compress(TEXT[:99]) + skippable(b"") + stored_blocks(TEXT[99:]),
        ),
        ("zstd", zstandard.compress(TEXT) + b"(\xb5 padding"),
        ("gzip, br", brotli.compress(gzip.compress(TEXT))),
        ("br, zstd, deflate", zlib.compress(zstandard.compress(brotli.compress(TEXT)))),
        ("gzip, gzip", gzip.compress(TEXT)),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_decoded(encoding: str, data: bytes, size: int) -> None:
    assert decode(encoding, data, size) == (TEXT, "")


LARGE = {"pairs": b"ab" * 200_000, "noise": random.Random(1).randbytes(300_000)}


@given(
    st.binary(max_size=5000) | st.sampled_from(sorted(LARGE)),
    st.integers(1, 400) | st.integers(400, 100_000),
    st.lists(st.sampled_from(sorted(ENCODERS)), min_size=1, max_size=3),
)
def test_any_split_of_any_codings(given_data: bytes | str, size: int, codings: list[str]) -> None:
    data = LARGE[given_data] if isinstance(given_data, str) else given_data
    body = data
    for coding in codings:
        body = ENCODERS[coding](body)
    if len(body) // size > 20_000:
        size = len(body) // 20_000
    assert decode(", ".join(codings), body, size) == (data, "")


@pytest.mark.parametrize("encoding", ["compress", "gzip, compress", "gzip, gzip, gzip, gzip"])
def test_unsupported_codings_are_named(encoding: str) -> None:
    assert decode(encoding, b"\x1b\x00\x00") == (b"", bodies.UNSUPPORTED)


@pytest.mark.parametrize(
    "text", [TEXT, b"\n \n" + TEXT, b'[{"a": "b c d e f g h i j k l m n o p q r s t u v w x y"}]' * 2]
)
@pytest.mark.parametrize("text_kind", [b"", b"data: ", b"event: x\ndata: ", b": note\n\n"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, br", "utf-8", "aws-chunked"])
@pytest.mark.parametrize("size", [1, 3, 100_000])
def test_plain_bodies_that_claim_to_be_coded(text: bytes, text_kind: bytes, encoding: str, size: int) -> None:
    if not (encoding == "deflate" and text.startswith(b"\n")):
        assert decode(encoding, text_kind + text, size) == (text_kind + text, "")


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("size", [100, 100_000])
def test_all_that_was_flushed_comes_out_though_nothing_follows(encoding: str, size: int) -> None:
    text = b"".join(b'data: {"number": %d}\n\n' % number for number in range(10_000))
    flushed = written(encoding, text, unfinished=True)
    decoder = BodyDecoder(encoding)
    out = [
        piece
        for start in range(0, len(flushed), size)
        for piece in decoder.feed(flushed[start : start + size])
    ]
    assert b"".join(out) == text


@pytest.mark.parametrize("text", [b"", b"{}", b"[1,2,3]", b"1", b"data: x\n\n"])
@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_tiny_bodies(text: bytes, encoding: str) -> None:
    for size in (1, 100):
        assert decode(encoding, ENCODERS[encoding](text), size) == (text, "")
        assert decode(encoding, text, size) == (text, "") or text == b"1"


@pytest.mark.parametrize("size", [1, 13, 100_000])
@pytest.mark.parametrize(("encoding", "sound"), [("gzip", 10), ("br", 15), ("zstd", 15)])
def test_damage_is_named(encoding: str, sound: int, size: int) -> None:
    whole = ENCODERS[encoding](random.Random(2).randbytes(50) * 3 + TEXT)
    assert decode(encoding, whole[:sound] + b"\xff" * 300, size)[1] == bodies.MALFORMED


@pytest.mark.parametrize("single", [False, True])
def test_a_window_beyond_the_bound_is_named(single: bool) -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=24)
    coder = zstandard.ZstdCompressor(compression_params=parameters)
    large = bytes(bodies.MAX_PIECE * 33)
    coded = coder.compress(large) if single else coder.compressobj().compress(large)
    assert decode("zstd", coded)[1] == bodies.TOO_LARGE


def test_whether_a_body_is_complete() -> None:
    for encoding, encode in ENCODERS.items():
        whole = encode(TEXT)
        for data, complete in ((whole, True), (whole[:-5], False)):
            decoder = BodyDecoder(encoding)
            for _ in decoder.feed(data):
                pass
            assert decoder.is_complete is complete


def test_bytes_missing_from_a_compressed_body_are_named() -> None:
    decoder = BodyDecoder("gzip")
    list(decoder.feed(gzip.compress(TEXT)[:30]))
    decoder.lose()
    assert list(decoder.feed(b"more")) == []
    assert decoder.problem == bodies.LOST


def gzip_bomb() -> bytes:
    compressor = zlib.compressobj(9, wbits=31)
    return b"".join(compressor.compress(b"\0" * (1 << 20)) for _ in range(200)) + compressor.flush()


def zstd_bomb() -> bytes:
    """Blocks of four bytes that stand for 128 KiB each."""
    block = ((128 * 1024) << 3 | 1 << 1).to_bytes(3, "little") + b"\0"
    return b"\x28\xb5\x2f\xfd\x00\x58" + block * 5000


def br_bomb() -> bytes:
    return bytes(brotli.compress(b"\0" * (200 << 20), quality=5))


@pytest.mark.parametrize(
    ("encoding", "bomb"),
    [("gzip", gzip_bomb), ("zstd", zstd_bomb), ("br", br_bomb)],
    ids=["gzip", "zstd", "br"],
)
def test_bomb(encoding: str, bomb: Callable[[], bytes]) -> None:
    decoder = BodyDecoder(encoding)
    total = 0
    for piece in decoder.feed(bomb()):
        assert len(piece) <= bodies.MAX_PIECE
        total += len(piece)
    assert decoder.problem == bodies.BOMB
    assert total < 100 << 20


def test_padding_is_not_kept() -> None:
    """Whatever follows the end of a body costs no memory."""
    for encoding, encode in ENCODERS.items():
        if encoding != "br":
            decoder = BodyDecoder(encoding)
            assert b"".join(decoder.feed(encode(TEXT))) == TEXT
            tracemalloc.start()
            for _ in range(1000):
                assert list(decoder.feed(bytes(10_000))) == []
            assert tracemalloc.get_traced_memory()[1] < 200_000
            tracemalloc.stop()


def test_large_answers_that_compress_well_are_no_bomb() -> None:
    data = (b"0.12345, " * 100 + TEXT) * 2000
    assert decode("gzip", gzip.compress(data), 16384) == (data, "")
