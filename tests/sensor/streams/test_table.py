"""Streams from recorded records: any cut gives the same bytes, any loss exactly one gap at its place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmproto.reader import Direction
from mmsensor.capture.kernel.abi import Flag, Kind, Record
from mmsensor.streams.events import Bytes, Closed, ConnectionKey, Gap, Opened, Sni, StreamEvent
from mmsensor.streams.table import StreamTable

KEY = ConnectionKey(4711, 1_000, 0x7F00, 2_000)
HOUR_NS = 3600 * 10**9


def table(**options: int) -> StreamTable:
    return StreamTable(**{"idle_ns": HOUR_NS, **options})  # type: ignore[arg-type]


def record(kind: Kind, key: ConnectionKey = KEY, at_ns: int = 5, **fields: object) -> Record:
    return Record(
        kind,
        key.pid,
        key.process_started_ns,
        key.ssl,
        key.generation,
        at_ns,
        **fields,  # type: ignore[arg-type]
    )


def fed(streams: StreamTable, records: Iterable[Record]) -> list[StreamEvent]:
    return [event for each in records for event in streams.feed(each)]


def cut(data: bytes, sizes: list[int], direction: Direction) -> list[Record]:
    """The records of one direction, cut at these sizes over and over."""
    records: list[Record] = []
    at = 0
    while at < len(data):
        size = sizes[len(records) % len(sizes)]
        piece = data[at : at + size]
        records.append(record(Kind.DATA, direction=direction, offset=at, data=piece))
        at += len(piece)
    return records


def joined(events: Iterable[StreamEvent]) -> dict[Direction, bytes]:
    """The bytes of each direction, with zeros where a gap was; fails where they are not in order."""
    streams: dict[Direction, bytes] = defaultdict(bytes)
    for event in events:
        if isinstance(event, Bytes | Gap):
            assert event.offset == len(streams[event.direction])
            streams[event.direction] += event.data if isinstance(event, Bytes) else bytes(event.size)
    return dict(streams)


payloads = st.binary(min_size=1, max_size=400)
sizes = st.lists(st.integers(1, 50), min_size=1, max_size=5)


@st.composite
def interleaved(draw: st.DrawFn) -> tuple[dict[Direction, bytes], list[Record]]:
    whole = {Direction.WRITE: draw(payloads), Direction.READ: draw(payloads)}
    queues = [cut(data, draw(sizes), direction) for direction, data in whole.items()]
    mixed = []
    while queues:
        queue = queues[draw(st.integers(0, len(queues) - 1))]
        mixed.append(queue.pop(0))
        queues = [each for each in queues if each]
    return whole, mixed


@given(interleaved())
def test_any_cut_gives_the_same_bytes(case: tuple[dict[Direction, bytes], list[Record]]) -> None:
    whole, records = case
    events = fed(table(), records)
    assert events[0] == Opened(KEY, 5, late=False)
    assert not any(isinstance(event, Gap) for event in events)
    assert joined(events) == whole


@given(interleaved(), st.data())
def test_a_lost_record_is_one_gap_at_its_place(
    case: tuple[dict[Direction, bytes], list[Record]], data: st.DataObject
) -> None:
    whole, records = case
    lost = records[data.draw(st.integers(0, len(records) - 1))]
    final = record(
        Kind.FREE, read_offset=len(whole[Direction.READ]), write_offset=len(whole[Direction.WRITE])
    )
    events = fed(table(), [each for each in records if each is not lost] + [final])
    gaps = [event for event in events if isinstance(event, Gap)]
    assert [(gap.direction, gap.offset, gap.size) for gap in gaps] == [
        (lost.direction, lost.offset, len(lost.data))
    ]
    assert {way: len(stream) for way, stream in joined(events).items()} == {
        way: len(stream) for way, stream in whole.items()
    }
    assert events[-1] == Closed(KEY, 5, "ssl_free")


@given(interleaved(), st.sets(st.integers(0, 100)))
def test_captured_and_gaps_cover_everything(
    case: tuple[dict[Direction, bytes], list[Record]], lost: set[int]
) -> None:
    whole, records = case
    kept = [each for number, each in enumerate(records) if number not in lost]
    final = record(
        Kind.FREE, read_offset=len(whole[Direction.READ]), write_offset=len(whole[Direction.WRITE])
    )
    events = fed(table(), [*kept, final])
    for direction, stream in joined(events).items():
        assert len(stream) == len(whole[direction])
    captured = sum(len(event.data) for event in events if isinstance(event, Bytes))
    assert captured == sum(len(each.data) for each in kept)


def data(
    offset: int, payload: bytes = b"x", key: ConnectionKey = KEY, at_ns: int = 5, flags: int = 0
) -> Record:
    return record(Kind.DATA, key, at_ns, flags=flags, direction=Direction.READ, offset=offset, data=payload)


def test_a_name_comes_before_any_byte() -> None:
    events = fed(table(), [record(Kind.SNI, data=b"api.openai.com"), data(0)])
    assert events == [
        Opened(KEY, 5, late=False),
        Sni(KEY, "api.openai.com"),
        Bytes(KEY, Direction.READ, 0, b"x", 5),
    ]


def test_the_next_generation_ends_the_one_before() -> None:
    following = KEY._replace(generation=3_000)
    events = fed(table(), [data(0), data(0, key=following)])
    assert events[2:] == [
        Closed(KEY, 5, "reused"),
        Opened(following, 5, late=False),
        Bytes(following, Direction.READ, 0, b"x", 5),
    ]


def test_late_is_told() -> None:
    assert fed(table(), [data(0, flags=Flag.LATE)])[0] == Opened(KEY, 5, late=True)


def test_the_end_of_a_process_ends_its_connections_with_their_last_gaps() -> None:
    other = KEY._replace(ssl=0x8000)
    elsewhere = KEY._replace(pid=4712)
    positions = {KEY: (1, 9), other: (4, 0)}
    streams = StreamTable(positions.get, idle_ns=HOUR_NS)
    fed(streams, [data(0), data(0, key=other), data(0, key=elsewhere)])
    events = fed(streams, [record(Kind.EXIT, at_ns=8)])
    assert events == [
        Gap(KEY, Direction.WRITE, 0, 9, 8),
        Closed(KEY, 8, "process_exit"),
        Gap(other, Direction.READ, 1, 3, 8),
        Closed(other, 8, "process_exit"),
    ]
    assert streams.live() == [elsewhere]
    assert streams.processes() == [(4712, 1_000)]


def test_a_position_counts_as_lost_only_at_the_second_look() -> None:
    streams = table()
    fed(streams, [data(0)])
    assert list(streams.compare({KEY: (10, 0, False)}, 6)) == []
    fed(streams, [data(1, b"y" * 4)])
    assert list(streams.compare({KEY: (10, 0, False)}, 7)) == [Gap(KEY, Direction.READ, 5, 5, 7)]
    assert list(streams.compare({KEY: (10, 0, False)}, 8)) == []


def test_an_end_that_was_not_told_counts_only_at_the_second_look() -> None:
    """What it moved last may be in the ring still, behind much else."""
    streams = table()
    fed(streams, [data(0)])
    assert list(streams.compare({KEY: (9, 0, True)}, 6)) == []
    assert [type(event) for event in fed(streams, [data(1, b"y" * 4)])] == [Bytes]
    assert list(streams.compare({KEY: (9, 0, True)}, 7)) == [
        Gap(KEY, Direction.READ, 5, 4, 7),
        Closed(KEY, 7, "ssl_free"),
    ]


def test_what_comes_twice_is_taken_once() -> None:
    streams = table()
    events = fed(streams, [data(0, b"abcd"), data(2, b"cdef"), data(1, b"b")])
    assert joined(events) == {Direction.READ: b"abcdef"}
    assert (streams.overlapping, streams.overlapping_bytes) == (2, 3)


def test_idle_connections_are_let_go_and_taken_up_where_they_were() -> None:
    streams = table()
    fed(streams, [data(0, at_ns=100)])
    assert list(streams.expire(100 + HOUR_NS - 1)) == []
    assert list(streams.expire(100 + HOUR_NS)) == [Closed(KEY, 100 + HOUR_NS, "idle")]
    assert len(streams) == 0
    events = fed(streams, [data(1, at_ns=2 * HOUR_NS)])
    assert events == [Opened(KEY, 2 * HOUR_NS, late=True), Bytes(KEY, Direction.READ, 1, b"x", 2 * HOUR_NS)]


def test_the_number_of_connections_is_bounded() -> None:
    streams = table(max_connections=3)
    keys = [KEY._replace(ssl=number) for number in range(1, 8)]
    events = fed(streams, [data(0, key=key) for key in keys])
    assert streams.live() == keys[-3:]
    assert [event.key for event in events if isinstance(event, Closed)] == keys[:4]


def test_ignored_connections_are_silent_to_their_end() -> None:
    streams = table()
    fed(streams, [data(0)])
    streams.ignore([KEY])
    assert fed(streams, [data(1), record(Kind.FREE, read_offset=2)]) == []
    assert len(streams) == 0
    # The end has been seen: what comes now is another connection.
    assert fed(streams, [data(0, key=KEY._replace(generation=9_000))])


@pytest.mark.parametrize("told", [Opened, Gap])
def test_interest_may_be_lost_in_the_middle_of_a_record(told: type[StreamEvent]) -> None:
    """Its first events were lost with the ring full, so that the last record brings several at once."""
    streams = table()
    taken = []
    for event in streams.feed(record(Kind.FREE, read_offset=3, write_offset=4)):
        taken.append(type(event))
        if isinstance(event, told):
            streams.ignore([KEY])
    assert taken == ([Opened] if told is Opened else [Opened, Gap, Gap])
    assert streams.live() == []
