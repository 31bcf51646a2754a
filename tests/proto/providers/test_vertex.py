"""Vertex AI's `:predict` and the models of other companies there."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto import wire
from tests.proto.providers.reported import E, P, U, reported

from mmproto.exchange import Dropped
from mmproto.outcome import Outcome

HOST = "europe-west4-aiplatform.googleapis.com"
PUBLISHERS = "/v1/projects/p/locations/l/publishers"


def exchange(path: str, document: Any, answer: Any) -> list[Outcome]:
    body = answer if isinstance(answer, bytes) else wire.response(answer)
    return wire.read(wire.request(HOST, path, document), body, close=True)


def embedding(count: Any) -> dict[str, Any]:
    return {"embeddings": {"statistics": {"token_count": count, "truncated": False}, "values": [0.5]}}


PREDICTIONS: list[tuple[str, str, str, Any, dict[str, int], dict[str, float], int]] = [
    (
        "embeddings",
        "google/models/text-embedding-9:predict",
        "embeddings",
        {"predictions": [embedding(10), embedding(4.0)]},
        {"input": 14},
        {},
        E,
    ),
    (
        "embeddings without statistics",
        "google/models/textembedding-gecko@001:predict",
        "embeddings",
        {"predictions": [embedding(10), {"embeddings": {"values": []}}]},
        {"input": 10},
        {},
        P,
    ),
    (
        "images",
        "google/models/imagen-9:predict",
        "image_generation",
        {"predictions": [{"bytesBase64Encoded": "c2VjcmV0", "mimeType": "image/png"}] * 3},
        {},
        {"images": 3.0},
        E,
    ),
    (
        "images that a filter held back",
        "google/models/imagen-9:predict",
        "image_generation",
        {"predictions": [{"raiFilteredReason": "r"}]},
        {},
        {},
        U,
    ),
    (
        "text of the first generation",
        "google/models/text-bison@002:predict",
        "text_completion",
        {
            "predictions": [{"content": "secret"}],
            "metadata": {
                "tokenMetadata": {
                    "inputTokenCount": {"totalTokens": 5},
                    "outputTokenCount": {"totalTokens": 9},
                }
            },
        },
        {"input": 5, "output": 9},
        {},
        E,
    ),
    (
        "a video that is begun",
        "google/models/veo-9:predictLongRunning",
        "video_generation",
        {"name": "operations/x"},
        {},
        {},
        U,
    ),
]


@pytest.mark.parametrize(
    ("path", "operation", "answer", "expected"),
    [(*p[1:4], p[4:]) for p in PREDICTIONS],
    ids=[p[0] for p in PREDICTIONS],
)
def test_predictions(path: str, operation: str, answer: Any, expected: tuple[Any, ...]) -> None:
    outcomes = exchange(f"{PUBLISHERS}/{path}", {"instances": [{"content": "secret"}]}, answer)
    call = wire.the_call(outcomes)
    assert (call.operation, call.billable, call.provider) == (operation, True, "gcp.vertex_ai")
    assert (dict(call.usage.tokens), dict(call.usage.units), reported(call)[1]) == expected


def test_an_endpoint_of_the_users_own_is_a_call_where_it_takes_text() -> None:
    path = "/v1/projects/p/locations/l/endpoints/77:predict"
    call = wire.the_call(exchange(path, {"instances": [{"prompt": "secret"}]}, {"predictions": ["secret"]}))
    assert (call.request_model, call.billable, reported(call)[1]) == ("77", True, U)
    [outcome] = exchange(path, {"instances": [{"age": 7, "income": 9}]}, {"predictions": [0.5]})
    assert outcome == Dropped("not_llm")


def test_claude() -> None:
    path = f"{PUBLISHERS}/anthropic/models/claude-test@20260101:rawPredict"
    asked = {"anthropic_version": "vertex-2023-10-16", "messages": []}
    call = wire.the_call(exchange(path, asked, wire.message()))
    assert (call.provider, call.request_model) == ("gcp.vertex_ai", "claude-test@20260101")
    assert (call.response_model, dict(call.usage.tokens)) == ("claude-test-1", {"input": 21, "output": 34})


def test_a_stream_of_claude() -> None:
    path = f"{PUBLISHERS}/anthropic/models/claude-test@20260101:streamRawPredict"
    body = wire.response(
        wire.sse(wire.message_events(), names=True), content_type="text/event-stream", framing="chunked"
    )
    call = wire.the_call(exchange(path, {"messages": [], "stream": True}, body))
    assert (call.streaming, dict(call.usage.tokens), reported(call)[1]) == (
        True,
        {"input": 21, "output": 34},
        E,
    )


def test_counting_claudes_tokens_costs_nothing() -> None:
    path = f"{PUBLISHERS}/anthropic/models/count-tokens:rawPredict"
    [outcome] = exchange(path, {"model": "claude-test", "messages": []}, {"input_tokens": 9})
    assert isinstance(outcome, Dropped)
    assert (outcome.reason, outcome.call and outcome.call.request_model) == ("token_counting", "claude-test")


@pytest.mark.parametrize(
    "path",
    [
        f"{PUBLISHERS}/mistralai/models/mistral-test@001:rawPredict",
        "/v1/projects/p/locations/l/endpoints/openapi/chat/completions",
        "/v1/projects/p/locations/l/endpoints/9/chat/completions",
    ],
)
def test_other_companies_speak_openais_dialect(path: str) -> None:
    call = wire.the_call(exchange(path, wire.chat_request(), wire.chat_completion()))
    assert (call.provider, call.operation) == ("gcp.vertex_ai", "chat")
    assert dict(call.usage.tokens) == {"input": 30, "output": 12}


def test_an_error_in_an_array() -> None:
    error = [{"error": {"code": 403, "message": "m", "status": "PERMISSION_DENIED"}}]
    body = wire.response(error, status=403)
    call = wire.the_call(exchange(f"{PUBLISHERS}/google/models/text-embedding-9:predict", {}, body))
    assert (call.error_type, call.billable, call.streaming) == ("PERMISSION_DENIED", False, False)
