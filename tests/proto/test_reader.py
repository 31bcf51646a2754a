"""HTTP/1.1 connections: pairing, roles, verdicts, gaps, late joins; any split gives the same outcomes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.proto import wire

from mmproto.endpoint import Endpoint
from mmproto.exchange import Dropped, Outcome, Recognised
from mmproto.reader import ConnectionReader, Direction, Verdict
from mmproto.v1.call_pb2 import HostSource
from mmproto.v1.usage_pb2 import Quality

READ, WRITE = Direction.READ, Direction.WRITE
CHAT = wire.request("api.openai.com", "/v1/chat/completions", wire.chat_request())
STREAMED = wire.request("api.openai.com", "/v1/chat/completions", wire.chat_request(stream=True))
MODELS = wire.request("api.openai.com", "/v1/models", method="GET")
FOREIGN = wire.request("example.com", "/", method="GET")
EVENTS = wire.sse(wire.chat_chunks(usage=wire.chat_usage()), done=True)
NO = wire.response(b"ok", content_type="text/plain")

Step = tuple[Direction, bytes]

CONVERSATIONS: dict[str, list[Step]] = {
    "one": [(WRITE, CHAT), (READ, wire.response(wire.chat_completion()))],
    "stream": [(WRITE, STREAMED), (READ, wire.response(EVENTS, framing="chunked"))],
    "gzip": [
        (WRITE, CHAT),
        (READ, wire.response(wire.chat_completion(), framing="chunked", encoding="gzip")),
    ],
    "until close": [(WRITE, STREAMED), (READ, wire.response(EVENTS, framing="close"))],
    "cut off": [(WRITE, STREAMED), (READ, wire.response(EVENTS, framing="chunked")[:400])],
    "keep-alive": [
        (WRITE, MODELS),
        (READ, NO),
        (WRITE, CHAT),
        (READ, b"HTTP/1.1 100 Continue\r\n\r\n" + wire.response(wire.chat_completion())),
        (WRITE, FOREIGN),
        (READ, NO),
        (WRITE, wire.request("api.openai.com", "/v1/messages", wire.chat_request(stream=True))),
        (READ, wire.response(wire.sse(wire.message_events()), framing="chunked")),
    ],
    "pipelined": [
        (WRITE, CHAT + MODELS + CHAT),
        (READ, wire.response(wire.chat_completion(id="weak-1")) + NO + NO),
    ],
    "server": [(READ, CHAT), (WRITE, wire.response(wire.chat_completion())), (READ, CHAT)],
    "server of HEAD": [(READ, b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")],
    "answer first": [(READ, wire.response(wire.chat_completion())), (WRITE, CHAT), (READ, NO)],
    "answered early": [
        (WRITE, CHAT[:-9]),
        (READ, wire.response({"error": {"message": "no"}}, status=401)),
        (WRITE, CHAT),
        (READ, wire.response(wire.chat_completion())),
    ],
    "answered early, sent whole": [
        (WRITE, CHAT[:-9]),
        (READ, wire.response({"error": {"message": "no"}}, status=401)),
        (WRITE, CHAT[-9:] + CHAT),
        (READ, wire.response(wire.chat_completion())),
    ],
    "too short": [(WRITE, b"\x00\x01")],
    "not http": [(WRITE, b"\x16\x03\x01 whatever"), (READ, b"\x00\x01")],
    "greeting": [(READ, b"* OK IMAP ready\r\n"), (WRITE, b"a1 LOGIN\r\n")],
    "upgrade": [
        (WRITE, b"GET /chat HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\n\r\n"),
        (READ, b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\x81\x05hello"),
        (WRITE, b"\x81\x05hello"),
    ],
    "large": [
        (
            WRITE,
            wire.request("api.openai.com", "/v1/chat/completions", wire.chat_request(x=["y" * 9] * 9000)),
        ),
        (READ, wire.response(wire.chat_completion(padding="z" * 90_000), framing="chunked", chunk=9999)),
    ],
}
EXPECTED: dict[str, list[str]] = {
    "one": ["call"],
    "stream": ["call"],
    "gzip": ["call"],
    "until close": ["call"],
    "cut off": ["call connection_closed"],
    "keep-alive": ["not_an_operation", "call", "not_llm", "call"],
    "pipelined": ["call", "not_an_operation", "malformed_json"],
    "server": ["server_side", "server_side"],
    "server of HEAD": ["server_side"],
    "answer first": ["response_without_request", "malformed_json"],
    "answered early": ["call 401", "call"],
    "answered early, sent whole": ["call 401", "call"],
    "too short": ["not_http"],
    "not http": ["not_http"],
    "greeting": ["not_http"],
    "upgrade": ["not_llm"],
    "large": ["call"],
}


def run(steps: list[Step], sizes: list[int], *, late: bool = False) -> tuple[list[Outcome], ConnectionReader]:
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
    return outcomes, reader


def names(outcomes: list[Outcome]) -> list[str]:
    return [
        f"call {outcome.call.error_type}".strip() if isinstance(outcome, Recognised) else outcome.reason
        for outcome in outcomes
    ]


def plain(outcomes: list[Outcome]) -> list[Any]:
    """Outcomes in a form that compares by value."""
    return [
        (o.call.SerializeToString(deterministic=True), dict(o.headers), o.anomalies)
        if isinstance(o, Recognised)
        else o
        for o in outcomes
    ]


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations(name: str) -> None:
    outcomes, _ = run(CONVERSATIONS[name], [1 << 30])
    assert names(outcomes) == EXPECTED[name]


@pytest.mark.parametrize("name", [name for name in CONVERSATIONS if name != "large"])
def test_conversations_byte_by_byte(name: str) -> None:
    whole, _ = run(CONVERSATIONS[name], [1 << 30])
    assert plain(run(CONVERSATIONS[name], [1])[0]) == plain(whole)


@settings(max_examples=200)
@given(
    st.sampled_from(sorted(CONVERSATIONS)),
    st.lists(st.integers(1, 700), max_size=12),
    st.integers(100, 40_000),
)
def test_any_split_gives_the_same_outcomes(name: str, sizes: list[int], rest: int) -> None:
    whole, _ = run(CONVERSATIONS[name], [1 << 30])
    assert plain(run(CONVERSATIONS[name], [*sizes, rest])[0]) == plain(whole)


VERDICTS = [
    ([(WRITE, CHAT)], Verdict.LLM),
    ([(WRITE, FOREIGN)], Verdict.UNDECIDED),
    ([(WRITE, FOREIGN), (READ, NO)] * 4, Verdict.NOT_LLM),
    ([(WRITE, FOREIGN), (READ, NO)] * 3 + [(WRITE, CHAT)], Verdict.LLM),
    ([(WRITE, FOREIGN), (READ, wire.response(b"x" * 300_000))], Verdict.NOT_LLM),
    ([(WRITE, b"\x00\x01\x02 and so on")], Verdict.NOT_LLM),
    ([(READ, CHAT)], Verdict.SERVER_SIDE),
]


@pytest.mark.parametrize(("steps", "verdict"), VERDICTS)
def test_verdicts(steps: list[Step], verdict: Verdict) -> None:
    reader = ConnectionReader(wire.RULES, "c")
    for direction, data in steps:
        reader.feed(direction, data, 1)
    assert reader.verdict is verdict


@pytest.mark.parametrize(
    ("header", "sni", "host", "source"),
    [
        (b"Host: api.openai.com\r\n", "api.groq.com", "api.openai.com", HostSource.HOST_SOURCE_REQUEST),
        (b"", "api.groq.com", "api.groq.com", HostSource.HOST_SOURCE_SNI),
        (b"", None, "[2001:db8::1]:8443", HostSource.HOST_SOURCE_PEER),
    ],
)
def test_what_stands_in_for_the_host(header: bytes, sni: str | None, host: str, source: HostSource) -> None:
    reader = ConnectionReader(wire.RULES, "c", sni)
    reader.peer = Endpoint("2001:db8::1", 8443)
    reader.feed(WRITE, CHAT.replace(b"Host: api.openai.com\r\n", header), 1)
    [outcome] = reader.feed(READ, wire.response(wire.chat_completion()), 1)
    assert isinstance(outcome, Recognised)
    assert (outcome.call.host, outcome.call.host_source) == (host, source)
    assert (outcome.call.peer_address, outcome.call.peer_port) == ("2001:db8::1", 8443)


def test_without_any_name_there_is_no_host() -> None:
    reader = ConnectionReader(wire.RULES, "c")
    reader.feed(WRITE, CHAT.replace(b"Host: api.openai.com\r\n", b""), 1)
    [outcome] = reader.feed(READ, wire.response(wire.chat_completion()), 1)
    assert isinstance(outcome, Recognised)
    assert (outcome.call.host, outcome.call.host_source) == ("", HostSource.HOST_SOURCE_UNSPECIFIED)


def test_calls_without_an_id_of_their_own_are_told_apart_by_their_place() -> None:
    answer = wire.response(wire.chat_completion(id="chatcmpl-1"))
    first, second = run([(WRITE, CHAT), (READ, answer)] * 2, [1 << 30])[0]
    again, _ = run([(WRITE, CHAT), (READ, answer)] * 2, [97])[0]
    assert isinstance(first, Recognised)
    assert isinstance(second, Recognised)
    assert isinstance(again, Recognised)
    assert first.call.id != second.call.id
    assert first.call.id == again.call.id


def test_open_exchanges_are_counted() -> None:
    reader = ConnectionReader(wire.RULES, "c")
    reader.feed(WRITE, CHAT + CHAT, 1)
    assert reader.open_exchanges == 2
    assert len(reader.feed(READ, wire.response(wire.chat_completion()), 1)) == 1
    assert reader.open_exchanges == 1
    assert names(reader.close(2)) == ["call connection_closed"]


def test_requests_whose_answers_never_come_do_not_pile_up() -> None:
    reader = ConnectionReader(wire.RULES, "c")
    outcomes = [outcome for _ in range(300) for outcome in reader.feed(WRITE, CHAT, 1)]
    assert reader.open_exchanges + len(outcomes) == 300
    assert reader.open_exchanges <= 256


# Gaps


def quality(outcome: Outcome) -> int:
    assert isinstance(outcome, Recognised)
    return outcome.call.usage.quality


def test_a_gap_inside_a_large_request() -> None:
    document = wire.chat_request(padding="x" * 5000)
    data = wire.request("api.openai.com", "/v1/chat/completions", document)
    reader = ConnectionReader(wire.RULES, "c")
    outcomes = (
        reader.feed(WRITE, data[:1000], 1) + reader.gap(WRITE, 3000, 1) + reader.feed(WRITE, data[4000:], 1)
    )
    outcomes += reader.feed(READ, wire.response(wire.chat_completion()), 1)
    assert [quality(outcome) for outcome in outcomes] == [Quality.QUALITY_EXACT]
    outcomes = reader.feed(WRITE, CHAT, 1) + reader.feed(READ, wire.response(wire.chat_completion()), 1)
    assert [quality(outcome) for outcome in outcomes] == [Quality.QUALITY_EXACT]


@pytest.mark.parametrize("begin", range(200, 620, 35))
def test_a_gap_in_a_stream_never_makes_the_counts_wrong(begin: int) -> None:
    answer = wire.response(EVENTS, content_type="text/event-stream", framing="chunked", chunk=61)
    reader = ConnectionReader(wire.RULES, "c")
    outcomes = reader.feed(WRITE, STREAMED, 1)
    outcomes += reader.feed(READ, answer[:begin], 1)
    outcomes += reader.gap(READ, 150, 1)
    outcomes += reader.feed(READ, answer[begin + 150 :], 1)
    outcomes += reader.feed(WRITE, CHAT, 1)
    outcomes += reader.feed(READ, wire.response(wire.chat_completion()), 1)
    outcomes += reader.close(1)
    assert len(outcomes) == 2
    first, second = outcomes
    assert isinstance(first, Recognised)
    assert dict(first.call.usage.tokens) in ({}, {"input": 30, "output": 12})
    assert (quality(first) == Quality.QUALITY_EXACT) == bool(first.call.usage.tokens)
    assert quality(second) == Quality.QUALITY_EXACT


def test_a_gap_over_a_whole_exchange_leaves_its_neighbours_alone() -> None:
    answer = wire.response(wire.chat_completion())
    reader = ConnectionReader(wire.RULES, "c")
    outcomes = reader.feed(WRITE, CHAT, 1) + reader.feed(READ, answer, 1)
    outcomes += reader.gap(WRITE, len(CHAT), 1) + reader.gap(READ, len(answer), 1)
    outcomes += reader.feed(WRITE, CHAT, 1) + reader.feed(READ, answer, 1)
    assert [quality(outcome) for outcome in outcomes] == [Quality.QUALITY_EXACT] * 2


def _asked(model: str) -> tuple[bytes, bytes]:
    """A request for a model, and its answer, which says so."""
    asked = wire.request("api.openai.com", "/v1/chat/completions", wire.chat_request(model=model))
    return asked, wire.response(wire.chat_completion(model=model), framing="chunked")


@pytest.mark.parametrize("from_answer", [1, 60, 150, 400])
@pytest.mark.parametrize("in_next", [0, 1, 60, 150, 400])
def test_an_answer_after_a_gap_never_goes_to_another_request(from_answer: int, in_next: int) -> None:
    """A hole from somewhere in the first answer to somewhere in the second; then all is well again."""
    (first, answer), (second, following), (third, last) = (_asked(name) for name in ("m-1", "m-2", "m-3"))
    missing = from_answer + in_next
    reader = ConnectionReader(wire.RULES, "c")
    outcomes = reader.feed(WRITE, first, 1) + reader.feed(READ, answer[:-from_answer], 1)
    outcomes += reader.feed(WRITE, second, 2)
    outcomes += reader.gap(READ, missing, 2) + reader.feed(READ, following[in_next:], 2)
    outcomes += reader.feed(WRITE, third, 3) + reader.feed(READ, last, 3) + reader.close(4)
    calls = [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]
    assert [call.request_model for call in calls] == ["m-1", "m-2", "m-3"]
    for call in calls:
        assert call.response_model in ("", call.request_model)
    assert calls[2].response_model == "m-3"
    assert (calls[1].response_model == "m-2") is (in_next == 0)


def test_an_answer_that_is_in_a_gap_as_a_whole_is_not_the_next_one() -> None:
    (first, answer), (second, following) = _asked("m-1"), _asked("m-2")
    told: list[list[tuple[Direction, bytes | int]]] = [
        [(WRITE, first), (READ, len(answer)), (WRITE, second), (READ, following)],
        [(WRITE, first), (WRITE, second), (READ, len(answer)), (READ, following)],
    ]
    for steps in told:
        reader, outcomes = ConnectionReader(wire.RULES, "c"), list[Outcome]()
        for direction, what in steps:
            if isinstance(what, int):
                outcomes += reader.gap(direction, what, 1)
            else:
                outcomes += reader.feed(direction, what, 1)
        calls = [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]
        assert [(call.request_model, call.response_model) for call in calls] == [("m-1", ""), ("m-2", "m-2")]
        assert calls[0].error_type == "capture_gap"


def test_a_lost_100_continue_leaves_the_answer_to_its_request() -> None:
    asked, answer = _asked("m-1")
    head, body = asked.split(b"\r\n\r\n", 1)
    reader = ConnectionReader(wire.RULES, "c")
    outcomes = reader.feed(WRITE, head + b"\r\n\r\n", 1) + reader.gap(READ, 25, 1)
    outcomes += reader.feed(WRITE, body, 1) + reader.feed(READ, answer, 1)
    assert wire.the_call(outcomes).response_model == "m-1"


def test_a_gap_over_a_request_leaves_its_answer_without_one() -> None:
    reader = ConnectionReader(wire.RULES, "c")
    outcomes = reader.feed(WRITE, CHAT, 1) + reader.feed(READ, wire.response(wire.chat_completion()), 1)
    outcomes += reader.gap(WRITE, len(CHAT), 1)
    outcomes += reader.feed(READ, wire.response(wire.chat_completion()), 1)
    assert names(outcomes) == ["call", "response_without_request"]


# Connections that were open before


LATE: dict[str, tuple[list[Step], list[str]]] = {
    "idle": ([(WRITE, CHAT), (READ, wire.response(wire.chat_completion()))], ["call"]),
    "in a request": (
        [(WRITE, CHAT[-30:]), (READ, wire.response(wire.chat_completion())), (WRITE, CHAT), (READ, NO)],
        ["response_without_request", "malformed_json"],
    ),
    "in an answer": (
        [(READ, b'tail of it"}'), (WRITE, CHAT), (READ, wire.response(wire.chat_completion()))],
        ["response_without_request", "call"],
    ),
    "server": (
        [(READ, b'tail"}'), (WRITE, NO), (READ, CHAT), (WRITE, NO), (READ, CHAT)],
        ["server_side"] * 2,
    ),
    "no http": ([(READ, b"\x17\x03\x03" * 50), (WRITE, b"\x00" * 50)], ["joined_late"]),
}


@pytest.mark.parametrize("name", LATE)
@pytest.mark.parametrize("size", [1, 17, 1 << 30])
def test_joined_late(name: str, size: int) -> None:
    steps, expected = LATE[name]
    assert names(run(steps, [size], late=True)[0]) == expected


def test_joined_late_in_something_endless_gives_up() -> None:
    reader = ConnectionReader(wire.RULES, "c", late=True)
    outcomes = [outcome for _ in range(300) for outcome in reader.feed(READ, b"\x17" * 16_384, 1)]
    assert (outcomes, reader.verdict) == ([Dropped("joined_late")], Verdict.NOT_LLM)
