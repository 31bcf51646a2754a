"""HTTP/2 with bytes missing: joined anywhere, holes anywhere. A number is right, or it is absent."""

from __future__ import annotations

import gzip
import random
from collections.abc import Iterable

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.proto import wire
from tests.proto.http2_pair import READ, WRITE, Pair, Step, frame, reframed
from tests.proto.test_reader_http2 import SSE, names, plain, run

from mmproto.exchange import Dropped, Failed, Outcome, Recognised
from mmproto.framing.http2_sync import MAX_HELD
from mmproto.reader import ConnectionReader, Direction, Verdict
from mmproto.v1.usage_pb2 import Quality

CALLS = 4


def call(pair: Pair, number: int, *, kind: int, indexed: bool) -> None:
    """A call whose numbers tell which one it is: input 1000 + n, output n."""
    usage = wire.chat_usage(1000 + number, number)
    stream = pair.ask(wire.chat_request(stream=kind == 0), indexed=indexed)
    if kind == 0:
        events = [wire.sse([chunk]) for chunk in wire.chat_chunks(list("abcdef"), usage=usage)]
        pair.answer(stream, pieces=[*events, b"data: [DONE]\n\n"], content_type=SSE)
    elif kind == 1:
        pair.answer(stream, wire.chat_completion(usage=usage))
    else:
        body = gzip.compress(wire.dump(wire.chat_completion(usage=usage, padding="y" * 300)))
        pair.answer(stream, body, headers={"content-encoding": "gzip"})


def conversation(*, indexed: bool, seed: int | None = None) -> list[Step]:
    """Calls one after another; with `seed` in other frames. `indexed`: the path is put into the table."""
    pair = Pair()
    for number in range(1, CALLS + 1):
        call(pair, number, kind=number % 3, indexed=indexed)
    return pair.steps if seed is None else reframed(pair.steps, random.Random(seed))


def check(outcomes: Iterable[Outcome]) -> list[int]:
    """The calls whose numbers are exact; what was reported of the others is right too."""
    found = []
    for outcome in outcomes:
        if not isinstance(outcome, Recognised):
            assert outcome.reason
            continue
        usage = outcome.call.usage
        reported = {name: count for name, count in usage.tokens.items() if name not in usage.estimated}
        number = reported.get("output", reported.get("input", 1000) - 1000)
        if reported:
            assert reported.items() <= {"input": 1000 + number, "output": number}.items()
            assert 1 <= number <= CALLS
        if usage.quality == Quality.QUALITY_EXACT:
            assert len(reported) == 2
            found.append(number)
    assert len(set(found)) == len(found), "none twice"
    return found


def cut(steps: list[Step], missing: int) -> list[Step]:
    """What is left of the steps without their first bytes, in the order of time."""
    left: list[Step] = []
    for direction, data in steps:
        taken = min(missing, len(data))
        missing -= taken
        if data[taken:]:
            left.append((direction, data[taken:]))
    return left


@pytest.mark.parametrize("indexed", [False, True])
def test_joined_late_at_every_offset(indexed: bool) -> None:
    steps = conversation(indexed=indexed)
    total = sum(len(data) for _, data in steps)
    ends = list(range(1, CALLS + 1))
    for missing in range(total):
        left = cut(steps, missing)
        outcomes = run(left, [1 << 30], late=True)
        found = check(outcomes)
        if not indexed:
            # Whoever is joined while call n is under way reads all that come after it.
            assert found == ends[len(ends) - len(found) :]
        assert outcomes, "something is said of every connection that has said something"
    assert check(run(cut(steps, 0), [1 << 30], late=True)) == ends


def test_a_call_is_read_for_each_request_that_is_seen_whole() -> None:
    steps = conversation(indexed=False)
    for begin, (direction, data) in enumerate(steps):
        asked = sum(b"messages" in data for side, data in steps[begin:] if side is WRITE)
        if direction is WRITE:
            assert len(check(run(steps[begin:], [1 << 30], late=True))) >= asked - 1, data


@settings(max_examples=80)
@given(st.data())
def test_joined_late_in_any_frames_and_splits(data: st.DataObject) -> None:
    steps = conversation(indexed=data.draw(st.booleans()), seed=data.draw(st.integers(0, 1 << 30)))
    left = cut(steps, data.draw(st.integers(0, sum(len(piece) for _, piece in steps))))
    size = data.draw(st.integers(1, 3000))
    outcomes = run(left, [size], late=True)
    check(outcomes)
    assert plain(outcomes) == plain(run(left, [1 << 30], late=True))


def with_gaps(steps: list[Step], gaps: list[tuple[int, int]], *, late: bool = False) -> list[Outcome]:
    """Feeds steps without some ranges of all their bytes, which are told as gaps."""
    reader = ConnectionReader(wire.RULES, "connection-1", late=late)
    outcomes: list[Outcome] = []
    base = 0
    for direction, data in steps:
        position = 0
        for begin, end in gaps:
            first, last = max(begin - base, position), min(end - base, len(data))
            if first < last:
                outcomes += reader.feed(direction, data[position:first], wire.START_NS)
                outcomes += reader.gap(direction, last - first, wire.START_NS)
                position = last
        outcomes += reader.feed(direction, data[position:], wire.START_NS)
        base += len(data)
    outcomes += reader.close(wire.START_NS)
    assert reader.open_exchanges == 0
    return outcomes


@pytest.mark.parametrize("size", [1, 9, 40, 400])
@pytest.mark.parametrize("indexed", [False, True])
def test_a_gap_at_every_offset(size: int, indexed: bool) -> None:
    steps = conversation(indexed=indexed)
    total = sum(len(data) for _, data in steps)
    for begin in range(0, total, 3 if size == 1 else 13):
        outcomes = with_gaps(steps, [(begin, begin + size)])
        check(outcomes)
        assert outcomes


@settings(max_examples=100)
@given(st.data())
def test_any_gaps_never_make_a_number_wrong(data: st.DataObject) -> None:
    steps = conversation(indexed=data.draw(st.booleans()), seed=data.draw(st.integers(0, 1 << 30)))
    total = sum(len(piece) for _, piece in steps)
    points = sorted(data.draw(st.lists(st.integers(0, total), max_size=8, unique=True)))
    check(with_gaps(steps, list(zip(points[::2], points[1::2], strict=False)), late=data.draw(st.booleans())))


def test_a_gap_inside_a_body_leaves_its_neighbours_alone() -> None:
    pair = Pair()
    call(pair, 1, kind=0, indexed=True)
    at = sum(len(data) for _, data in pair.steps)
    stream = pair.ask(wire.chat_request())
    at_answer = sum(len(data) for _, data in pair.steps)
    pair.answer(stream, wire.chat_completion(usage=wire.chat_usage(1002, 2), padding="x" * 5000))
    call(pair, 3, kind=1, indexed=True)
    for begin in (at + 60, at_answer + 2000):
        outcomes = with_gaps(pair.steps, [(begin, begin + 20)])
        assert len(outcomes) == 3
        assert check(outcomes)[0] == 1
        assert check(outcomes)[-1] == 3


def test_usage_at_the_end_of_a_stream_survives_a_gap_before_it() -> None:
    pair = Pair()
    stream = pair.ask(wire.chat_request(stream=True))
    begin = sum(len(data) for _, data in pair.steps)
    events = [wire.sse([c]) for c in wire.chat_chunks(["word"] * 60, usage=wire.chat_usage(1003, 3))]
    pair.answer(stream, pieces=[*events, b"data: [DONE]\n\n"], content_type=SSE)
    for size in (700, 3000):
        assert check(with_gaps(pair.steps, [(begin + 500, begin + 500 + size)])) == [3]


Move = tuple[Direction, bytes | int]  # an int: so many bytes are missing


def damaged(steps: list[Step], rng: random.Random) -> list[Move]:
    moves: list[Move] = []
    for direction, clean in steps:
        data = bytearray(clean)
        for _ in range(rng.choice((0, 0, 1, 4))):
            place = rng.randrange(len(data) + 1)
            if rng.random() < 0.5:
                data[place : place + 1] = rng.randbytes(1)
            else:
                data[place : place + rng.choice((0, 1, 9, 60))] = rng.randbytes(rng.choice((0, 1, 9)))
        begin = rng.randrange(len(data) + 1)
        end = begin + rng.choice((1, 9, 60, 500)) if rng.random() < 0.15 else begin
        moves += [(direction, bytes(data[:begin])), (direction, len(data[begin:end]))]
        moves.append((direction, bytes(data[end:])))
    return moves


@pytest.mark.parametrize("seed", range(40))
def test_damage_never_raises_and_is_the_same_in_any_split(seed: int) -> None:
    rng = random.Random(seed)
    moves = damaged(conversation(indexed=rng.random() < 0.5, seed=seed), rng)
    sni, late = rng.choice((None, "example.com")), rng.random() < 0.4
    results = []
    for size in (1 << 30, 1, 50):
        reader = ConnectionReader(wire.RULES, "c", sni, late=late)
        outcomes: list[Outcome] = []
        for direction, move in moves:
            if isinstance(move, bytes):
                for begin in range(0, len(move), size):
                    outcomes += reader.feed(direction, move[begin : begin + size], 1)
            elif move:
                outcomes += reader.gap(direction, move, 1)
        outcomes += reader.close(2)
        assert reader.open_exchanges == 0
        results.append(plain(outcomes))
    assert results[0] == results[1] == results[2]


# What is said of what cannot be read


@pytest.mark.parametrize(
    ("sni", "host", "kind"),
    [
        ("api.openai.com", None, Failed),
        ("example.com", None, Dropped),
        (None, None, Failed),
        ("example.com", "api.openai.com", Failed),
        ("api.openai.com", "example.com", Dropped),
    ],
)
def test_a_request_whose_path_is_unknown(
    sni: str | None, host: str | None, kind: type[Failed | Dropped]
) -> None:
    pair = Pair()
    pair.answer(pair.ask(wire.chat_request(), path="/v1/unknown", host="first.example"), b"{}")
    begin = len(pair.steps)
    pair.answer(pair.ask(wire.chat_request(), path="/v1/unknown", host=host or "first.example"), b"{}")
    reader = ConnectionReader(wire.RULES, "c", sni, late=True)
    outcomes = [o for direction, data in pair.steps[begin:] for o in reader.feed(direction, data, 1)]
    assert [*outcomes, *reader.close(1)] == [kind("hpack_unresolved")]


def test_the_name_of_the_connection_stands_in_for_an_unknown_host() -> None:
    pair = Pair()
    call(pair, 1, kind=1, indexed=False)
    begin = len(pair.steps)
    call(pair, 2, kind=2, indexed=False)
    reader = ConnectionReader(wire.RULES, "c", "api.groq.com", late=True)
    [outcome] = [o for direction, data in pair.steps[begin:] for o in reader.feed(direction, data, 1)]
    assert isinstance(outcome, Recognised)
    assert (outcome.call.host, outcome.call.provider) == ("api.groq.com", "groq")
    assert outcome.anomalies == ("hpack_unresolved",)
    # Neither were its answer's type and coding known: the body's first bytes told.
    assert dict(outcome.call.usage.tokens) == {"input": 1002, "output": 2}
    assert reader.verdict is Verdict.LLM


def test_an_answer_whose_request_was_not_seen() -> None:
    pair = Pair()
    stream = pair.ask(wire.chat_request(), indexed=False)
    begin = len(pair.steps)
    pair.answer(stream, wire.chat_completion())
    call(pair, 2, kind=1, indexed=False)
    assert names(run(pair.steps[begin:], [1 << 30], late=True)) == ["response_without_request", "call"]


def test_a_status_that_is_unknown() -> None:
    pair = Pair()
    pair.answer(pair.ask(wire.chat_request(), indexed=False), {"error": {}}, status=429)
    begin = len(pair.steps)
    pair.answer(pair.ask(wire.chat_request(), indexed=False), {"error": {}}, status=429)
    [outcome] = run(pair.steps[begin:], [1 << 30], late=True)
    assert isinstance(outcome, Recognised)
    assert outcome.call.error_type == "hpack_unresolved"
    assert not outcome.call.HasField("http_status")


def test_trailers_after_a_head_that_was_in_a_gap() -> None:
    pair = Pair()
    stream = pair.ask(wire.chat_request())
    reader = ConnectionReader(wire.RULES, "c")
    for direction, data in pair.steps:
        reader.feed(direction, data, 1)
    reader.gap(READ, 500, 1)
    # Found by the frames that follow it.
    trailers = hpack.Encoder().encode([("x-done", "1")])
    rest = frame(1, 5, trailers, stream=stream) + frame(6, 0, b"12345678") * 2
    [outcome] = reader.feed(READ, rest, 1)
    assert isinstance(outcome, Recognised)
    assert outcome.call.error_type == "capture_gap"
    assert outcome.call.billable


def test_a_stream_whose_end_was_in_a_gap_is_not_waited_for_for_ever() -> None:
    pair = Pair()
    stream = pair.ask(wire.chat_request(stream=True))
    pair.answer(stream, pieces=[wire.sse(wire.chat_chunks())], end=False, content_type=SSE)
    reader = ConnectionReader(wire.RULES, "c")
    for direction, data in pair.steps:
        reader.feed(direction, data, 1)
    reader.gap(READ, 1000, 1)
    begin = len(pair.steps)
    outcomes: list[Outcome] = []
    for minutes in (5, 11):
        call(pair, minutes, kind=1, indexed=False)
        for direction, data in pair.steps[begin:]:
            outcomes += reader.feed(direction, data, minutes * 60 * 10**9)
        begin = len(pair.steps)
    assert names(outcomes) == ["call", "call capture_gap", "call"]
    assert reader.open_exchanges == 0


def test_joined_late_in_something_endless_gives_up() -> None:
    reader = ConnectionReader(wire.RULES, "c", late=True)
    noise = random.Random(1)
    outcomes = [o for _ in range(300) for o in reader.feed(READ, noise.randbytes(16_384), 1)]
    assert (outcomes, reader.verdict) == ([Dropped("joined_late")], Verdict.NOT_LLM)


def test_bytes_that_look_like_frames_are_waited_for_within_a_bound() -> None:
    """A frame of the largest size may begin anywhere: no more is held than it takes to refute it."""
    from mmproto.framing.http2_frames import FrameReader

    reader = FrameReader(joined_late=True)
    data = b"\x00\x40\x00\x00\x00\x00\x00\x00\x01" * 20_000
    for begin in range(0, len(data), 501):
        reader.feed(data[begin : begin + 501])
        assert reader._held_size <= MAX_HELD + 501
