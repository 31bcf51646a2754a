"""What somebody sends who wants wrong numbers, a crash or a slow observer: third parties and odd peers."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.proto import wire

from mmproto.credentials import CREDENTIAL_HEADERS
from mmproto.exchange import ReadingRules, Recognised
from mmproto.framing.http1 import MessageReader
from mmproto.framing.http2 import StreamReader
from mmproto.framing.jsonpick import VALUE, JsonBody
from mmproto.providers import paths
from mmproto.v1.usage_pb2 import Quality, Usage

CHAT = wire.request("api.openai.com", "/v1/chat/completions", wire.chat_request())


@pytest.mark.parametrize("cost", ["1e999999999", "1e-999999999", "nan", "-1", "1e300", "0x1", ""])
def test_a_cost_beyond_all_reason_is_none(cost: str) -> None:
    answer = wire.response(wire.chat_completion(), headers={"x-litellm-response-cost": cost})
    call = wire.the_call(wire.read(CHAT, answer))
    assert not call.reported_cost_nano_usd
    assert dict(call.usage.tokens) == {"input": 30, "output": 12}


FIRST = [b"GET ", b"POST /x", b"POST", b" HTTP/1.1", b"G", b" ", b"/" * 7168]
ANSWER = [b"HTTP/1.0 200", b"HT", b" OK", b"\r\n", b"a-b:", b"\r", b"\n", b"x" * 150, b"1f\r\n"]
START_LINES = st.lists(st.sampled_from(FIRST + ANSWER), max_size=12).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(START_LINES, st.lists(st.integers(1, 40), min_size=1, max_size=8), st.sampled_from("rac"))
def test_what_is_searched_for_is_found_however_it_is_split(
    data: bytes, sizes: list[int], searched: str
) -> None:
    """Only the end of what was searched is searched again, which makes a difference to the time alone."""

    def read(pieces: list[bytes]) -> list[object]:
        reader = MessageReader(None if searched == "r" else lambda: "POST", joined_late=searched != "c")
        if searched == "c":
            reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n")
            reader.gap(20)
        return [part for piece in pieces for part in reader.feed(piece) if not isinstance(part, bytes)]

    pieces, start = list[bytes](), 0
    while start < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[start : start + size])
        start += size
    assert read(pieces) == read([data])


def test_fragments_of_headers_that_never_end_take_no_memory() -> None:
    reader = StreamReader()
    reader.feed(b"\0\0\0\x01\0\0\0\0\x01")
    empty = b"\0\0\0\x09\0\0\0\0\x01" * 1000
    tracemalloc.start()
    try:
        for _ in range(100):
            reader.feed(empty)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 64 * 1024


def test_a_small_body_takes_no_more_memory_in_tiny_pieces() -> None:
    body = JsonBody({"model": VALUE})
    document = b'{"model":"m","text":"' + b"\xc3\xa9" * 32_000
    tracemalloc.start()
    try:
        for start in range(0, len(document), 2):
            body.feed(document[start : start + 2])
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 128 * 1024
    body.feed(b'"}')
    assert body.finish() == {"model": "m"}


@pytest.mark.parametrize(
    "header",
    ["sec-websocket-protocol", "ocp-apim-subscription-key", "cf-aig-authorization", "x-portkey-api-key"],
)
def test_a_credential_is_not_handed_on_though_it_is_asked_for(header: str) -> None:
    rules = ReadingRules(keep_headers=frozenset({header, "x-team"}))
    asked = wire.request(
        "api.openai.com",
        "/v1/chat/completions",
        wire.chat_request(),
        headers={header: "openai-insecure-api-key.sk-secret-1", "x-team": "blue"},
    )
    [outcome] = wire.read(asked, wire.response(wire.chat_completion()), rules=rules)
    assert isinstance(outcome, Recognised)
    assert header in CREDENTIAL_HEADERS
    assert outcome.headers == {"x-team": "blue"}
    assert "sk-secret" not in repr(outcome)


@pytest.mark.parametrize("framing", ["close", "chunked"])
@pytest.mark.parametrize("seen", [1, 2, 3])
def test_running_counts_of_a_stream_that_just_stops_are_not_exact(framing: str, seen: int) -> None:
    chunks = wire.chat_chunks(("a", "b", "c"))
    running = [{**chunk, "usage": wire.chat_usage(30, count)} for count, chunk in enumerate(chunks, 1)]
    asked = wire.request("api.openai.com", "/v1/chat/completions", wire.chat_request(stream=True))

    def usage(events: list[dict[str, object]]) -> Usage:
        body = wire.sse(events, done=len(events) == len(running))
        answer = wire.response(body, content_type="text/event-stream", framing=framing)
        return wire.the_call(wire.read(asked, answer, close=True)).usage

    assert usage(running[:seen]).quality != Quality.QUALITY_EXACT
    whole = usage(running)
    assert (whole.quality, whole.tokens["output"]) == (Quality.QUALITY_EXACT, 4)


def test_long_paths_are_not_remembered() -> None:
    tracemalloc.start()
    try:
        for number in range(200):
            assert not paths.match("GET", "example.com", f"/{number}" + "a" * 50_000, {}).dialect
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1024 * 1024
