"""Gemini's answers and streams: buckets out of `usageMetadata`, both framings of a stream, errors, tiers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proto import wire
from tests.proto.providers.reported import E, P, U, reported

from mmproto import usage as totals
from mmproto.exchange import Recognised
from mmproto.providers.dialects.google.usage import RunningUsage
from mmproto.providers.facts import Facts

STUDIO = "generativelanguage.googleapis.com"
VERTEX = "us-central1-aiplatform.googleapis.com"
ID = "xY3kTeStOnLy7890-_aB12"
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "secret prompt"}]}]}


def details(**counts: int) -> list[dict[str, Any]]:
    return [{"modality": modality, "tokenCount": count} for modality, count in counts.items()]


def answer(usage: Any = None, finish: Any = "STOP", **fields: Any) -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [{"text": "secret answer"}]}, "index": 0}
    if finish is not None:
        candidate["finishReason"] = finish
    document = {"candidates": [candidate], "modelVersion": "gemini-test-001", "responseId": ID, **fields}
    return document if usage is None else {**document, "usageMetadata": usage}


def ask(
    body: bytes, method: str = "generateContent", *, host: str = STUDIO, request: Any = None, **headers: str
) -> Recognised:
    path = f"/v1beta/models/gemini-test:{method}"
    sent = wire.request(host, path, request or CONTENTS, headers=headers)
    [outcome] = wire.read(sent, body, close=True)
    assert isinstance(outcome, Recognised), outcome
    return outcome


USAGES: list[tuple[str, dict[str, Any], dict[str, int], int, tuple[str, ...]]] = [
    (
        "plain",
        {"promptTokenCount": 10, "candidatesTokenCount": 4, "totalTokenCount": 14},
        {"input": 10, "output": 4},
        E,
        (),
    ),
    (
        "thoughts beside candidates, tool use beside prompt",
        {
            "promptTokenCount": 10,
            "candidatesTokenCount": 4,
            "thoughtsTokenCount": 30,
            "toolUsePromptTokenCount": 50,
            "totalTokenCount": 94,
        },
        {"input": 60, "output": 4, "output_reasoning": 30},
        E,
        (),
    ),
    (
        "cached inside prompt, by modality",
        {
            "promptTokenCount": 1000,
            "cachedContentTokenCount": 700,
            "candidatesTokenCount": 4,
            "totalTokenCount": 1004,
            "promptTokensDetails": details(TEXT=100, AUDIO=600, VIDEO=200, IMAGE=40, DOCUMENT=60),
            "cacheTokensDetails": details(AUDIO=500, VIDEO=150, TEXT=50),
        },
        {
            "input": 110,
            "input_cache_read": 200,
            "input_audio_cache_read": 500,
            "input_audio": 100,
            "input_image": 40,
            "input_video": 50,
            "output": 4,
        },
        E,
        (),
    ),
    (
        "cached without details is text first",
        {
            "promptTokenCount": 100,
            "cachedContentTokenCount": 70,
            "candidatesTokenCount": 4,
            "totalTokenCount": 104,
            "promptTokensDetails": details(TEXT=40, AUDIO=40, IMAGE=20),
        },
        {
            "input": 0,
            "input_cache_read": 60,
            "input_audio_cache_read": 10,
            "input_audio": 30,
            "input_image": 0,
            "input_video": 0,
            "output": 4,
        },
        E,
        (),
    ),
    (
        "modalities as numbers, and generated ones",
        {
            "promptTokenCount": 100,
            "candidatesTokenCount": 1300,
            "totalTokenCount": 1400,
            "promptTokensDetails": [{"modality": 4, "tokenCount": 90}, {"modality": 1, "tokenCount": 10}],
            "candidatesTokensDetails": [{"modality": 2, "tokenCount": 1290}],
        },
        {"input": 10, "input_audio": 90, "output": 10, "output_image": 1290},
        E,
        (),
    ),
    ("nothing generated", {"promptTokenCount": 9, "totalTokenCount": 9}, {"input": 9, "output": 0}, E, ()),
    (
        "a prompt that only the total tells",
        {"candidatesTokenCount": 4, "totalTokenCount": 14},
        {"input": 10, "output": 4},
        E,
        (),
    ),
    (
        "a prompt that nothing tells",
        {"candidatesTokenCount": 4, "thoughtsTokenCount": 5},
        {"output": 4, "output_reasoning": 5},
        P,
        (),
    ),
    ("an answer that nothing tells", {"promptTokenCount": 10}, {"input": 10}, P, ()),
    (
        "a total above its parts is output",
        {"promptTokenCount": 10, "candidatesTokenCount": 4, "totalTokenCount": 50},
        {"input": 10, "output": 40},
        P,
        ("contradictory_counts",),
    ),
    (
        "a total below its parts",
        {"promptTokenCount": 10, "candidatesTokenCount": 4, "totalTokenCount": 3},
        {"input": 10, "output": 4},
        P,
        ("contradictory_counts",),
    ),
    (
        "cached above the prompt",
        {
            "promptTokenCount": 10,
            "cachedContentTokenCount": 90,
            "candidatesTokenCount": 4,
            "totalTokenCount": 14,
        },
        {"input": 0, "input_cache_read": 10, "output": 4},
        P,
        ("contradictory_counts",),
    ),
    (
        "negative",
        {"promptTokenCount": -3, "candidatesTokenCount": 4},
        {"output": 4},
        P,
        ("bad_count",),
    ),
    ("traffic alone", {"trafficType": "ON_DEMAND"}, {}, U, ()),
]


@pytest.mark.parametrize(
    ("usage", "buckets", "quality", "anomalies"), [u[1:] for u in USAGES], ids=[u[0] for u in USAGES]
)
def test_usage(
    usage: dict[str, Any], buckets: dict[str, int], quality: int, anomalies: tuple[str, ...]
) -> None:
    outcome = ask(wire.response(answer(usage)))
    tokens, found = reported(outcome.call)
    tokens = {name: count for name, count in tokens.items() if count or name in buckets}
    buckets = {name: count for name, count in buckets.items() if count or name in tokens}
    assert (tokens, found, outcome.anomalies) == (buckets, quality, anomalies)


COUNTS = st.one_of(st.none(), st.integers(-2, 50), st.just(10**11), st.just("7"), st.just(2.5))
MODAL = st.lists(
    st.fixed_dictionaries(
        {"modality": st.sampled_from(["TEXT", "AUDIO", "VIDEO", "IMAGE", 2, 4, None]), "tokenCount": COUNTS}
    ),
    max_size=4,
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                **{
                    f"{name}TokenCount": COUNTS
                    for name in ("prompt", "candidates", "thoughts", "toolUsePrompt", "total")
                },
                "cachedContentTokenCount": COUNTS,
                "promptTokensDetails": MODAL,
                "cacheTokensDetails": MODAL,
                "candidatesTokensDetails": MODAL,
                "toolUsePromptTokensDetails": MODAL,
            },
        ),
        max_size=4,
    ),
    st.booleans(),
)
def test_whatever_is_reported_nothing_is_negative_and_exact_means_whole(
    chunks: list[dict[str, Any]], has_output: bool
) -> None:
    running = RunningUsage()
    for chunk in chunks:
        running.take(chunk)
    measured = running.measure(Facts(), finished=True, has_output=has_output)
    assert all(count >= 0 for count in measured.tokens.values())
    if measured.quality == E:
        last = next(c for c in reversed(chunks) if any(v is not None for v in c.values()))
        output = totals.output_tokens(measured.tokens)
        assert totals.input_tokens(measured.tokens) is not None
        assert output is not None or not has_output
        if type(last.get("totalTokenCount")) is int:
            both = (totals.input_tokens(measured.tokens) or 0) + (output or 0)
            assert both == last["totalTokenCount"]


def test_an_answer() -> None:
    call = ask(
        wire.response(answer({"promptTokenCount": 1, "candidatesTokenCount": 2, "serviceTier": "FLEX"}))
    ).call
    assert (call.provider, call.operation) == ("gcp.gemini", "generate_content")
    assert (call.request_model, call.response_model) == ("gemini-test", "gemini-test-001")
    assert (call.response_id, list(call.finish_reasons), call.service_tier) == (ID, ["STOP"], "flex")
    assert (call.streaming, call.billable, call.error_type) == (False, True, "")
    assert b"secret" not in call.SerializeToString()


CHUNKS = [
    answer({"trafficType": "ON_DEMAND"}, None),
    answer({"promptTokenCount": 8, "candidatesTokenCount": 3, "totalTokenCount": 11}, None),
    answer(
        {
            "promptTokenCount": 8,
            "candidatesTokenCount": 20,
            "thoughtsTokenCount": 70,
            "totalTokenCount": 98,
            "trafficType": "PROVISIONED_THROUGHPUT",
        }
    ),
]


def array(chunks: list[Any]) -> bytes:
    return b"[" + b"\n,\r\n".join(json.dumps(chunk, indent=2).encode() for chunk in chunks) + b"\n]"


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize("kind", ["sse", "array"])
def test_a_stream(kind: str, framing: str) -> None:
    body = wire.sse(CHUNKS, end=b"\r\n") if kind == "sse" else array(CHUNKS)
    content_type = "text/event-stream" if kind == "sse" else "application/json; charset=UTF-8"
    call = ask(
        wire.response(body, content_type=content_type, framing=framing), "streamGenerateContent", host=VERTEX
    ).call
    assert dict(call.usage.tokens) == {"input": 8, "output": 20, "output_reasoning": 70}
    assert (reported(call)[1], call.streaming, call.error_type) == (E, True, "")
    assert (call.provider, call.service_tier) == ("gcp.vertex_ai", "provisioned_throughput")


@pytest.mark.parametrize("kind", ["sse", "array"])
def test_a_stream_cut_off_has_what_it_told_of_and_is_not_exact(kind: str) -> None:
    body = wire.sse(CHUNKS[:2]) if kind == "sse" else array(CHUNKS[:2])[:-2]
    content_type = "text/event-stream" if kind == "sse" else "application/json"
    call = ask(wire.response(body, content_type=content_type, framing="close"), "streamGenerateContent").call
    assert reported(call) == ({"input": 8, "output": 3}, P)
    assert (call.streaming, call.billable, call.error_type) == (True, True, "stream_incomplete")


@pytest.mark.parametrize("lost", range(1, 400, 7))
def test_wherever_a_stream_is_cut_off_the_last_whole_chunk_counts(lost: int) -> None:
    chunks = [
        answer({"promptTokenCount": 8, "candidatesTokenCount": n * 10, "totalTokenCount": 8 + n * 10}, None)
        for n in range(1, 5)
    ]
    body = wire.sse(chunks)
    whole = body[:-lost].count(b"\n\n")
    # All but the blank line of an event is the whole event.
    whole += body[:-lost].rpartition(b"\n\n")[2].rstrip().endswith(b'"totalTokenCount":48}}')
    received = wire.response(body[:-lost], content_type="text/event-stream", framing="close")
    call = ask(received, "streamGenerateContent").call
    tokens, quality = reported(call)
    assert call.usage.tokens["output"] == whole * 10 if whole else not tokens
    assert quality != E


def test_a_count_that_the_last_chunk_drops_is_kept_and_flagged() -> None:
    chunks = [
        answer({"promptTokenCount": 8, "candidatesTokenCount": 21, "totalTokenCount": 29}, None),
        answer({"promptTokenCount": 8, "totalTokenCount": 8}),
    ]
    body = wire.response(wire.sse(chunks), content_type="text/event-stream", framing="chunked")
    outcome = ask(body, "streamGenerateContent")
    assert reported(outcome.call) == ({"input": 8, "output": 21}, P)
    assert outcome.anomalies == ("contradictory_counts",)


ERROR = {"error": {"code": 429, "message": "secret", "status": "RESOURCE_EXHAUSTED"}}


@pytest.mark.parametrize("method", ["generateContent", "streamGenerateContent"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_an_error(method: str, wrapped: bool) -> None:
    call = ask(wire.response([ERROR] if wrapped else ERROR, status=429), method).call
    assert (call.error_type, call.billable, call.http_status) == ("RESOURCE_EXHAUSTED", False, 429)
    assert (call.streaming, reported(call)[1]) == (method.startswith("stream"), U)


def test_an_error_in_the_middle_of_a_stream() -> None:
    body = wire.response(wire.sse([*CHUNKS[:1], ERROR]), content_type="text/event-stream", framing="chunked")
    call = ask(body, "streamGenerateContent").call
    assert (call.error_type, call.billable, call.http_status) == ("RESOURCE_EXHAUSTED", False, 200)


def test_a_prompt_that_was_blocked_is_paid_for_without_an_answer() -> None:
    document = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 12}}
    call = ask(wire.response(document)).call
    assert reported(call) == ({"input": 12, "output": 0}, E)
    assert (list(call.finish_reasons), call.billable) == (["SAFETY"], True)


@pytest.mark.parametrize(("number", "name"), [(1, "STOP"), (2, "MAX_TOKENS"), (9, "9"), (0, None)])
def test_enums_as_numbers(number: int, name: str | None) -> None:
    call = ask(wire.response(answer({"promptTokenCount": 1, "totalTokenCount": 1}, number))).call
    assert list(call.finish_reasons) == ([name] if name else [])


@pytest.mark.parametrize(("model", "searches"), [("gemini-2.5-flash", 1.0), ("gemini-3-pro", 2.0)])
def test_searches_are_paid_for_by_prompt_or_by_query(model: str, searches: float) -> None:
    document = answer({"promptTokenCount": 1, "totalTokenCount": 1}, modelVersion=model)
    document["candidates"][0]["groundingMetadata"] = {"webSearchQueries": ["", "secret a", "secret b"]}
    body = wire.response(wire.sse([document] * 2), content_type="text/event-stream", framing="chunked")
    call = ask(body, "streamGenerateContent").call
    assert dict(call.usage.units) == {"web_searches": searches}


def test_code_assist_puts_everything_one_level_deeper() -> None:
    request = {"model": "gemini-test-pro", "project": "p", "request": {**CONTENTS, "session_id": "s-1"}}
    inner = answer({"promptTokenCount": 8, "candidatesTokenCount": 3, "totalTokenCount": 11})
    body = wire.response(
        wire.sse([{"response": inner, "traceId": "t"}]), content_type="text/event-stream", framing="chunked"
    )
    sent = wire.request("cloudcode-pa.googleapis.com", "/v1internal:streamGenerateContent?alt=sse", request)
    call = wire.the_call(wire.read(sent, body, close=True))
    assert (call.provider, call.request_model, call.origin.session) == (
        "gcp.gemini",
        "gemini-test-pro",
        "s-1",
    )
    assert (dict(call.usage.tokens), call.service_tier) == ({"input": 8, "output": 3}, "subscription")


@pytest.mark.parametrize(
    ("host", "path", "model"),
    [
        (STUDIO, "/v1/models/m-1:generateContent?key=k", "m-1"),
        (STUDIO, "/v1beta/tunedModels/mine-7:generateContent", "mine-7"),
        ("aiplatform.googleapis.com", "/v1/publishers/google/models/m-1:generateContent", "m-1"),
        (VERTEX, "/v1/projects/p/locations/l/endpoints/123:generateContent", "123"),
        ("gateway.internal", "/google/v1beta/models/m%2D1:generateContent", "m-1"),
    ],
)
def test_the_model_is_in_the_path(host: str, path: str, model: str) -> None:
    body = wire.response(answer({"promptTokenCount": 8, "totalTokenCount": 8}))
    call = wire.the_call(wire.read(wire.request(host, path, {**CONTENTS, "model": "models/other"}), body))
    assert call.request_model == model


def test_an_unknown_host_must_look_like_gemini() -> None:
    sent = wire.request("other.example", "/v1/models/m:generateContent", {"a": 1})
    [outcome] = wire.read(sent, wire.response({"b": 2}), close=True)
    assert not isinstance(outcome, Recognised)


def test_the_tier_that_was_asked_for_stands_until_another_is_told() -> None:
    call = ask(wire.response(answer()), request={**CONTENTS, "serviceTier": "PRIORITY"}).call
    assert call.service_tier == "priority"
    call = ask(wire.response(answer()), host=VERTEX, **{"X-Vertex-AI-LLM-Shared-Request-Type": "flex"}).call
    assert call.service_tier == "flex"
