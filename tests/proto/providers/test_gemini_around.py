"""Gemini's other operations: embeddings, interactions, live sessions, batches, caches, token counts."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto import wire
from tests.proto.providers.reported import E, U, reported

from mmproto.exchange import Dropped, Recognised
from mmproto.outcome import Outcome

STUDIO = "generativelanguage.googleapis.com"
VERTEX = "us-central1-aiplatform.googleapis.com"


def exchange(
    path: str, document: Any = None, answer: Any = None, *, host: str = STUDIO, method: str = "POST"
) -> list[Outcome]:
    sent = wire.request(host, path, document, method=method)
    body = answer if isinstance(answer, bytes) else wire.response({} if answer is None else answer)
    return wire.read(sent, body, close=True)


# -- embeddings


@pytest.mark.parametrize(
    ("method", "request_", "answer", "tokens"),
    [
        (
            "embedContent",
            {"content": {"parts": []}, "model": "models/other"},
            {"embedding": {"values": [0.5]}, "usageMetadata": {"promptTokenCount": 7, "totalTokenCount": 7}},
            {"input": 7},
        ),
        (
            "batchEmbedContents",
            {"requests": [{"content": {"parts": []}}]},
            {
                "embeddings": [{"values": [0.5]}],
                "usageMetadata": {
                    "promptTokenCount": 9,
                    "promptTokenDetails": [{"modality": "IMAGE", "tokenCount": 4}],
                },
            },
            {"input": 5, "input_image": 4},
        ),
        (
            "embedContent",
            {"content": {}},
            {"embedding": {}, "usageMetadata": {"totalTokenCount": 7}},
            {"input": 7},
        ),
        ("embedContent", {"content": {}}, {"embedding": {"values": [0.5]}}, {}),
    ],
)
def test_embeddings(method: str, request_: Any, answer: Any, tokens: dict[str, int]) -> None:
    call = wire.the_call(exchange(f"/v1beta/models/embed-1:{method}", request_, answer))
    assert (call.operation, call.request_model, call.billable) == ("embeddings", "embed-1", True)
    assert nonzero(call) == tokens
    assert reported(call)[1] == (E if tokens else U)


# -- interactions


def interaction(**fields: Any) -> dict[str, Any]:
    return {
        "id": "v1_TeStOnLy0123456789abcdef",
        "object": "interaction",
        "status": "completed",
        "model": "gemini-test",
        "service_tier": "standard",
        "usage": {
            "total_tokens": 100,
            "total_input_tokens": 30,
            "input_tokens_by_modality": [
                {"modality": "text", "tokens": 10},
                {"modality": "image", "tokens": 20},
            ],
            "total_cached_tokens": 5,
            "total_output_tokens": 15,
            "total_thought_tokens": 40,
            "total_tool_use_tokens": 15,
        },
        **fields,
    }


BUCKETS = {"input": 20, "input_cache_read": 5, "input_image": 20, "output": 15, "output_reasoning": 40}
ASKED = {"model": "gemini-test", "input": "secret"}


def nonzero(call: Any) -> dict[str, int]:
    return {name: count for name, count in reported(call)[0].items() if count}


def test_an_interaction() -> None:
    call = wire.the_call(exchange("/v1beta/interactions", ASKED, interaction()))
    assert (nonzero(call), reported(call)[1]) == (BUCKETS, E)
    assert (call.request_model, call.response_model, call.service_tier) == (
        "gemini-test",
        "gemini-test",
        "standard",
    )


def events(last: str = "interaction.completed", **fields: Any) -> bytes:
    begun = interaction(status="in_progress", usage=None)
    documents = [
        ("interaction.created", {"interaction": begun}),
        ("step.delta", {"delta": {"text": "secret"}}),
        (last, {"interaction": interaction(**fields)}),
    ]
    blocks = [
        b"event: " + name.encode() + b"\ndata: " + wire.dump({"event_type": name, **document}) + b"\n\n"
        for name, document in documents
    ]
    return b"".join(blocks)


@pytest.mark.parametrize("done", [b"event: done\ndata: [DONE]\n\n", b""])
def test_an_interaction_as_a_stream(done: bytes) -> None:
    body = wire.response(events() + done, content_type="text/event-stream", framing="chunked")
    call = wire.the_call(exchange("/v1beta/interactions", {**ASKED, "stream": True}, body))
    assert (nonzero(call), reported(call)[1], call.streaming, call.error_type) == (BUCKETS, E, True, "")


def test_an_interaction_cut_off_is_paid_for_and_unknown() -> None:
    body = wire.response(events()[:300], content_type="text/event-stream", framing="close")
    call = wire.the_call(exchange("/v1beta/interactions", {**ASKED, "stream": True}, body))
    assert (reported(call)[1], call.billable, call.error_type) == (U, True, "stream_incomplete")


def test_background_work_is_paid_for_where_it_is_found_done() -> None:
    agent = {"model": None, "agent": "deep-research"}
    asked = {"agent": "deep-research", "input": "secret", "background": True}
    pending = interaction(status="in_progress", usage=None, **agent)
    [begun] = exchange("/v1beta/interactions", asked, pending)
    [polled] = exchange("/v1beta/interactions/v1_x", answer=pending, method="GET")
    assert [begun, polled] == [Dropped("response_pending")] * 2
    calls = [
        wire.the_call(exchange("/v1beta/interactions/v1_x", answer=interaction(**agent), method="GET"))
        for _ in range(2)
    ]
    assert nonzero(calls[0]) == BUCKETS
    assert calls[0].id == calls[1].id  # polled twice, charged once


def test_a_get_of_what_was_answered_at_once_repeats_it() -> None:
    [outcome] = exchange("/v1beta/interactions/v1_x", answer=interaction(), method="GET")
    assert outcome == Dropped("retrieval")


# -- live sessions

LIVE = "/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent?key=k"


def live(*messages: Any, path: str = LIVE, host: str = STUDIO) -> list[Outcome]:
    asked, answered = wire.upgrade(host, path)
    setup = wire.websocket({"setup": {"model": "models/gemini-live-1", "tools": []}}, masked=True)
    said = b"".join(wire.websocket(message) for message in messages)
    return wire.read_turns([(asked, answered), (setup, said + wire.websocket_close())], close=True)


SPOKEN = {"serverContent": {"modelTurn": {"parts": [{"inlineData": {"data": "c2VjcmV0"}}]}}}


def turn(prompt: int, response: int) -> dict[str, Any]:
    return {
        "serverContent": {"turnComplete": True},
        "usageMetadata": {
            "promptTokenCount": prompt,
            "responseTokenCount": response,
            "totalTokenCount": prompt + response,
            "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": prompt - 10}],
            "responseTokensDetails": [{"modality": "AUDIO", "tokenCount": response}],
        },
    }


@pytest.mark.parametrize(
    ("host", "path"),
    [
        (STUDIO, LIVE),
        (VERTEX, "/ws/google.cloud.aiplatform.v1beta1.LlmBidiService/BidiGenerateContent"),
    ],
)
def test_each_turn_of_a_live_session_is_a_call(host: str, path: str) -> None:
    messages = [{"setupComplete": {}}, SPOKEN, SPOKEN, turn(30, 20), SPOKEN, turn(90, 5)]
    outcomes = live(*messages, host=host, path=path)
    calls = [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]
    assert [nonzero(call) for call in calls] == [
        {"input": 10, "input_audio": 20, "output_audio": 20},
        {"input": 10, "input_audio": 80, "output_audio": 5},
    ]
    assert {(call.request_model, reported(call)[1], call.billable) for call in calls} == {
        ("gemini-live-1", E, True)
    }
    assert len({call.id for call in calls}) == 2


def test_messages_in_binary_frames_are_json_all_the_same() -> None:
    asked, answered = wire.upgrade(STUDIO, LIVE)
    setup = wire.websocket({"setup": {"model": "models/gemini-live-1"}}, masked=True)
    messages: list[Any] = [{"setupComplete": {}}, SPOKEN, turn(30, 20)]
    said = [wire.websocket(message) for message in messages]
    binary = b"".join(b"\x82" + frame[1:] for frame in said)
    outcomes = wire.read_turns([(asked, answered), (b"\x82" + setup[1:], binary)], close=True)
    [call] = [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]
    assert (call.request_model, call.usage.tokens["output_audio"]) == ("gemini-live-1", 20)


def test_a_turn_that_was_cut_off_is_not_forgotten() -> None:
    outcomes = live({"setupComplete": {}}, SPOKEN, turn(30, 20), SPOKEN)
    calls = [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]
    assert [reported(call)[1] for call in calls] == [E, U]


# -- what costs nothing, or another way


@pytest.mark.parametrize(
    ("method", "path", "reason"),
    [
        ("POST", "/v1beta/models/m:countTokens", "token_counting"),
        ("POST", "/v1/projects/p/locations/l/publishers/google/models/m:computeTokens", "token_counting"),
        ("POST", "/v1beta/models/m:batchGenerateContent", "preparation"),
        ("POST", "/v1beta/models/m:asyncBatchEmbedContent", "preparation"),
        ("POST", "/v1/projects/p/locations/l/batchPredictionJobs", "preparation"),
        ("GET", "/v1beta/batches/abc", "retrieval"),
        ("POST", "/v1beta/batches/abc:cancel", "retrieval"),
        ("GET", "/v1beta/cachedContents/abc", "retrieval"),
        ("PATCH", "/v1beta/cachedContents/abc", "retrieval"),
        ("DELETE", "/v1/projects/p/locations/l/cachedContents/abc", "retrieval"),
    ],
)
def test_what_costs_nothing(method: str, path: str, reason: str) -> None:
    usage = {"usageMetadata": {"totalTokenCount": 5}, "totalTokens": 5}
    [outcome] = exchange(path, {"contents": []} if method == "POST" else None, usage, method=method)
    assert isinstance(outcome, Dropped)
    assert outcome.reason == reason
    assert outcome.call is not None
    assert not outcome.call.billable
    assert not outcome.call.usage.tokens


def test_a_cache_is_paid_for_by_its_time() -> None:
    document = {"name": "cachedContents/x", "model": "models/m", "usageMetadata": {"totalTokenCount": 900}}
    call = wire.the_call(exchange("/v1beta/cachedContents", {"model": "models/m"}, document))
    assert (call.operation, call.request_model, call.billable) == ("cache_storage", "models/m", True)
    assert reported(call)[1] == U


def line(number: int) -> bytes:
    response = {
        "candidates": [{"finishReason": "STOP"}],
        "usageMetadata": {
            "promptTokenCount": number,
            "candidatesTokenCount": 1,
            "totalTokenCount": number + 1,
        },
        "modelVersion": "gemini-test-001",
        "responseId": f"TeStOnLy_abc{number:010d}",
    }
    return wire.dump({"key": f"k{number}", "response": response}) + b"\n"


@pytest.mark.parametrize("count", [1, 3])
def test_the_results_of_a_batch_are_its_calls(count: int) -> None:
    lines = b"".join(line(number) for number in range(10, 10 + count))
    body = wire.response(lines, content_type="application/octet-stream")
    outcomes = exchange("/download/v1beta/files/batch-x:download?alt=media", answer=body, method="GET")
    calls = [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]
    assert [call.usage.tokens["input"] for call in calls] == list(range(10, 10 + count))
    assert {(call.service_tier, call.response_model) for call in calls} == {("batch", "gemini-test-001")}


def test_a_file_that_holds_no_results() -> None:
    body = wire.response(b"\0\0\0 ftypisom", content_type="video/mp4")
    [outcome] = exchange("/v1beta/files/video:download?alt=media", answer=body, method="GET")
    assert outcome == Dropped("retrieval")
