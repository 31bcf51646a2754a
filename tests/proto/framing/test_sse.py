"""Server-sent events: the grammar's corners, large events, and any split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmproto.framing.events import MAX_HELD, Event
from mmproto.framing.sse import EventReader

CASES: list[tuple[str, bytes, list[tuple[str, bytes]]]] = [
    ("one line", b"data: x\n\n", [("", b"x")]),
    ("no space", b"data:x\n\n", [("", b"x")]),
    ("two spaces", b"data:  x\n\n", [("", b" x")]),
    ("CRLF", b"event: a\r\ndata: x\r\n\r\ndata: y\r\n\r\n", [("a", b"x"), ("", b"y")]),
    ("CR", b"event: a\rdata: x\r\rdata: y\r\r", [("a", b"x"), ("", b"y")]),
    ("mixed line ends", b"event: a\r\ndata: x\n\ndata: y\r\r\n", [("a", b"x"), ("", b"y")]),
    ("comment", b": PROCESSING\n\ndata: x\n\n: bye\n\n", [("", b"x")]),
    ("comment inside", b"data: x\n: note\ndata: y\n\n", [("", b"x\ny")]),
    ("name after data", b"data: x\nevent: a\nid: 7\nretry: 3\n\n", [("a", b"x")]),
    ("no data", b"event: ping\n\n", []),
    ("empty data", b"data\n\ndata:\n\n", [("", b""), ("", b"")]),
    ("blank lines", b"\n\n\n\ndata: x\n\n\n\n", [("", b"x")]),
    ("cut off", b"data: x\n\ndata: y", [("", b"x"), ("", b"y")]),
    ("utf-8", "data: héllo – 世界\n\n".encode(), [("", "héllo – 世界".encode())]),
]


def run(data: bytes, sizes: list[int]) -> list[tuple[str, bytes]]:
    """Events, the pieces of large ones joined."""
    reader = EventReader()
    events: list[Event] = []
    position, index = 0, 0
    while position < len(data):
        size = sizes[min(index, len(sizes) - 1)]
        events += reader.feed(data[position : position + size])
        position += size
        index += 1
    events += reader.finish()
    joined: list[tuple[str, bytes]] = []
    held = b""
    for name, piece, last in events:
        held += piece
        if last:
            joined.append((name, held))
            held = b""
    return joined


@pytest.mark.parametrize(("data", "events"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_grammar(data: bytes, events: list[tuple[str, bytes]], size: int) -> None:
    assert run(data, [size]) == events


@given(
    st.lists(st.sampled_from(CASES), min_size=1, max_size=5),
    st.lists(st.integers(1, 30), min_size=1, max_size=20),
)
def test_any_split_gives_the_same_events(
    cases: list[tuple[str, bytes, list[tuple[str, bytes]]]], sizes: list[int]
) -> None:
    data = b"".join(case[1] for case in cases)
    assert run(data, sizes) == run(data, [1 << 30])


LARGE = b"event: big\nid: 1\ndata: " + b"a" * (3 * MAX_HELD) + b"\n: note\ndata: " + b"b" * 70_000 + b"\n\n"


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@given(sizes=st.lists(st.integers(1, 90_000), min_size=1, max_size=6))
def test_a_large_event_comes_in_pieces(end: bytes, sizes: list[int]) -> None:
    data = b"data: x\n\n".replace(b"\n", end) + LARGE.replace(b"\n", end) + b"data: y\n\n".replace(b"\n", end)
    sizes = [max(size, 997) for size in sizes]
    expected = [("", b"x"), ("big", b"a" * (3 * MAX_HELD) + b"\n" + b"b" * 70_000), ("", b"y")]
    assert run(data, sizes) == expected


def test_a_large_event_is_not_held() -> None:
    reader = EventReader()
    assert reader.feed(b"data: ") == []
    for _ in range(100):
        pieces = reader.feed(b"x" * 60_000)
        assert all(not piece.last for piece in pieces)
        assert len(reader._held) <= MAX_HELD


def test_after_a_loss_the_next_whole_event_is_read() -> None:
    reader = EventReader()
    assert reader.feed(b"data: one\n\ndata: tw") == [Event("", b"one")]
    reader.lose()
    assert reader.feed(b'{"half": 3}\n\ndata: four\n\n') == [Event("", b"four")]
