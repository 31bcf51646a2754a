"""HTTP/2 connections between the `h2` library's client and server: streams, splits, frames, roles, ends."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Iterable
from typing import Any

import h2.connection
import h2.errors
import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.proto import wire
from tests.proto.http2_pair import PREFACE, READ, WRITE, Pair, Step, frame, reframed

from mmproto.exchange import Dropped, Failed, Outcome, Recognised
from mmproto.reader import ConnectionReader, Direction, Verdict
from mmproto.v1.call_pb2 import HostSource
from mmproto.v1.usage_pb2 import Quality

EVENTS = [wire.sse([event]) for event in wire.chat_chunks(usage=wire.chat_usage())] + [b"data: [DONE]\n\n"]
SSE = "text/event-stream"


def one(pair: Pair) -> None:
    pair.answer(pair.ask(wire.chat_request()), wire.chat_completion())


def streamed(pair: Pair) -> None:
    pair.answer(pair.ask(wire.chat_request(stream=True)), pieces=EVENTS, content_type=SSE)


def zipped(pair: Pair) -> None:
    body = gzip.compress(wire.dump(wire.chat_completion()))
    pair.answer(pair.ask(wire.chat_request()), body, headers={"content-encoding": "gzip"})


def interleaved(pair: Pair) -> None:
    """Three calls at once, whose events come in turn; each has its own numbers."""
    asked = [pair.ask(wire.chat_request(stream=True)) for _ in range(3)]
    for stream in asked:
        pair.answer(stream, end=False, content_type=SSE)
    chunks = {
        stream: [wire.sse([c]) for c in wire.chat_chunks(usage=wire.chat_usage(10 * stream, stream))]
        for stream in asked
    }
    for turn in range(5):
        for stream in asked:
            pair.server.send_data(stream, chunks[stream][turn], end_stream=turn == 4)
            pair.pump()


def trailers(pair: Pair) -> None:
    stream = pair.ask(wire.chat_request())
    pair.answer(stream, wire.chat_completion(), trailers={"grpc-status": "0"})


def interim(pair: Pair) -> None:
    stream = pair.ask(wire.chat_request())
    pair.server.send_headers(stream, [(":status", "103"), ("link", "</a>")])
    pair.answer(stream, wire.chat_completion())


def bodiless(pair: Pair) -> None:
    pair.answer(pair.ask(method="HEAD", path="/v1/models"), headers={"content-length": "5"})
    pair.answer(pair.ask(method="GET", path="/v1/models"), b"{}")
    pair.answer(pair.ask(method="DELETE", path="/v1/files/1"), status=204)
    one(pair)


def padded(pair: Pair) -> None:
    stream = pair.ask(wire.chat_request(), pad=99, priority_weight=5, priority_depends_on=0)
    pair.answer(stream, wire.chat_completion(), pad=255)


def pushed(pair: Pair) -> None:
    stream = pair.ask(wire.chat_request())
    promised = 2
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "api.openai.com"), (":path", "/push")]
    pair.server.push_stream(stream, promised, [*fields, ("x-in-the-table", "of both")])
    pair.pump()
    pair.answer(promised, b"pushed", headers={"x-in-the-table": "of both"})
    pair.answer(stream, wire.chat_completion(), headers={"x-in-the-table": "of both"})


def reset_by_client(pair: Pair) -> None:
    stream = pair.ask(wire.chat_request(stream=True))
    pair.answer(stream, pieces=EVENTS[:2], end=False, content_type=SSE)
    pair.client.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
    pair.pump()
    one(pair)


def reset_by_server(pair: Pair) -> None:
    stream = pair.ask(wire.chat_request(stream=True))
    pair.answer(stream, pieces=EVENTS[:2], end=False, content_type=SSE)
    pair.server.reset_stream(stream, h2.errors.ErrorCodes.INTERNAL_ERROR)
    pair.pump()


def refused(pair: Pair) -> None:
    stream = pair.ask(wire.chat_request())
    pair.server.reset_stream(stream, h2.errors.ErrorCodes.REFUSED_STREAM)
    pair.pump()


def gone_away(pair: Pair) -> None:
    first, _second = pair.ask(wire.chat_request()), pair.ask(wire.chat_request())
    pair.server.close_connection(last_stream_id=first)
    pair.steps.append((READ, pair.server.data_to_send()))


def reset_after_all(pair: Pair) -> None:
    stream = pair.ask(wire.chat_request(), end=False)
    pair.answer(stream, wire.chat_completion())
    pair.server.reset_stream(stream, h2.errors.ErrorCodes.NO_ERROR)
    pair.pump()


def cut_off(pair: Pair) -> None:
    pair.answer(pair.ask(wire.chat_request(stream=True)), pieces=EVENTS[:3], end=False, content_type=SSE)


def foreign(pair: Pair) -> None:
    for _ in range(5):
        pair.answer(pair.ask(host="example.com", path="/"), b"ok")


def other_calls(pair: Pair) -> None:
    for _ in range(3):
        pair.answer(pair.ask(host="example.com", path="/"), b"ok")
    one(pair)
    streamed(pair)


CONVERSATIONS: dict[str, tuple[Callable[[Pair], None], list[str]]] = {
    "one": (one, ["call"]),
    "streamed": (streamed, ["call"]),
    "zipped": (zipped, ["call"]),
    "interleaved": (interleaved, ["call"] * 3),
    "trailers": (trailers, ["call"]),
    "interim": (interim, ["call"]),
    "bodiless": (bodiless, ["not_an_operation"] * 3 + ["call"]),
    "padded": (padded, ["call"]),
    "pushed": (pushed, ["call"]),
    "reset by the client": (reset_by_client, ["call stream_reset_by_client", "call"]),
    "reset by the server": (reset_by_server, ["call stream_reset_by_server"]),
    "refused": (refused, ["call stream_refused"]),
    "gone away": (gone_away, ["call stream_refused", "call connection_closed"]),
    "reset after all": (reset_after_all, ["call"]),
    "cut off": (cut_off, ["call connection_closed"]),
    "foreign": (foreign, ["not_llm"] * 4),
    "other calls": (other_calls, ["not_llm"] * 3 + ["call"] * 2),
}


def steps_of(name: str, **options: Any) -> list[Step]:
    pair = Pair(**options)
    CONVERSATIONS[name][0](pair)
    return pair.steps


def run(steps: Iterable[Step], sizes: list[int], *, late: bool = False) -> list[Outcome]:
    """The outcomes of steps fed in pieces of `sizes`, of which the last one repeats."""
    reader = ConnectionReader(wire.RULES, "connection-1", late=late)
    outcomes: list[Outcome] = []
    index = 0
    for direction, data in steps:
        position = 0
        while position < len(data):
            size = sizes[min(index, len(sizes) - 1)]
            outcomes += reader.feed(direction, data[position : position + size], wire.START_NS)
            position += size
            index += 1
    outcomes += reader.close(wire.START_NS)
    assert reader.open_exchanges == 0
    return outcomes


def names(outcomes: Iterable[Outcome]) -> list[str]:
    return [
        f"call {outcome.call.error_type}".strip() if isinstance(outcome, Recognised) else outcome.reason
        for outcome in outcomes
    ]


def plain(outcomes: Iterable[Outcome]) -> list[Any]:
    """Outcomes in a form that compares by value."""
    return [
        (o.call.SerializeToString(deterministic=True), dict(o.headers), o.anomalies)
        if isinstance(o, Recognised)
        else o
        for o in outcomes
    ]


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("size", [1 << 30, 1, 23])
def test_conversations(name: str, size: int) -> None:
    assert names(run(steps_of(name), [size])) == CONVERSATIONS[name][1]


@settings(max_examples=150)
@given(
    st.sampled_from(sorted(CONVERSATIONS)),
    st.lists(st.integers(1, 700), max_size=12),
    st.integers(1, 4000),
    st.sampled_from([None, 0, 100, 65536]),
    st.integers(0, 1 << 32),
)
def test_any_split_and_any_frames_give_the_same_outcomes(
    name: str, sizes: list[int], rest: int, table: int | None, seed: int
) -> None:
    steps = steps_of(name, table=table)
    whole = plain(run(steps, [1 << 30]))
    assert plain(run(steps, [*sizes, rest])) == whole
    other = reframed(steps, random.Random(seed))
    assert names(run(other, [1 << 30])) == CONVERSATIONS[name][1]
    assert plain(run(other, [*sizes, rest])) == plain(run(other, [1 << 30]))


def test_streams_keep_their_numbers_apart() -> None:
    outcomes = run(steps_of("interleaved"), [1 << 30])
    counts = [dict(o.call.usage.tokens) for o in outcomes if isinstance(o, Recognised)]
    assert counts == [{"input": 10 * stream, "output": stream} for stream in (1, 3, 5)]


@settings(max_examples=60)
@given(st.data())
def test_the_directions_may_overtake_each_other(data: st.DataObject) -> None:
    """A server's settings may be read before the client's preface is written."""
    pair = Pair()
    greeting = len(pair.steps)
    interleaved(pair)
    written = [step for step in pair.steps[:greeting] if step[0] is WRITE]
    received = [step for step in pair.steps[:greeting] if step[0] is READ]
    merged: list[Step] = []
    while written or received:
        take = written if not received or (written and data.draw(st.booleans())) else received
        merged.append(take.pop(0))
    assert names(run(merged + pair.steps[greeting:], [7])) == ["call"] * 3


def test_an_answer_may_be_seen_before_its_request() -> None:
    """One thread may read the answer before the other one is seen to have written."""
    pair = Pair()
    one(pair)
    one(pair)
    begin = max(i for i, (side, data) in enumerate(pair.steps) if side is WRITE and b"messages" in data)
    early = [step for step in pair.steps[begin:] if step[0] is READ]
    late = [step for step in pair.steps[begin:] if step[0] is WRITE]
    assert names(run([*pair.steps[:begin], *early, *late], [50])) == ["call"] * 2
    assert names(run([*pair.steps[:begin], *early], [50])) == ["call", "response_without_request"]


def test_early_answers_are_held_within_a_bound() -> None:
    """What had to be let go leaves no number behind, and no wrong one."""
    pair = Pair()
    streamed(pair)
    begin = next(i for i, (side, data) in enumerate(pair.steps) if side is WRITE and b"messages" in data)
    noise = b"".join(frame(0, 0, b"data: {}\n\n" * 900, stream=1) for _ in range(30))
    asked, (_, answer) = pair.steps[begin:]
    body = 9 + int.from_bytes(answer[:3], "big")
    early = [(READ, answer[:body] + noise + answer[body:])]
    [outcome] = run([*pair.steps[:begin], *early, asked], [1 << 30])
    assert isinstance(outcome, Recognised)
    assert outcome.call.error_type == "capture_gap"
    assert not outcome.call.usage.tokens


def test_what_a_call_says() -> None:
    pair = Pair()
    stream = pair.ask(wire.chat_request(), headers={"authorization": "Bearer sk-x", "x-session-id": "s-1"})
    pair.answer(stream, wire.chat_completion(id="chatcmpl-1"), headers={"x-request-id": "none"})
    [outcome] = run(pair.steps, [1 << 30])
    assert isinstance(outcome, Recognised)
    call = outcome.call
    assert (call.provider, call.host, call.http_status) == ("openai", "api.openai.com", 200)
    assert call.host_source == HostSource.HOST_SOURCE_REQUEST
    assert (call.origin.session, call.origin.api_key_hash) == ("s-1", "hash-of-4")
    assert dict(call.usage.tokens) == {"input": 30, "output": 12}
    assert call.usage.quality == Quality.QUALITY_EXACT
    assert outcome.anomalies == ()


def test_calls_without_an_id_of_their_own_are_told_apart_by_their_stream() -> None:
    pair = Pair()
    for _ in range(2):
        pair.answer(pair.ask(wire.chat_request()), wire.chat_completion(id="chatcmpl-1"))
    first, second = run(pair.steps, [1 << 30])
    again, _ = run(pair.steps, [11])
    assert isinstance(first, Recognised)
    assert isinstance(second, Recognised)
    assert isinstance(again, Recognised)
    assert first.call.id != second.call.id
    assert first.call.id == again.call.id


def test_refused_streams_cost_nothing() -> None:
    [outcome] = run(steps_of("refused"), [1 << 30])
    assert isinstance(outcome, Recognised)
    assert not outcome.call.billable


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("one", Verdict.LLM), ("foreign", Verdict.NOT_LLM), ("other calls", Verdict.LLM)],
)
def test_verdicts(name: str, verdict: Verdict) -> None:
    reader = ConnectionReader(wire.RULES, "c")
    for direction, data in steps_of(name):
        reader.feed(direction, data, 1)
    assert reader.verdict is verdict


def test_a_connection_without_requests_is_not_decided() -> None:
    reader = ConnectionReader(wire.RULES, "c")
    for direction, data in Pair().steps:
        assert reader.feed(direction, data, 1) == []
    assert reader.verdict is Verdict.UNDECIDED
    assert reader.close(2) == []


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("size", [1, 1 << 30])
def test_the_end_of_a_server(late: bool, size: int) -> None:
    pair = Pair()
    one(pair)
    one(pair)
    steps = [(Direction.READ if d is WRITE else Direction.WRITE, data) for d, data in pair.steps]
    assert names(run(steps, [size], late=late)) == ["server_side"] * 2


def test_requests_whose_answers_never_come_do_not_pile_up() -> None:
    pair = Pair()
    reader = ConnectionReader(wire.RULES, "c")
    for direction, data in pair.steps:
        reader.feed(direction, data, 1)
    encoder = hpack.Encoder()
    outcomes: list[Outcome] = []
    fields = [(":method", "POST"), (":path", "/v1/chat/completions"), (":authority", "api.openai.com")]
    for stream in range(1, 801, 2):
        outcomes += reader.feed(WRITE, frame(1, 5, encoder.encode(fields), stream=stream), 1)
    assert reader.open_exchanges + len(outcomes) == 400
    assert reader.open_exchanges <= 256
    assert len(outcomes) + len(reader.close(2)) == 400


MALFORMED = [
    b"\x00\x00\x05\x00\x00\x00\x00\x00\x00hello",  # DATA of no stream
    b"\x00\x00\x05\x06\x00\x00\x00\x00\x00hello",  # a ping of five bytes
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00\x00\x05\x00\x08\x00\x00\x00\x01\x20hell",  # more padding than there is
]


@pytest.mark.parametrize("data", MALFORMED)
@pytest.mark.parametrize(
    ("sni", "kind"), [(None, Failed), ("api.openai.com", Failed), ("example.com", Dropped)]
)
def test_what_is_no_http2_after_all(data: bytes, sni: str | None, kind: type[Failed | Dropped]) -> None:
    reader = ConnectionReader(wire.RULES, "c", sni)
    [outcome] = reader.feed(WRITE, PREFACE + data, 1)
    assert outcome == kind("malformed_http2")
    assert reader.verdict is Verdict.NOT_LLM
    assert reader.feed(WRITE, data, 1) == []


def test_http2_by_upgrade() -> None:
    """`Upgrade: h2c`: the request of HTTP/1.1 is answered on stream 1, and the next ones are of HTTP/2."""
    client, server = h2.connection.H2Connection(), None
    settings_header = client.initiate_upgrade_connection()
    assert settings_header is not None
    asked = wire.request(
        "api.openai.com",
        "/v1/chat/completions",
        wire.chat_request(),
        headers={"Upgrade": "h2c", "Connection": "Upgrade", "HTTP2-Settings": settings_header.decode()},
    )
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_upgrade_connection(settings_header)
    server.receive_data(opening := client.data_to_send())
    server.send_headers(1, [(":status", "200"), ("content-type", "application/json")])
    server.send_data(1, wire.dump(wire.chat_completion()), end_stream=True)
    client.send_headers(3, [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/")])
    steps = [(WRITE, asked), (READ, switching + server.data_to_send()), (WRITE, opening)]
    steps.append((WRITE, client.data_to_send()))
    for size in (1, 13, 1 << 30):
        assert names(run(steps, [size])) == ["call", "not_llm"]
