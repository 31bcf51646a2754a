"""OpenAI's dialects: usage into disjoint buckets, streams, errors and the copies' quirks."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto import wire
from tests.proto.providers.reported import reported

from mmproto.exchange import Dropped, Recognised
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import Quality

U, E, P = Quality.QUALITY_UNKNOWN, Quality.QUALITY_EXACT, Quality.QUALITY_PARTIAL
BAD, CONTRADICTORY = ("bad_count",), ("contradictory_counts",)


def usage(prompt: Any, completion: Any, total: Any = None, cached: Any = None, **more: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total}
    details = {"cached_tokens": cached, **more.pop("inside", {})}
    found["prompt_tokens_details"] = {k: v for k, v in details.items() if v is not None} or None
    found["completion_tokens_details"] = more.pop("out", None)
    return {name: value for name, value in {**found, **more}.items() if value is not None}


USAGES: list[tuple[str, str, dict[str, Any], dict[str, int], int, tuple[str, ...]]] = [
    ("plain", "openai", usage(30, 12, 42), {"input": 30, "output": 12}, E, ()),
    ("cached", "openai", usage(30, 12, 42, 10), {"input": 20, "input_cache_read": 10, "output": 12}, E, ()),
    (
        "zero cached is reported",
        "openai",
        usage(3, 1, 4, 0),
        {"input": 3, "input_cache_read": 0, "output": 1},
        E,
        (),
    ),
    (
        "cache write",
        "openai",
        usage(1220, 7, 1227, 0, inside={"cache_write_tokens": 1217}),
        {"input": 3, "input_cache_read": 0, "input_cache_write_5m": 1217, "output": 7},
        E,
        (),
    ),
    (
        "reasoning and audio",
        "openai",
        usage(30, 20, 50, inside={"audio_tokens": 4}, out={"reasoning_tokens": 8, "audio_tokens": 3}),
        {"input": 26, "input_audio": 4, "output": 9, "output_reasoning": 8, "output_audio": 3},
        E,
        (),
    ),
    ("nothing generated", "openai", usage(9, None, 9), {"input": 9, "output": 0}, E, ()),
    ("output missing", "openai", usage(9, None), {"input": 9}, P, ()),
    ("input missing", "openai", usage(None, 4), {"output": 4}, P, ()),
    ("empty", "openai", {}, {}, U, ()),
    ("float that is whole", "openai", usage(30.0, 12), {"input": 30, "output": 12}, E, ()),
    ("negative", "openai", usage(-5, 12, 7), {"output": 12}, P, BAD),
    ("fraction", "openai", usage(1.5, 12), {"output": 12}, P, BAD),
    ("boolean", "openai", usage(True, 12), {"output": 12}, P, BAD),
    ("text", "openai", usage("30", 12), {"output": 12}, P, BAD),
    ("absurd", "openai", usage(10**11, 12), {"output": 12}, P, BAD),
    ("all absurd", "openai", usage(-1, 10**30), {}, U, BAD),
    ("total disagrees", "openai", usage(30, 12, 50), {"input": 30, "output": 12}, P, CONTRADICTORY),
    (
        "cached exceeds prompt",
        "openai",
        usage(30, 12, 42, 50),
        {"input": 0, "input_cache_read": 30, "output": 12},
        P,
        CONTRADICTORY,
    ),
    (
        "reasoning exceeds completion",
        "openai",
        usage(30, 5, 35, out={"reasoning_tokens": 9}),
        {"input": 30, "output": 0, "output_reasoning": 5},
        P,
        CONTRADICTORY,
    ),
    (
        "details of a wrong type",
        "openai",
        {**usage(30, 12), "prompt_tokens_details": [1]},
        {"input": 30, "output": 12},
        E,
        (),
    ),
    (
        "reasoning beside the completion",
        "x_ai",
        usage(30, 5, 44, out={"reasoning_tokens": 9}),
        {"input": 30, "output": 5, "output_reasoning": 9},
        E,
        (),
    ),
    (
        "the same without a total",
        "x_ai",
        usage(30, 5, out={"reasoning_tokens": 9}),
        {"input": 30, "output": 5, "output_reasoning": 9},
        E,
        (),
    ),
    (
        "reasoning beside even the total",
        "vercel",
        usage(30, 5, 35, out={"reasoning_tokens": 9}),
        {"input": 30, "output": 5, "output_reasoning": 9},
        E,
        (),
    ),
    (
        "reasoning inside",
        "vercel",
        usage(30, 12, 42, out={"reasoning_tokens": 9}),
        {"input": 30, "output": 3, "output_reasoning": 9},
        E,
        (),
    ),
    ("thinking only in the total", "gcp.gemini", usage(35, 12, 109), {"input": 35, "output": 74}, E, ()),
    (
        "audio beside the prompt",
        "mistral_ai",
        usage(5, 20, 400, 0, inside={"audio_tokens": 375}),
        {"input": 5, "input_cache_read": 0, "input_audio": 375, "output": 20},
        E,
        (),
    ),
    (
        "hit and miss",
        "deepseek",
        usage(30, 12, 42, prompt_cache_hit_tokens=10, prompt_cache_miss_tokens=20),
        {"input": 20, "input_cache_read": 10, "output": 12},
        E,
        (),
    ),
    (
        "cached at the top",
        "together",
        usage(30, 12, 42, cached_tokens=10),
        {"input": 20, "input_cache_read": 10, "output": 12},
        E,
        (),
    ),
    (
        "reasoning at the top",
        "together",
        usage(30, 12, 42, reasoning_tokens=4),
        {"input": 30, "output": 8, "output_reasoning": 4},
        E,
        (),
    ),
    (
        "reasoning at the top, beside even the total",
        "perplexity",
        usage(30, 12, 42, reasoning_tokens=4),
        {"input": 30, "output": 12, "output_reasoning": 4},
        E,
        (),
    ),
]

HOSTS = {
    "openai": "api.openai.com",
    "x_ai": "api.x.ai",
    "vercel": "ai-gateway.vercel.sh",
    "gcp.gemini": "generativelanguage.googleapis.com",
    "mistral_ai": "api.mistral.ai",
    "deepseek": "api.deepseek.com",
    "together": "api.together.ai",
    "perplexity": "api.perplexity.ai",
}


def chat(
    body: bytes, *, host: str = "api.openai.com", path: str = "/v1/chat/completions", **asked: Any
) -> Recognised:
    sent = wire.request(host, path, wire.chat_request(**asked))
    [outcome] = wire.read(sent, body, close=True)
    assert isinstance(outcome, Recognised)
    return outcome


def stream(events: list[Any], *, done: bool = True, **fields: Any) -> Recognised:
    body = wire.response(wire.sse(events, done=done), content_type="text/event-stream", framing="chunked")
    return chat(body, stream=True, **fields)


def tokens(call: Call) -> dict[str, int]:
    return dict(call.usage.tokens)


@pytest.mark.parametrize(
    ("provider", "answer", "buckets", "quality", "anomalies"),
    [u[1:] for u in USAGES],
    ids=[u[0] for u in USAGES],
)
def test_usage(
    provider: str, answer: dict[str, Any], buckets: dict[str, int], quality: int, anomalies: tuple[str, ...]
) -> None:
    outcome = chat(wire.response(wire.chat_completion(usage=answer)), host=HOSTS[provider])
    assert outcome.call.provider == provider
    told = tuple(name for name in outcome.anomalies if not name.startswith("estimate"))
    assert (*reported(outcome.call), told) == (
        buckets,
        quality,
        anomalies,
    )
    assert outcome.call.billable


def test_chat() -> None:
    call = chat(
        wire.response(wire.chat_completion(service_tier="flex")), service_tier="auto", user="end-user-1"
    ).call
    assert (call.operation, call.request_model, call.response_model) == ("chat", "gpt-test", "gpt-test-2026")
    assert (call.response_id, list(call.finish_reasons), call.service_tier) == (
        wire.CHAT_ID,
        ["stop"],
        "flex",
    )
    assert (call.http_status, call.error_type, call.billable, call.streaming) == (200, "", True, False)
    assert (call.host, call.origin.end_user) == ("api.openai.com", "end-user-1")
    assert not call.HasField("time_to_first_token_s")
    assert b"secret" not in call.SerializeToString()


def test_requested_tier_where_the_response_has_none() -> None:
    assert (
        chat(wire.response(wire.chat_completion()), service_tier="priority").call.service_tier == "priority"
    )


def test_text_completion() -> None:
    call = chat(wire.response(wire.chat_completion()), path="/v1/completions").call
    assert call.operation == "text_completion"


def test_azure_deployment_stands_in_for_a_missing_model() -> None:
    sent = wire.request("r.openai.azure.com", "/openai/deployments/dep/chat/completions", {"messages": []})
    call = wire.the_call(wire.read(sent, wire.response(wire.chat_completion())))
    assert (call.request_model, call.response_model) == ("dep", "gpt-test-2026")


def test_stream_with_usage_at_its_end() -> None:
    call = stream(wire.chat_chunks(usage=wire.chat_usage())).call
    assert (tokens(call), call.usage.quality) == ({"input": 30, "output": 12}, E)
    assert (call.streaming, call.billable, call.error_type, list(call.finish_reasons)) == (
        True,
        True,
        "",
        ["stop"],
    )
    assert call.HasField("time_to_first_token_s")


def test_stream_without_usage_invents_nothing() -> None:
    call = stream(wire.chat_chunks()).call
    assert (*reported(call), call.billable, call.error_type) == ({}, U, True, "")


def test_running_usage_is_not_summed() -> None:
    chunks = [
        {**chunk, "usage": wire.chat_usage(30, i + 1)} for i, chunk in enumerate(wire.chat_chunks("abcd"))
    ]
    assert tokens(stream(chunks).call) == {"input": 30, "output": 5}


def test_usage_given_twice_is_not_summed() -> None:
    chunks = wire.chat_chunks(usage=wire.chat_usage())
    chunks[-2]["x_groq"] = {"usage": wire.chat_usage()}
    assert tokens(stream(chunks).call) == {"input": 30, "output": 12}


@pytest.mark.parametrize("place", ["x_groq", "choice"])
def test_usage_in_other_places(place: str) -> None:
    chunks = wire.chat_chunks()
    if place == "x_groq":
        chunks[-1]["x_groq"] = {"usage": wire.chat_usage()}
    else:
        chunks[-1]["choices"][0]["usage"] = wire.chat_usage()
    assert tokens(stream(chunks).call) == {"input": 30, "output": 12}


def test_azure_opens_a_stream_without_a_model() -> None:
    first = {"choices": [], "id": "", "model": "", "object": "", "prompt_filter_results": []}
    call = stream([first, *wire.chat_chunks(usage=wire.chat_usage())]).call
    assert (call.response_model, call.response_id) == ("gpt-test-2026", wire.CHAT_ID)


def test_several_choices_finish_on_their_own() -> None:
    chunks = wire.chat_chunks()
    chunks[1]["choices"] = [{"index": 1, "delta": {}, "finish_reason": "length"}]
    assert list(stream(chunks).call.finish_reasons) == ["length", "stop"]


def test_a_broken_event_is_counted_and_the_rest_read() -> None:
    chunks: list[Any] = [b'{"id": "x", broken', *wire.chat_chunks(usage=wire.chat_usage())]
    outcome = stream(chunks)
    assert tokens(outcome.call) == {"input": 30, "output": 12}
    assert outcome.anomalies == ("malformed_json",)


def test_white_space_before_json() -> None:
    padded = b"\n         \n" * 300 + wire.dump(wire.chat_completion())
    assert tokens(chat(wire.response(padded)).call) == {"input": 30, "output": 12}


ERRORS: list[tuple[str, int, Any, str]] = [
    (
        "code",
        404,
        {"error": {"message": "m", "type": "invalid_request_error", "code": "model_not_found"}},
        "model_not_found",
    ),
    (
        "type",
        400,
        {"error": {"message": "m", "type": "invalid_request_error", "code": None}},
        "invalid_request_error",
    ),
    ("number", 429, {"error": {"message": "m", "code": 429}}, "429"),
    ("status name", 400, {"error": {"code": 400, "status": "INVALID_ARGUMENT"}}, "INVALID_ARGUMENT"),
    ("code beside a text", 400, {"error": "No such thing", "code": "bad-request"}, "bad-request"),
    ("text alone", 401, {"error": "unauthorized text"}, "401"),
    ("other shape", 422, {"detail": []}, "422"),
    ("no body", 500, b"", "500"),
    ("html", 502, b"<html>bad gateway</html>", "502"),
    (
        "success that is an error",
        200,
        {"error": {"code": "content_filter", "message": "m"}},
        "content_filter",
    ),
]


@pytest.mark.parametrize(("status", "body", "error"), [e[1:] for e in ERRORS], ids=[e[0] for e in ERRORS])
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages"])
def test_errors(status: int, body: Any, error: str, path: str) -> None:
    call = chat(wire.response(body, status=status), path=path, stream=True).call
    assert (call.error_type, call.http_status, call.billable) == (error, status, False)
    assert (tokens(call), call.usage.quality) == ({}, U)
    assert call.streaming == (status != 200)


def test_error_inside_a_stream() -> None:
    call = stream([*wire.chat_chunks()[:2], {"error": {"code": 502, "message": "m"}}]).call
    assert (call.error_type, call.billable, call.http_status) == ("502", False, 200)


def test_error_after_the_final_counts_has_been_served() -> None:
    chunks = wire.chat_chunks()
    chunks.append({"error": {"code": 400, "message": "limit"}, "choices": [], "usage": wire.chat_usage()})
    call = stream(chunks).call
    assert (call.error_type, call.billable, tokens(call)) == ("400", True, {"input": 30, "output": 12})


# Responses


def responses(body: bytes, *, method: str = "POST", path: str = "/v1/responses", **asked: Any) -> list[Any]:
    document = {"model": "gpt-test", "input": "secret prompt", **asked} if method == "POST" else None
    return wire.read(wire.request("api.openai.com", path, document, method=method), body, close=True)


RESPONSE_TOKENS = {"input": 32, "input_cache_read": 8, "output": 20, "output_reasoning": 5}


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/compact"])
def test_response(path: str) -> None:
    call = wire.the_call(responses(wire.response(wire.response_object()), path=path))
    assert (tokens(call), call.usage.quality, call.operation) == (RESPONSE_TOKENS, E, "chat")
    assert (call.response_id, list(call.finish_reasons)) == (wire.RESPONSE_ID, ["completed"])


@pytest.mark.parametrize("names", [True, False])
def test_response_stream(names: bool) -> None:
    body = wire.sse(wire.response_events(), names=names)
    call = wire.the_call(responses(wire.response(body, framing="chunked"), stream=True))
    assert (tokens(call), call.usage.quality, call.streaming) == (RESPONSE_TOKENS, E, True)
    assert (call.error_type, call.service_tier) == ("", "default")


def test_a_last_event_of_megabytes() -> None:
    output = [{"type": "image_generation_call", "result": "QUJD" * 700_000}]
    body = wire.sse(wire.response_events(output=output), names=True)
    call = wire.the_call(responses(wire.response(body, framing="chunked", chunk=16_000), stream=True))
    assert (tokens(call), call.usage.quality) == (RESPONSE_TOKENS, E)


def test_incomplete_is_billed() -> None:
    fields = {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    body = wire.sse(wire.response_events("response.incomplete", **fields), names=True)
    call = wire.the_call(responses(wire.response(body), stream=True))
    assert (call.billable, call.error_type, list(call.finish_reasons)) == (True, "", ["max_output_tokens"])


def test_failed_is_an_error() -> None:
    fields = {"status": "failed", "usage": None, "error": {"code": "server_error", "message": "m"}}
    body = wire.sse(wire.response_events("response.failed", **fields), names=True)
    call = wire.the_call(responses(wire.response(body), stream=True))
    assert (call.billable, call.error_type, tokens(call)) == (False, "server_error", {})


def test_error_event() -> None:
    events = [*wire.response_events()[:2], {"type": "error", "code": "rate_limit_exceeded", "message": "m"}]
    call = wire.the_call(responses(wire.response(wire.sse(events, names=True)), stream=True))
    assert (call.billable, call.error_type) == (False, "rate_limit_exceeded")


def test_background_response_is_counted_where_it_is_fetched() -> None:
    queued = wire.response_object(status="queued", background=True, usage=None)
    done = wire.response_object(background=True)
    assert responses(wire.response(queued), background=True) == [Dropped("response_pending")]
    path = f"/v1/responses/{wire.RESPONSE_ID}?stream=false"
    assert responses(wire.response(queued), method="GET", path=path) == [Dropped("response_pending")]
    first, again = (wire.the_call(responses(wire.response(done), method="GET", path=path)) for _ in range(2))
    assert (tokens(first), first.billable) == (RESPONSE_TOKENS, True)
    assert first.id == again.id


def test_retrieval_of_a_response_that_was_counted_already() -> None:
    path = f"/v1/responses/{wire.RESPONSE_ID}"
    body = wire.response(wire.response_object())
    assert responses(body, method="GET", path=path) == [Dropped("retrieval")]


# Embeddings


@pytest.mark.parametrize("usage", [{"prompt_tokens": 8, "total_tokens": 8}, {"total_tokens": 8}])
def test_embeddings_count_input_alone(usage: dict[str, int]) -> None:
    vectors = [{"object": "embedding", "index": i, "embedding": [0.25] * 1536} for i in range(300)]
    sent = wire.request("api.openai.com", "/v1/embeddings", {"model": "embed", "input": ["x"] * 300})
    body = wire.response({"object": "list", "data": vectors, "model": "embed-2026", "usage": usage})
    call = wire.the_call(wire.read(sent, body))
    assert (tokens(call), call.usage.quality, call.operation) == ({"input": 8}, E, "embeddings")
    assert (call.response_model, call.billable) == ("embed-2026", True)
