"""HTTP/2 framing: what each frame becomes, in every split; holes; damage; bounds."""

from __future__ import annotations

import random
import tracemalloc
from dataclasses import dataclass

import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.http2_pair import PREFACE, frame

from mmproto.framing.http1 import Malformed, Mark
from mmproto.framing.http2 import Block, BrokenBlock, GoAway, Part, Reset, StreamReader, TableSize
from mmproto.framing.http2_frames import MAX_BLOCK, Piece
from mmproto.framing.http2_sync import MAX_HELD

FIELDS = (("x-a", "1"), ("x-b", "2"))
BLOCK = hpack.Encoder().encode(FIELDS)
DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
BAD = Malformed("malformed_http2")


@dataclass(frozen=True)
class Case:
    name: str
    data: bytes
    parts: list[Part]


def block(stream: int = 1, *, end: bool = False, offset: int = 0) -> Block:
    return Block(stream, FIELDS, 0, end, offset)


CASES = [
    Case("data", frame(DATA, 0, b"hello", stream=1), [Piece(1, b"hello", False)]),
    Case("last data", frame(DATA, 1, b"hello", stream=3), [Piece(3, b"hello", True)]),
    Case("empty data", frame(DATA, 0, b"", stream=1), []),
    Case("empty last data", frame(DATA, 1, b"", stream=1), [Piece(1, b"", True)]),
    Case("padded data", frame(DATA, 9, b"\x03hello\0\0\0", stream=1), [Piece(1, b"hello", True)]),
    Case("nothing but padding", frame(DATA, 9, b"\x03\0\0\0", stream=1), [Piece(1, b"", True)]),
    Case("headers", frame(HEADERS, 4, BLOCK, stream=1), [block()]),
    Case("headers that end", frame(HEADERS, 5, BLOCK, stream=1), [block(end=True)]),
    Case("padded headers", frame(HEADERS, 0xC, b"\x02" + BLOCK + b"\0\0", stream=1), [block()]),
    Case("prioritised", frame(HEADERS, 0x24, b"\x80\0\0\0\x10" + BLOCK, stream=1), [block()]),
    Case(
        "both",
        frame(HEADERS, 0x2C, b"\x02\x80\0\0\0\x10" + BLOCK + b"\0\0", stream=1),
        [block()],
    ),
    Case(
        "continued",
        frame(HEADERS, 1, BLOCK[:3], stream=1)
        + frame(CONTINUATION, 0, b"", stream=1)
        + frame(CONTINUATION, 4, BLOCK[3:], stream=1),
        [block(end=True)],
    ),
    Case(
        "pushed, and then by the number it has put into the table",
        frame(PUSH, 4, b"\0\0\0\x02" + BLOCK, stream=1) + frame(HEADERS, 4, b"\xbf\xbe", stream=1),
        [block(offset=9 + 4 + len(BLOCK))],
    ),
    Case("reset", frame(RST, 0, b"\0\0\0\x08", stream=5), [Reset(5, 8)]),
    Case("going away", frame(GOAWAY, 0, b"\x80\0\0\x07\0\0\0\0because of this"), [GoAway(7)]),
    Case(
        "settings",
        frame(SETTINGS, 0, b"\0\x04\0\0\xff\xff\0\x01\0\0\x20\0") + frame(SETTINGS, 1, b""),
        [TableSize(8192)],
    ),
    Case(
        "of no interest",
        frame(PING, 0, b"12345678")
        + frame(WINDOW, 0, b"1234")
        + frame(PRIORITY, 0, b"12345", stream=1)
        + frame(0xAB, 0xFF, b"x" * 1000, stream=9)
        + frame(DATA, 0, b"hello", stream=1),
        [Piece(1, b"hello", False)],
    ),
    Case(
        "unfinished headers",
        frame(HEADERS, 0, BLOCK[:3], stream=1) + frame(HEADERS, 4, BLOCK, stream=3),
        [BrokenBlock(1, "malformed_http2", False), block(3, offset=12)],
    ),
    Case("a continuation of nothing", frame(CONTINUATION, 4, BLOCK, stream=1), []),
    Case("no block", frame(HEADERS, 5, b"\x80", stream=1), [BrokenBlock(1, "malformed_http2", True)]),
    Case(
        "more padding than payload",
        frame(HEADERS, 0xC, b"\x09ab", stream=1),
        [BrokenBlock(1, BAD.reason, False)],
    ),
    Case(
        "headers too large",
        frame(HEADERS, 4, bytes(MAX_BLOCK + 1), stream=1) + frame(HEADERS, 4, BLOCK, stream=3),
        [BrokenBlock(1, "header_too_large", False), block(3, offset=9 + MAX_BLOCK + 1)],
    ),
    Case(
        "headers too large together",
        frame(HEADERS, 0, bytes(16_000), stream=1)
        + frame(CONTINUATION, 0, bytes(16_000), stream=1) * 9
        + frame(CONTINUATION, 4, b"", stream=1),
        [BrokenBlock(1, "header_too_large", False)],
    ),
    Case("data of no stream", frame(DATA, 0, b"hello") + frame(DATA, 0, b"hello", stream=1), [BAD]),
    Case("a short ping", frame(PING, 0, b"1234567"), [BAD]),
    Case("settings of a stream", frame(SETTINGS, 0, b"", stream=1), [BAD]),
    Case("text", b"HTTP/1.1 400 Bad Request\r\n\r\n", [BAD]),
]


def run(data: bytes, sizes: list[int], reader: StreamReader | None = None) -> list[Part]:
    """The parts of bytes fed in pieces of `sizes` (the last one repeats), DATA of a stream joined."""
    reader = reader or StreamReader()
    parts: list[Part] = []
    position, index = 0, 0
    while position < len(data):
        size = sizes[min(index, len(sizes) - 1)]
        parts += reader.feed(data[position : position + size])
        position += size
        index += 1
    joined: list[Part] = []
    for part in parts:
        last = joined[-1] if joined else None
        if (
            isinstance(part, Piece)
            and isinstance(last, Piece)
            and part.stream == last.stream
            and not last.end
        ):
            joined[-1] = Piece(part.stream, last.data + part.data, part.end, last.missing)
        else:
            joined.append(part)
    return joined


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_frames(case: Case) -> None:
    assert run(case.data, [1 << 30]) == case.parts


@given(st.sampled_from(CASES), st.lists(st.integers(1, 40), max_size=12), st.integers(1, 70_000))
def test_any_split_gives_the_same_parts(case: Case, sizes: list[int], rest: int) -> None:
    rest = max(rest, len(case.data) // 500)
    assert run(case.data, [*sizes, rest]) == case.parts


def test_the_preface_comes_first() -> None:
    data = PREFACE + frame(SETTINGS, 0, b"") + frame(HEADERS, 4, BLOCK, stream=1)
    for size in (1, 7, 1000):
        assert run(data, [size], StreamReader(preface=True)) == [block(offset=33)]
    assert run(PREFACE[:-1] + b"x", [5], StreamReader(preface=True)) == [BAD]


# Holes


def test_holes_inside_data() -> None:
    reader = StreamReader()
    reader.feed(frame(DATA, 9, b"\x03" + b"x" * 20 + b"\0\0\0", stream=1)[:15])
    assert reader.gap(5) == [Piece(1, b"", False, missing=True)]
    assert reader.gap(10) == [Piece(1, b"", True, missing=True)]
    assert reader.gap(2) == []
    assert reader.feed(b"\0" + frame(DATA, 0, b"hello", stream=3)) == [Piece(3, b"hello", False)]


@pytest.mark.parametrize("kind", [PING, 0xAB])
def test_holes_inside_what_nobody_reads(kind: int) -> None:
    reader = StreamReader()
    reader.feed(frame(kind, 0, b"12345678")[:11])
    assert reader.gap(6) == []
    assert reader.feed(frame(DATA, 0, b"hello", stream=3)) == [Piece(3, b"hello", False)]


def test_a_hole_inside_headers_leaves_the_framing_and_spoils_the_table() -> None:
    reader = StreamReader()
    first = frame(HEADERS, 4, BLOCK, stream=1)
    reader.feed(first + frame(HEADERS, 5, BLOCK, stream=3)[:12])
    assert reader.gap(len(BLOCK) - 3) == [BrokenBlock(3, "capture_gap", True)]
    assert reader.feed(frame(HEADERS, 4, b"\xbe", stream=5)) == [Block(5, (), 1, False, 2 * len(first))]


def test_a_hole_that_begins_with_the_padding_s_length() -> None:
    reader = StreamReader()
    reader.feed(frame(DATA, 9, b"\x03hello\0\0\0", stream=1)[:9])
    assert reader.gap(4) == [Piece(1, b"", True, missing=True)]
    assert reader.feed(b"lo\0\0\0" + frame(DATA, 0, b"hello", stream=3)) == [Piece(3, b"hello", False)]


@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_hole_beyond_a_frame_finds_the_next_ones(size: int) -> None:
    reader = StreamReader()
    reader.feed(frame(HEADERS, 4, BLOCK, stream=1) + frame(DATA, 0, b"x" * 100, stream=1)[:50])
    assert reader.gap(200) == [Mark.LOST]
    assert reader._frames.is_lost
    # Three frames that follow each other are certain, and the first of them counts.
    rest = b"rest of something" + frame(DATA, 0, b"hello", stream=1) * 2
    assert run(rest, [size], reader) == []
    assert run(frame(DATA, 1, b"", stream=1), [size], reader) == [Piece(1, b"hellohello", True)]
    assert not reader._frames.is_lost


def test_at_the_end_two_frames_are_certain_if_the_bytes_end_with_them() -> None:
    for tail, found in ((b"", [Piece(1, b"usage", False), Piece(1, b"done", True)]), (b"x", [])):
        reader = StreamReader(joined_late=True)
        assert (
            reader.feed(
                b"..." + frame(DATA, 0, b"usage", stream=1) + frame(DATA, 1, b"done", stream=1) + tail
            )
            == []
        )
        assert reader.close() == found


def test_the_headers_of_a_message_are_certain_at_once() -> None:
    asked = hpack.Encoder().encode([(":method", "POST"), (":path", "/")])
    reader = StreamReader(joined_late=True)
    data = frame(HEADERS, 4, asked, stream=7)
    [part] = run(b"tail of it" + data, [3], reader)
    assert isinstance(part, Block)
    assert part.headers == ((":method", "POST"), (":path", "/"))


def test_what_was_found_and_is_none_is_searched_again() -> None:
    reader = StreamReader(joined_late=True)
    run(frame(DATA, 0, b"hello", stream=1) * 3, [10], reader)
    assert not reader._frames.is_lost
    assert reader.feed(b"no frame that anybody sends") == [Mark.LOST]
    assert run(frame(DATA, 0, b"hello", stream=3) * 3, [10], reader) == [Piece(3, b"hello" * 3, False)]


@given(st.lists(st.binary(max_size=300), max_size=8), st.booleans(), st.integers(0, 9))
def test_any_bytes(pieces: list[bytes], late: bool, gap: int) -> None:
    reader = StreamReader(joined_late=late)
    for index, piece in enumerate(pieces):
        reader.feed(piece)
        if index == gap:
            reader.gap(10)
    reader.close()


# Bounds


def test_a_gigabyte_of_data_is_never_held() -> None:
    piece = frame(DATA, 0, bytes(16_384), stream=1) * 16
    reader = StreamReader()
    tracemalloc.start()
    total = 0
    for _ in range((1 << 30) // (16 * 16_384)):
        for part in reader.feed(piece[:100_000]) + reader.feed(piece[100_000:]):
            total += len(part.data) if isinstance(part, Piece) else 0
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert total >= 1 << 30
    assert peak < 4 * len(piece)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00\x40\x00\x00\x00\x00\x00\x00\x01" * 40_000,  # a frame of the largest size may begin anywhere
        b"\x00\x3f\xff\x01\x04\x00\x00\x00\x01" * 40_000,  # and one of headers
        bytes(400_000),
        random.Random(1).randbytes(400_000),
        frame(HEADERS, 0, bytes(16_000), stream=1) + frame(CONTINUATION, 0, bytes(16_000), stream=1) * 60,
    ],
    ids=["data", "headers", "zeros", "noise", "continuations"],
)
@pytest.mark.parametrize("late", [False, True])
def test_what_is_held_is_bounded(data: bytes, late: bool) -> None:
    reader = StreamReader(joined_late=late)
    for begin in range(0, len(data), 997):
        reader.feed(data[begin : begin + 997])
        held = reader._frames._held_size
        assembly = reader._assembly
        held += len(assembly.block) if assembly else 0
        assert held <= 2 * MAX_BLOCK + MAX_HELD + 997
