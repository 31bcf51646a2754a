"""What the copies of OpenAI's API do differently: other names, other places, costs, plans, several models."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proto import wire
from tests.proto.providers.reported import reported

from mmproto.exchange import Dropped, Recognised
from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.facts import Facts
from mmproto.providers.hosts import Quirk
from mmproto.usage import INPUT_BUCKETS, OUTPUT_BUCKETS, TOKEN_BUCKETS, total
from mmproto.v1.usage_pb2 import Quality

U, E, P = Quality.QUALITY_UNKNOWN, Quality.QUALITY_EXACT, Quality.QUALITY_PARTIAL


def ask(
    host: str,
    body: Any,
    *,
    path: str = "/v1/chat/completions",
    headers: dict[str, str] | None = None,
    **asked: Any,
) -> Recognised:
    document = body if isinstance(body, bytes) else wire.response(body, headers=headers)
    [outcome] = wire.read(wire.request(host, path, wire.chat_request(**asked)), document, close=True)
    assert isinstance(outcome, Recognised), outcome
    return outcome


def answered(host: str, usage: Any, path: str = "/v1/chat/completions", **fields: Any) -> Recognised:
    return ask(host, wire.chat_completion(usage=usage, **fields), path=path)


NAMES: list[tuple[str, str, dict[str, Any], dict[str, int]]] = [
    (
        "deepseek: hits and misses alone",
        "api.deepseek.com",
        {"prompt_cache_hit_tokens": 20, "prompt_cache_miss_tokens": 10, "completion_tokens": 5},
        {"input": 10, "input_cache_read": 20, "output": 5},
    ),
    (
        "together: cached at the top",
        "api.together.xyz",
        {**wire.chat_usage(30, 5), "cached_tokens": 20},
        {"input": 10, "input_cache_read": 20, "output": 5},
    ),
    (
        "databricks: a cache as Anthropic names it, inside",
        "adb-1.2.azuredatabricks.net",
        {**wire.chat_usage(30, 5), "cache_read_input_tokens": 20, "cache_creation_input_tokens": 4},
        {"input": 6, "input_cache_read": 20, "input_cache_write_5m": 4, "output": 5},
    ),
    (
        "the same outside, as the total shows",
        "adb-1.2.azuredatabricks.net",
        {
            "prompt_tokens": 6,
            "completion_tokens": 5,
            "total_tokens": 35,
            "cache_read_input_tokens": 20,
            "cache_creation_input_tokens": 4,
        },
        {"input": 6, "input_cache_read": 20, "input_cache_write_5m": 4, "output": 5},
    ),
    (
        "xai: images and cached tokens overlap",
        "api.x.ai",
        {
            **wire.chat_usage(30, 5),
            "prompt_tokens_details": {"text_tokens": 12, "image_tokens": 18, "cached_tokens": 20},
        },
        {"input": 0, "input_cache_read": 20, "input_image": 10, "output": 5},
    ),
    (
        "openrouter: images made in a chat, video in the prompt",
        "openrouter.ai",
        {
            **wire.chat_usage(300, 1300),
            "prompt_tokens_details": {"video_tokens": 250, "cached_tokens": 0},
            "completion_tokens_details": {"image_tokens": 1290, "reasoning_tokens": 0},
        },
        {
            "input": 50,
            "input_cache_read": 0,
            "input_video": 250,
            "output": 10,
            "output_reasoning": 0,
            "output_image": 1290,
        },
    ),
    (
        "perplexity: deep research reasons outside of the completion",
        "api.perplexity.ai",
        {**wire.chat_usage(33, 7163), "reasoning_tokens": 73997},
        {"input": 33, "output": 7163, "output_reasoning": 73997},
    ),
]


@pytest.mark.parametrize(
    ("host", "model", "usage", "output"),
    [
        # The costs that Vercel reports come out by these numbers, and by no others.
        ("ai-gateway.vercel.sh", "google/gemini-test", (wire.chat_usage(61, 18), 137), (18, 137)),
        ("ai-gateway.vercel.sh", "google/gemini-test", (wire.chat_usage(61, 180), 137), (180, 137)),
        ("ai-gateway.vercel.sh", "openai/gpt-test", (wire.chat_usage(19, 124), 64), (60, 64)),
        (
            "gateway.internal",
            "gemini-test",
            ({**wire.chat_usage(35, 12), "total_tokens": 109}, None),
            (74, None),
        ),
    ],
)
def test_what_gemini_thinks_behind_a_gateway(
    host: str, model: str, usage: tuple[dict[str, Any], int | None], output: tuple[int, int | None]
) -> None:
    details = {"completion_tokens_details": {"reasoning_tokens": usage[1]}} if usage[1] else {}
    tokens = dict(answered(host, {**usage[0], **details}, model=model).call.usage.tokens)
    assert (tokens["output"], tokens.get("output_reasoning")) == output


@pytest.mark.parametrize(("host", "usage", "buckets"), [n[1:] for n in NAMES], ids=[n[0] for n in NAMES])
def test_names_and_places(host: str, usage: dict[str, Any], buckets: dict[str, int]) -> None:
    outcome = answered(host, usage)
    assert dict(outcome.call.usage.tokens) == buckets
    assert (outcome.call.usage.quality, outcome.anomalies) == (E, ())


COSTS: list[tuple[str, str, dict[str, Any], int | None]] = [
    ("dollars", "openrouter.ai", {"cost": 0.0000615, "is_byok": False}, 61_500),
    (
        "own key upstream",
        "openrouter.ai",
        {"cost": 0.0001, "is_byok": True, "cost_details": {"upstream_inference_cost": 0.002}},
        2_100_000,
    ),
    ("nothing", "openrouter.ai", {"cost": 0}, 0),
    ("an object", "api.perplexity.ai", {"cost": {"request_cost": 0.005, "total_cost": 0.00501}}, 5_010_000),
    ("another currency", "api.perplexity.ai", {"cost": {"currency": "EUR", "total_cost": 0.1}}, None),
    ("ticks", "api.x.ai", {"cost_in_usd_ticks": 2_733_250}, 273_325),
    ("ticks of another provider", "r.services.ai.azure.com", {"cost_in_usd_ticks": 2_733_250}, None),
    ("an estimate of the provider's", "api.deepinfra.com", {"estimated_cost": 0.000003}, 3_000),
    ("a gateway's", "gateway.internal", {"pydantic_ai_gateway": {"cost_estimate": 0.0001}}, 100_000),
    ("nonsense", "openrouter.ai", {"cost": -1}, None),
    ("none", "api.openai.com", {}, None),
]


@pytest.mark.parametrize(("host", "reported", "nano"), [c[1:] for c in COSTS], ids=[c[0] for c in COSTS])
def test_costs_that_providers_report(host: str, reported: dict[str, Any], nano: int | None) -> None:
    call = answered(host, {**wire.chat_usage(), **reported}).call
    found = call.reported_cost_nano_usd if call.HasField("reported_cost_nano_usd") else None
    assert (found, call.usage.quality) == (nano, E)


def test_copilot_counts_in_credits() -> None:
    used = {"token_details": [], "total_nano_aiu": 381_000_000}
    call = ask("api.githubcopilot.com", wire.chat_completion(copilot_usage=used)).call
    assert call.reported_cost_nano_usd == 3_810_000
    events = wire.response_events()
    events[-1]["copilot_usage"] = used
    body = wire.response(wire.sse(events, names=True), content_type="text/event-stream")
    call = ask("api.individual.githubcopilot.com", body, path="/responses", stream=True).call
    assert (call.reported_cost_nano_usd, call.provider) == (3_810_000, "github_copilot")


def test_searches_are_a_unit() -> None:
    call = answered("api.perplexity.ai", {**wire.chat_usage(), "num_search_queries": 18}).call
    assert dict(call.usage.units) == {"web_searches": 18.0}
    used = {"server_side_tool_usage_details": {"web_search_calls": 2, "x_search_calls": 0}}
    assert dict(answered("api.x.ai", {**wire.chat_usage(), **used}).call.usage.units) == {"web_searches": 2.0}


@pytest.mark.parametrize(
    ("fields", "searches"),
    [
        ({"tool_usage": {"web_search": {"num_requests": 3}}}, 3),
        ({"output": [{"type": "web_search_call", "action": {"type": "search"}}] * 2}, 2),
        ({"output": [{"type": "web_search_call", "action": {"type": "open_page"}}]}, 0),
        ({"output": [{"type": "web_search_call"}]}, 1),
        ({}, 0),
    ],
)
def test_searches_of_a_response(fields: dict[str, Any], searches: int) -> None:
    call = ask("api.openai.com", wire.response_object(**fields), path="/v1/responses").call
    assert dict(call.usage.units) == ({"web_searches": float(searches)} if searches else {})


def test_images_that_a_response_had_drawn_are_a_call_of_the_model_that_drew_them() -> None:
    drawn = {
        "input_tokens": 30,
        "input_tokens_details": {"text_tokens": 30, "image_tokens": 0},
        "output_tokens": 1056,
        "total_tokens": 1086,
    }
    tools = [{"type": "web_search"}, {"type": "image_generation", "model": "gpt-image-test"}]
    fields: dict[str, Any] = {
        "tool_usage": {"image_gen": drawn, "web_search": {"num_requests": 0}},
        "tools": tools,
    }
    body = wire.sse(wire.response_events(**fields), names=True)
    sent = wire.request("api.openai.com", "/v1/responses", {"model": "gpt-test", "input": "x"})
    outcomes = wire.read(sent, wire.response(body, framing="chunked"))
    found = [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]
    [image] = [call for call in found if call.operation == "image_generation"]
    [chat] = [call for call in found if call.operation == "chat"]
    assert dict(image.usage.tokens) == {"input": 30, "input_image": 0, "output_image": 1056}
    assert (image.request_model, chat.request_model) == ("gpt-image-test", "gpt-test")
    assert (image.id != chat.id, image.response_id) == (True, chat.response_id)


# Groq


def compound(parts: list[tuple[str, int, int]], prompt: int, completion: int) -> dict[str, Any]:
    models = [{"model": model, "usage": wire.chat_usage(p, c)} for model, p, c in parts]
    return wire.chat_completion(
        model="groq/compound", usage=wire.chat_usage(prompt, completion), usage_breakdown={"models": models}
    )


def test_the_models_of_a_compound_system_are_calls_of_their_own() -> None:
    body = compound([("llama-test", 100, 20), ("gpt-oss-test", 50, 30)], 150, 50)
    sent = wire.request(
        "api.groq.com", "/openai/v1/chat/completions", wire.chat_request(model="groq/compound")
    )
    outcomes = wire.read(sent, wire.response(body))
    assert Dropped("counted_in_portions") in outcomes
    found = [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]
    assert [(call.response_model, dict(call.usage.tokens)) for call in found] == [
        ("llama-test", {"input": 100, "output": 20}),
        ("gpt-oss-test", {"input": 50, "output": 30}),
    ]
    assert [call.request_model for call in found] == ["groq/compound"] * 2
    assert len({call.id for call in found}) == 2


@pytest.mark.parametrize(
    "body",
    [
        compound([("llama-test", 100, 20)], 150, 50),  # does not add up
        compound([("groq/compound", 150, 50)], 150, 50),
        wire.chat_completion(usage=wire.chat_usage(150, 50), usage_breakdown=None),
    ],
)
def test_a_breakdown_that_tells_nothing_more_is_one_call(body: Any) -> None:
    call = ask("api.groq.com", body, path="/openai/v1/chat/completions").call
    assert dict(call.usage.tokens) == {"input": 150, "output": 50}


# Local servers


def test_llama_cpp_that_was_not_asked_for_usage() -> None:
    chunks = wire.chat_chunks()
    chunks[-1]["timings"] = {"cache_n": 236, "prompt_n": 1, "prompt_ms": 30.9, "predicted_n": 35}
    body = wire.response(wire.sse(chunks, done=True), content_type="text/event-stream")
    call = ask("localhost:8080", body, stream=True).call
    assert dict(call.usage.tokens) == {"input": 1, "input_cache_read": 236, "output": 35}
    assert call.usage.quality == E


def test_usage_goes_before_timings() -> None:
    timings = {"cache_n": 9, "prompt_n": 9, "predicted_n": 9}
    assert dict(ask("localhost:8080", wire.chat_completion(timings=timings)).call.usage.tokens) == {
        "input": 30,
        "output": 12,
    }


@pytest.mark.parametrize("timings", [{}, {"prompt_n": "1"}, [1], {"prompt_n": 4}])
def test_timings_that_say_little(timings: Any) -> None:
    body = wire.chat_completion(usage=None, timings=timings)
    call = ask("localhost:8080", body).call
    assert reported(call)[1] in (U, P)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/things", "/chat"])
def test_other_apis_of_unknown_hosts_are_not_taken(path: str) -> None:
    outcomes = wire.read(
        wire.request("intranet.example", path, {"a": 1}), wire.response({"choices": [], "usage": {}})
    )
    assert outcomes == [Dropped("not_llm")]


# Azure, plans, hosts with paths of their own


@pytest.mark.parametrize(
    ("body_model", "served", "expected"),
    [
        ("my-dep", "gpt-test-2026-01-01", "gpt-test-2026-01-01"),
        ("gpt-test", "gpt-test-2026-01-01", "gpt-test"),
        ("gpt-other", "", "gpt-other"),
    ],
)
def test_azure_names_a_deployment_where_a_header_names_the_model(
    body_model: str, served: str, expected: str
) -> None:
    headers = {"x-ms-served-model": served} if served else {}
    call = ask(
        "r.openai.azure.com",
        wire.response_object(model=body_model),
        path="/openai/v1/responses",
        headers=headers,
        model=body_model,
    ).call
    assert call.response_model == expected


def test_the_body_of_a_completion_knows_better_than_a_header() -> None:
    headers = {"x-ms-served-model": "gpt-of-the-header"}
    body = wire.chat_completion()
    assert ask("r.openai.azure.com", body, headers=headers).call.response_model == "gpt-test-2026"
    del body["model"]
    assert ask("r.openai.azure.com", body, headers=headers).call.response_model == "gpt-of-the-header"


@pytest.mark.parametrize(
    ("host", "path", "tier"),
    [
        ("api.z.ai", "/api/coding/paas/v4/chat/completions", "subscription"),
        ("api.z.ai", "/api/paas/v4/chat/completions", ""),
        ("coding-intl.dashscope.aliyuncs.com", "/v1/chat/completions", "subscription"),
    ],
)
def test_calls_of_a_plan_have_a_tier_without_a_price(host: str, path: str, tier: str) -> None:
    call = answered(host, wire.chat_usage(), path).call
    assert (call.service_tier, dict(call.usage.tokens)) == (tier, {"input": 30, "output": 12})


def test_codex_with_an_account_is_part_of_a_plan() -> None:
    body = wire.response_object()
    call = ask("chatgpt.com", body, path="/backend-api/codex/responses").call
    assert (call.provider, call.service_tier) == ("openai", "subscription")


def test_writer_and_databricks_have_paths_of_their_own() -> None:
    assert answered("api.writer.com", wire.chat_usage(), "/v1/chat").call.operation == "chat"
    call = answered("x.cloud.databricks.com", wire.chat_usage(), "/serving-endpoints/my-llm/invocations").call
    assert (call.operation, dict(call.usage.tokens)) == ("chat", {"input": 30, "output": 12})


def test_workers_ai_by_its_own_api() -> None:
    path = "/client/v4/accounts/a/ai/run/@cf/meta/llama-test"
    result = {"response": "secret", "usage": wire.chat_usage()}
    body = {"result": result, "success": True, "errors": [], "messages": []}
    call = ask("api.cloudflare.com", body, path=path, model="").call
    assert (call.request_model, dict(call.usage.tokens)) == (
        "@cf/meta/llama-test",
        {"input": 30, "output": 12},
    )
    pieces: list[Any] = [{"response": "secret"}] * 3
    events = wire.sse([*pieces, {"response": "", "usage": wire.chat_usage()}], done=True)
    call = ask(
        "api.cloudflare.com", wire.response(events, content_type="text/event-stream"), path=path, model=""
    ).call
    assert (call.streaming, dict(call.usage.tokens)) == (True, {"input": 30, "output": 12})
    failed = {"result": None, "success": False, "errors": [{"code": 7009, "message": "m"}]}
    call = ask("api.cloudflare.com", wire.response(failed, status=400), path=path, model="").call
    assert (call.error_type, call.billable) == ("7009", False)
    vectors = {"result": {"shape": [1, 2], "data": [[0.1, 0.2]]}, "success": True, "errors": []}
    call = ask(
        "api.cloudflare.com", vectors, path="/client/v4/accounts/a/ai/run/@cf/baai/bge-test", model=""
    ).call
    assert (call.operation, reported(call)) == ("embeddings", ({}, U))


def test_voyage_counts_images_as_tokens() -> None:
    usage = {"text_tokens": 12, "image_pixels": 2_000_000, "total_tokens": 3583}
    body = {"object": "list", "data": [{"embedding": [0.5]}], "model": "voyage-test", "usage": usage}
    call = ask("api.voyageai.com", body, path="/v1/multimodalembeddings").call
    assert (dict(call.usage.tokens), call.operation) == ({"input": 12, "input_image": 3571}, "embeddings")


@pytest.mark.parametrize("streaming", [True, False])
def test_deepinfra_by_its_own_api(streaming: bool) -> None:
    status = {"status": "succeeded", "tokens_input": 9, "tokens_generated": 20, "cost": 0.0000087}
    last = {"request_id": "RqAbCdEf0123456789xyz", "inference_status": status}
    pieces: list[Any] = [{"token": {"text": "secret"}, "inference_status": None}] * 3
    answer = {"results": [{"generated_text": "secret"}], **last}
    body = (
        wire.response(wire.sse([*pieces, last]), content_type="text/event-stream")
        if streaming
        else wire.response(answer)
    )
    sent = wire.request("api.deepinfra.com", "/v1/inference/meta/llama-test", {"input": "secret"})
    call = wire.the_call(wire.read(sent, body))
    assert (dict(call.usage.tokens), call.usage.quality) == ({"input": 9, "output": 20}, E)
    assert (call.request_model, call.reported_cost_nano_usd) == ("meta/llama-test", 8_700)
    assert (call.streaming, call.error_type) == (streaming, "")


SDK_USAGES: list[tuple[dict[str, Any], dict[str, int]]] = [
    (
        {
            "inputTokens": 30,
            "outputTokens": 12,
            "totalTokens": 42,
            "cachedInputTokens": 8,
            "reasoningTokens": 5,
        },
        {"input": 22, "input_cache_read": 8, "output": 7, "output_reasoning": 5},
    ),
    (
        {
            "inputTokens": {"total": 30, "noCache": 20, "cacheRead": 8, "cacheWrite": 2},
            "outputTokens": {"total": 12, "text": 7, "reasoning": 5},
        },
        {
            "input": 20,
            "input_cache_read": 8,
            "input_cache_write_5m": 2,
            "output": 7,
            "output_reasoning": 5,
        },
    ),
]


@pytest.mark.parametrize(("usage", "buckets"), SDK_USAGES)
@pytest.mark.parametrize("streaming", [True, False])
def test_vercel_as_the_sdk_speaks_to_it(
    usage: dict[str, Any], buckets: dict[str, int], streaming: bool
) -> None:
    metadata = {"gateway": {"cost": "0.00123", "generationId": "gen_01JZ0A1B2C3D4E5F6G7H8J9K0M"}}
    last = {"finishReason": "stop", "usage": usage, "providerMetadata": metadata}
    about = {"id": "resp-1", "modelId": "gpt-test-2026"}
    if streaming:
        parts = [{"type": "response-metadata", **about}, *[{"type": "text-delta", "delta": "secret"}] * 3]
        events = wire.sse([*parts, {"type": "finish", **last}], done=True)
        body = wire.response(events, content_type="text/event-stream")
    else:
        body = wire.response({"content": [{"type": "text", "text": "secret"}], "response": about, **last})
    headers = {
        "ai-language-model-id": "openai/gpt-test",
        "ai-language-model-streaming": str(streaming).lower(),
    }
    sent = wire.request(
        "ai-gateway.vercel.sh", "/v3/ai/language-model", {"prompt": ["secret"]}, headers=headers
    )
    call = wire.the_call(wire.read(sent, body))
    assert (dict(call.usage.tokens), call.usage.quality, call.streaming) == (buckets, E, streaming)
    assert (call.request_model, call.response_model) == ("openai/gpt-test", "gpt-test-2026")
    assert (call.reported_cost_nano_usd, list(call.finish_reasons)) == (1_230_000, ["stop"])


@pytest.mark.parametrize(
    ("path", "provider"),
    [
        ("/v1/account/gate/openai/chat/completions", "openai"),
        ("/v1/account/gate/grok/v1/chat/completions", "x_ai"),
        ("/v1/account/gate/compat/chat/completions", "cloudflare"),
        ("/v1/account/gate/workers-ai/v1/chat/completions", "cloudflare"),
    ],
)
def test_cloudflares_gateway_names_who_answers(path: str, provider: str) -> None:
    assert answered("gateway.ai.cloudflare.com", wire.chat_usage(), path).call.provider == provider


# Whatever a usage says

NUMBERS = st.one_of(
    st.integers(-(10**12), 10**12),
    st.floats(allow_nan=True),
    st.booleans(),
    st.none(),
    st.text(max_size=3),
)
PARTS = ("cached_tokens", "audio_tokens", "image_tokens", "video_tokens", "reasoning_tokens", "text_tokens")
OTHER_PARTS = ("cache_write_tokens", "cached_tokens_details")
WHOLES = ("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens")
OTHER_NAMES = (
    "cached_tokens",
    "reasoning_tokens",
    "prompt_cache_hit_tokens",
    "prompt_cache_miss_tokens",
    "cache_read_input_tokens",
    "num_search_queries",
    "cost",
)
INSIDE = ("prompt_tokens_details", "completion_tokens_details", "input_token_details")
SPLIT = st.dictionaries(st.sampled_from(PARTS[:3]), NUMBERS)
DETAILS = st.dictionaries(st.sampled_from(PARTS + OTHER_PARTS), st.one_of(NUMBERS, SPLIT))
USAGES = st.dictionaries(
    st.sampled_from(WHOLES + OTHER_NAMES + INSIDE), st.one_of(NUMBERS, st.integers(0, 5000), DETAILS)
)


@given(USAGES, st.frozensets(st.sampled_from(Quirk)), st.booleans())
def test_any_usage_ends_in_disjoint_buckets(usage: Any, quirks: frozenset[Quirk], has_output: bool) -> None:
    facts = Facts()
    measured = openai_usage.measure(usage, facts, quirks, has_output=has_output)
    assert set(measured.tokens) <= TOKEN_BUCKETS
    assert all(type(count) is int and count >= 0 for count in measured.tokens.values())
    assert measured.quality == (U if not measured.tokens else E if measured.quality == E else P)
    if facts.anomalies:
        assert measured.quality != E


@given(st.integers(0, 10**6), st.integers(0, 10**6), DETAILS)
def test_totals_stay_the_providers_own(prompt: int, completion: int, details: Any) -> None:
    usage = {**wire.chat_usage(prompt, completion), "prompt_tokens_details": details}
    measured = openai_usage.measure(usage, Facts(), frozenset())
    assert total(measured.tokens, INPUT_BUCKETS) == prompt
    assert total(measured.tokens, OUTPUT_BUCKETS) == completion
