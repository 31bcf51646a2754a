"""Cohere: what is billed against what was seen, both versions, streams, and what generates nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto import wire
from tests.proto.providers import asking

from mmproto.v1.usage_pb2 import Quality

E, P, U = Quality.QUALITY_EXACT, Quality.QUALITY_PARTIAL, Quality.QUALITY_UNKNOWN
HOST = "api.cohere.com"
ID = "7f00aa11-0000-4444-8888-0123456789ab"


def units(fresh: int, out: int) -> dict[str, int]:
    return {"input_tokens": fresh, "output_tokens": out}


USAGES: list[tuple[str, dict[str, Any], dict[str, int], int]] = [
    (
        "billed, not seen",
        {"billed_units": units(8, 30), "tokens": units(503, 31)},
        {"input": 8, "output": 30},
        E,
    ),
    (
        "cached tokens that fit",
        {"billed_units": units(100, 9), "tokens": units(150, 9), "cached_tokens": 48},
        {"input": 52, "input_cache_read": 48, "output": 9},
        E,
    ),
    (
        "more cached than billed",
        {"billed_units": units(100, 9), "tokens": units(150, 9), "cached_tokens": 149},
        {"input": 0, "input_cache_read": 100, "output": 9},
        P,
    ),
    (
        "reasoning",
        {"billed_units": units(5, 90), "tokens": {**units(60, 95), "reasoning_tokens": 40}},
        {"input": 5, "output": 50, "output_reasoning": 40},
        E,
    ),
    ("nothing billed by name", {"tokens": units(60, 95)}, {"input": 60, "output": 95}, E),
    ("nothing billed", {"billed_units": units(0, 0), "tokens": units(60, 95)}, {"input": 0, "output": 0}, E),
    ("half", {"billed_units": {"input_tokens": 5}}, {"input": 5}, P),
    ("nonsense", {"billed_units": units(-5, 6)}, {"output": 6}, P),
    ("nothing", {}, {}, U),
]


@pytest.mark.parametrize(("usage", "tokens", "quality"), [u[1:] for u in USAGES], ids=[u[0] for u in USAGES])
@pytest.mark.parametrize("version", [1, 2])
def test_usage(version: int, usage: dict[str, Any], tokens: dict[str, int], quality: int) -> None:
    if version == 2:
        answer = {"id": ID, "message": {"role": "assistant"}, "finish_reason": "COMPLETE", "usage": usage}
    else:
        answer = {"response_id": ID, "text": "secret", "finish_reason": "COMPLETE", "meta": usage}
    call = asking.call(HOST, f"/v{version}/chat", wire.chat_request(model="command-test"), answer)
    assert (dict(call.usage.tokens), call.usage.quality) == (tokens, quality)
    assert (call.provider, call.operation, call.request_model, call.response_model) == (
        "cohere",
        "chat",
        "command-test",
        "",
    )
    assert (call.response_id, list(call.finish_reasons), call.streaming) == (ID, ["COMPLETE"], False)


USAGE = {"billed_units": units(7, 89), "tokens": units(69, 89)}


def second_stream(reason: str = "COMPLETE", **fields: Any) -> list[dict[str, Any]]:
    delta = {"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": "secret"}}}}
    return [
        {"id": ID, "type": "message-start", "delta": {"message": {"role": "assistant"}}},
        *[delta] * 3,
        {"type": "message-end", "delta": {"finish_reason": reason, "usage": USAGE, **fields}},
    ]


def first_stream() -> list[dict[str, Any]]:
    answer = {"response_id": ID, "text": "secret", "meta": USAGE}
    return [
        {"is_finished": False, "event_type": "stream-start", "generation_id": ID},
        *[{"is_finished": False, "event_type": "text-generation", "text": "secret"}] * 3,
        {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE", "response": answer},
    ]


STREAMS = [
    (2, wire.sse(second_stream(), names=True, done=True), asking.SSE),
    (1, asking.lines(first_stream()), "application/stream+json"),
    (1, asking.lines(first_stream()), "application/json"),
]


@pytest.mark.parametrize(("version", "body", "kind"), STREAMS)
def test_streams(version: int, body: bytes, kind: str) -> None:
    call = asking.call(HOST, f"/v{version}/chat", wire.chat_request(stream=True), body, kind=kind)
    assert (dict(call.usage.tokens), call.usage.quality) == ({"input": 7, "output": 89}, E)
    assert (call.streaming, call.error_type, call.response_id) == (True, "", ID)


def test_a_stream_cut_off_counts_nothing_and_is_billed() -> None:
    body = wire.sse(second_stream()[:3], names=True)
    call = asking.call(HOST, "/v2/chat", wire.chat_request(stream=True), body, kind=asking.SSE, cut=True)
    assert (dict(call.usage.tokens), call.usage.quality) == ({}, U)
    assert (call.billable, call.error_type, call.streaming) == (True, "stream_incomplete", True)


@pytest.mark.parametrize("reason", ["ERROR", "ERROR_TOXIC", "TIMEOUT"])
def test_a_stream_that_failed(reason: str) -> None:
    body = wire.sse(second_stream(reason), names=True)
    call = asking.call(HOST, "/v2/chat", wire.chat_request(stream=True), body, kind=asking.SSE)
    assert (call.error_type, dict(call.usage.tokens)) == (reason, {"input": 7, "output": 89})


def test_an_error() -> None:
    answer = {"id": ID, "error_type": "TOO_MANY_TOKENS", "message": "m"}
    call = asking.call(HOST, "/v2/chat", wire.chat_request(), answer, status=400)
    assert (call.error_type, call.billable, call.http_status) == ("TOO_MANY_TOKENS", False, 400)


OTHERS = [
    (
        "/v1/generate",
        {"meta": {"billed_units": units(11, 40)}},
        "text_completion",
        {"input": 11, "output": 40},
        {},
    ),
    (
        "/v1/summarize",
        {"summary": "s", "meta": {"billed_units": units(9, 4)}},
        "text_completion",
        {"input": 9, "output": 4},
        {},
    ),
    (
        "/v2/embed",
        {"embeddings": {}, "meta": {"billed_units": {"input_tokens": 3, "image_tokens": 0}}},
        "embeddings",
        {"input": 3, "input_image": 0},
        {},
    ),
    (
        "/v1/embed",
        {"embeddings": [], "meta": {"billed_units": {"images": 2}}},
        "embeddings",
        {},
        {"images": 2.0},
    ),
    (
        "/v2/rerank",
        {"results": [], "meta": {"billed_units": {"search_units": 3}}},
        "rerank",
        {},
        {"rerank_units": 3.0},
    ),
    (
        "/v1/classify",
        {"classifications": [], "meta": {"billed_units": {"classifications": 2}}},
        "classify",
        {},
        {},
    ),
    ("/v2/audio/transcriptions", {"text": "secret"}, "transcription", {}, {}),
]


@pytest.mark.parametrize(("path", "answer", "operation", "tokens", "counted"), OTHERS)
def test_other_operations(
    path: str, answer: Any, operation: str, tokens: dict[str, int], counted: dict[str, float]
) -> None:
    call = asking.call(HOST, path, {"model": "m", "texts": ["secret"]}, {"id": ID, **answer})
    assert (call.operation, *asking.counted(call)) == (operation, tokens, counted)
    assert call.usage.quality == (E if tokens or counted else U)
    assert call.billable


@pytest.mark.parametrize("path", ["/v1/tokenize", "/v1/detokenize"])
def test_tokens_are_counted_for_nothing(path: str) -> None:
    answer = {"tokens": [1, 2], "meta": {"api_version": {"version": "1"}}}
    assert asking.reason(HOST, path, {"model": "m", "text": "secret"}, answer) == "token_counting"


def test_elsewhere_the_bodies_have_to_show_it() -> None:
    billed = {"meta": {"billed_units": units(3, 4)}}
    assert asking.reason("app.example", "/v2/chat", {"text": "x"}, {"id": "1"}) == "not_llm"
    call = asking.call(
        "gateway.example", "/cohere/v2/chat", wire.chat_request(), {"id": ID, "usage": billed["meta"]}
    )
    assert (call.provider, dict(call.usage.tokens)) == ("cohere", {"input": 3, "output": 4})
    assert asking.reason("app.example", "/v2/embed", {"inputs": ["x"]}, {"url": "x"}) == "not_llm"
