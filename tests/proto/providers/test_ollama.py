"""Ollama: lines and documents, counts that old servers leave out, loading, errors, and namesakes."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto import wire
from tests.proto.providers import asking

from mmproto.v1.usage_pb2 import Quality

E, P, U = Quality.QUALITY_EXACT, Quality.QUALITY_PARTIAL, Quality.QUALITY_UNKNOWN
HOST = "localhost:11434"
BASE = {"model": "llama-test", "created_at": "2026-01-01T00:00:00Z"}


def last(**counts: Any) -> dict[str, Any]:
    return {**BASE, "done": True, "done_reason": "stop", "total_duration": 1, **counts}


COUNTS = [
    ({"prompt_eval_count": 17, "eval_count": 63}, {"input": 17, "output": 63}, E),
    (
        {"prompt_eval_count": 17, "prompt_eval_cached_count": 12, "eval_count": 63},
        {"input": 5, "input_cache_read": 12, "output": 63},
        E,
    ),
    ({"eval_count": 63}, {"output": 63}, P),
    ({"prompt_eval_count": 17}, {"input": 17}, P),
    ({"prompt_eval_count": -1, "eval_count": 3}, {"output": 3}, P),
    ({}, {}, U),
]


@pytest.mark.parametrize(("counts", "expected"), [(counts, tuple(rest)) for counts, *rest in COUNTS])
@pytest.mark.parametrize(("path", "operation"), [("/api/chat", "chat"), ("/api/generate", "text_completion")])
@pytest.mark.parametrize("streaming", [True, False])
def test_counts(path: str, operation: str, streaming: bool, counts: Any, expected: Any) -> None:
    request = {"model": "llama-test", "prompt": "secret"} | ({} if streaming else {"stream": False})
    line = {**BASE, "response": "secret", "done": False}
    body = asking.lines([line, line, last(**counts)]) if streaming else wire.dump(last(**counts))
    kind = asking.NDJSON if streaming else "application/json; charset=utf-8"
    call = asking.call(HOST, path, request, body, kind=kind)
    assert (call.provider, call.operation, call.streaming) == ("ollama", operation, streaming)
    assert (dict(call.usage.tokens), call.usage.quality) == expected
    assert (call.response_model, list(call.finish_reasons), call.error_type) == ("llama-test", ["stop"], "")


def test_a_stream_of_one_line_is_a_stream() -> None:
    body = asking.lines([last(prompt_eval_count=1, eval_count=0)])
    call = asking.call(HOST, "/api/generate", {"model": "m", "prompt": "x"}, body, kind=asking.NDJSON)
    assert (call.streaming, dict(call.usage.tokens)) == (True, {"input": 1, "output": 0})


def test_a_stream_cut_off() -> None:
    body = asking.lines([{**BASE, "response": "secret", "done": False}] * 3)
    call = asking.call(
        HOST, "/api/generate", {"model": "m", "prompt": "x"}, body, kind=asking.NDJSON, cut=True
    )
    assert (call.usage.quality, call.error_type, call.billable) == (U, "stream_incomplete", True)


def test_an_error_in_a_stream() -> None:
    body = asking.lines([{**BASE, "response": "x", "done": False}, {"error": "an error was encountered"}])
    call = asking.call(HOST, "/api/chat", wire.chat_request(), body, kind=asking.NDJSON)
    assert (call.error_type, call.billable) == ("200", False)


def test_an_error() -> None:
    call = asking.call(HOST, "/api/chat", wire.chat_request(stream=False), {"error": "not found"}, status=404)
    assert (call.error_type, call.billable, call.streaming) == ("404", False, False)


@pytest.mark.parametrize("why", ["load", "unload"])
def test_loading_a_model_generates_nothing(why: str) -> None:
    answer = {**last(), "done_reason": why}
    assert asking.reason(HOST, "/api/generate", {"model": "m", "keep_alive": 0}, answer) == "preparation"


EMBEDDINGS = [
    ("/api/embed", {"model": "e", "embeddings": [[0.1]], "prompt_eval_count": 12}, {"input": 12}, E),
    ("/api/embeddings", {"embedding": [0.1]}, {}, U),
]


@pytest.mark.parametrize(("path", "answer", "tokens", "quality"), EMBEDDINGS)
def test_embeddings(path: str, answer: Any, tokens: dict[str, int], quality: int) -> None:
    call = asking.call(HOST, path, {"model": "e", "input": "secret"}, answer)
    assert (call.operation, call.streaming, call.request_model) == ("embeddings", False, "e")
    assert (dict(call.usage.tokens), call.usage.quality) == (tokens, quality)


def test_many_applications_have_such_a_path() -> None:
    body = wire.sse([{"type": "text-delta", "delta": "x"}])
    assert asking.reason("app.example", "/api/chat", wire.chat_request(), body, kind=asking.SSE) == "not_llm"
    answer = last(prompt_eval_count=2, eval_count=3)
    call = asking.call("models.internal", "/api/chat", wire.chat_request(stream=False), answer)
    assert (call.provider, dict(call.usage.tokens)) == ("ollama", {"input": 2, "output": 3})
