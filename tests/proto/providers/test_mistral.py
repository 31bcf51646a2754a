"""Mistral: pages, sound, characters, conversations, and jobs that cost nothing to look at."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto import wire
from tests.proto.providers import asking

from mmproto.v1.usage_pb2 import Quality

E, P, U = Quality.QUALITY_EXACT, Quality.QUALITY_PARTIAL, Quality.QUALITY_UNKNOWN
HOST = "api.mistral.ai"


@pytest.mark.parametrize(
    ("asked", "unit"),
    [
        ({}, "pages"),
        ({"bbox_annotation_format": None}, "pages"),
        ({"bbox_annotation_format": {"type": "json_schema"}}, "annotated_pages"),
        ({"document_annotation_format": {"type": "json_schema"}}, "annotated_pages"),
    ],
)
def test_pages(asked: dict[str, Any], unit: str) -> None:
    request = {"model": "ocr-test", "document": {"type": "document_url", "document_url": "secret"}, **asked}
    answer = {
        "pages": [{}, {}],
        "model": "ocr-test",
        "usage_info": {"pages_processed": 2, "doc_size_bytes": 9},
    }
    call = asking.call(HOST, "/v1/ocr", request, answer)
    assert (call.operation, *asking.counted(call), call.usage.quality) == ("ocr", {}, {unit: 2.0}, E)
    assert (call.request_model, call.response_model) == ("ocr-test", "")
    assert asking.call(HOST, "/v1/ocr", request, {**answer, "model": "ocr-9"}).response_model == "ocr-9"


SOUND = {
    "prompt_audio_seconds": 3,
    "prompt_tokens": 5,
    "completion_tokens": 11,
    "total_tokens": 391,
    "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 375},
    "service_tier": "standard",
}
HEARD = {"input": 5, "input_audio": 375, "input_cache_read": 0, "output": 11}


def test_a_transcript() -> None:
    answer = {"model": "voxtral-test", "text": "secret", "usage": SOUND, "segments": []}
    call = asking.call(HOST, "/v1/audio/transcriptions", {"model": "voxtral-test"}, answer)
    assert (call.operation, call.response_model) == ("transcription", "voxtral-test")
    assert (*asking.counted(call), call.usage.quality) == (HEARD, {"audio_seconds": 3.0}, E)


def test_a_transcript_as_it_comes() -> None:
    events = [
        {"type": "transcription.language", "audio_language": "en"},
        {"type": "transcription.text.delta", "text": "secret"},
        {"type": "transcription.done", "model": "voxtral-test", "text": "secret", "usage": SOUND},
    ]
    body = wire.sse(events, names=True)
    call = asking.call(HOST, "/v1/audio/transcriptions", {"model": "voxtral-test"}, body, kind=asking.SSE)
    assert (*asking.counted(call), call.error_type) == (HEARD, {"audio_seconds": 3.0}, "")
    cut = wire.sse(events[:2], names=True)
    call = asking.call(HOST, "/v1/audio/transcriptions", {"model": "m"}, cut, kind=asking.SSE, cut=True)
    assert (call.usage.quality, call.error_type) == (U, "stream_incomplete")


@pytest.mark.parametrize(("header", "units"), [("64", {"characters": 64.0}), (None, {}), ("x", {})])
def test_characters_are_counted_by_a_header(header: str | None, units: dict[str, float]) -> None:
    headers = {"x-ratelimit-input-characters-query-cost": header} if header else {}
    request = {"model": "tts-test", "input": "secret"}
    call = asking.call(HOST, "/v1/audio/speech", request, {"audio_data": "c2VjcmV0"}, headers=headers)
    assert (call.operation, *asking.counted(call)) == ("speech", {}, units)
    assert call.usage.quality == (E if units else U)


def test_an_agent_answers_like_a_chat() -> None:
    call = asking.call(
        HOST, "/v1/agents/completions", {"agent_id": "a", "messages": []}, wire.chat_completion()
    )
    assert (call.operation, dict(call.usage.tokens)) == ("chat", {"input": 30, "output": 12})


CONVERSATION = {
    "object": "conversation.response",
    "conversation_id": "conv_0198aabbccddeeff0011",
    "outputs": [{"type": "tool.execution"}, {"type": "message.output", "model": "medium-test"}],
    "usage": {
        "prompt_tokens": 30,
        "completion_tokens": 12,
        "connector_tokens": 100,
        "total_tokens": 142,
        "connectors": {"web_search": 2},
    },
}


@pytest.mark.parametrize("path", ["", "/conv_1", "/conv_1/restart"])
def test_a_conversation(path: str) -> None:
    request = {"model": "medium-test", "inputs": "secret"}
    call = asking.call(HOST, f"/v1/conversations{path}", request, CONVERSATION)
    assert (call.operation, call.response_model, call.response_id) == (
        "chat",
        "medium-test",
        "conv_0198aabbccddeeff0011",
    )
    assert (*asking.counted(call), call.usage.quality) == (
        {"input": 130, "output": 12},
        {"web_searches": 2.0},
        E,
    )


def test_a_conversation_as_it_comes() -> None:
    events = [
        {"type": "conversation.response.started", "conversation_id": "conv_0198aabbccddeeff0011"},
        {"type": "message.output.delta", "content": "secret"},
        {"type": "conversation.response.done", "usage": CONVERSATION["usage"]},
    ]
    body = wire.sse(events, names=True)
    request = {"model": "m", "inputs": "secret", "stream": True}
    call = asking.call(HOST, "/v1/conversations#stream", request, body, kind=asking.SSE)
    assert (dict(call.usage.tokens), call.streaming) == ({"input": 130, "output": 12}, True)


@pytest.mark.parametrize("path", ["moderations", "chat/moderations", "classifications"])
def test_moderation_is_billed_by_what_nobody_counts(path: str) -> None:
    answer = {"id": "mod-0198aabbccddeeff0011", "model": "moderation-test", "results": []}
    call = asking.call(HOST, f"/v1/{path}", {"model": "moderation-test", "input": ["secret"]}, answer)
    assert (call.operation, call.usage.quality, call.billable) == ("moderation", U, True)


JOBS = [
    ("POST", "/v1/batch/jobs", "preparation"),
    ("GET", "/v1/batch/jobs", "retrieval"),
    ("GET", "/v1/batch/jobs/ca1cd668?inline=true", "retrieval"),
    ("POST", "/v1/batch/jobs/ca1cd668/cancel", "retrieval"),
]


@pytest.mark.parametrize(("method", "path", "why"), JOBS)
def test_jobs(method: str, path: str, why: str) -> None:
    answer = {"id": "ca1cd668", "object": "batch", "model": "m", "outputs": [{"response": {"body": {}}}]}
    request = {"model": "m", "requests": []} if method == "POST" else None
    assert asking.reason(HOST, path, request, answer, method=method) == why


def test_an_error() -> None:
    call = asking.call(
        HOST, "/v1/ocr", {"model": "m", "document": {}}, {"detail": "Unauthorized"}, status=401
    )
    assert (call.error_type, call.billable) == ("401", False)
