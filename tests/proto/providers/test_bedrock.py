"""Bedrock: converse and invoke by family of models, as documents and frames, and the rest of the runtime."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import Any

import pytest
from tests.proto import wire
from tests.proto.framing.test_eventstream import event, frame
from tests.proto.providers.reported import E, P, U, reported

from mmproto.exchange import Dropped, Recognised
from mmproto.outcome import Outcome

HOST = "bedrock-runtime.eu-west-1.amazonaws.com"
MODEL = "eu.test.model-v1%3A0"
MESSAGES = {"messages": [{"role": "user", "content": [{"text": "secret prompt"}]}]}
FRAMES = "application/vnd.amazon.eventstream"


def exchange(
    path: str, answer: Any, document: Any = None, *, host: str = HOST, **headers: str
) -> list[Outcome]:
    body = answer if isinstance(answer, bytes) else wire.response(answer)
    sent = wire.request(host, path, MESSAGES if document is None else document, headers=headers)
    return wire.read(sent, body, close=True)


def frames(parts: Iterable[bytes], *, content_type: str = FRAMES, framing: str = "chunked") -> bytes:
    return wire.response(b"".join(parts), content_type=content_type, framing=framing, chunk=77)


def exception(name: str) -> bytes:
    return frame(wire.dump({"message": "secret"}), {":message-type": "exception", ":exception-type": name})


# -- converse

USAGES: list[tuple[str, dict[str, Any], dict[str, int], int]] = [
    ("plain", {"inputTokens": 10, "outputTokens": 4, "totalTokens": 14}, {"input": 10, "output": 4}, E),
    (
        "cache beside input, told under two names",
        {
            "inputTokens": 3,
            "outputTokens": 4,
            "cacheReadInputTokens": 100,
            "cacheReadInputTokenCount": 100,
            "cacheWriteInputTokens": 50,
            "cacheWriteInputTokenCount": 50,
            "totalTokens": 157,
        },
        {"input": 3, "input_cache_read": 100, "input_cache_write_5m": 50, "output": 4},
        E,
    ),
    (
        "writes by lifetime",
        {
            "inputTokens": 3,
            "outputTokens": 4,
            "cacheWriteInputTokens": 50,
            "cacheDetails": [{"inputTokens": 20, "ttl": "5m"}, {"inputTokens": 30, "ttl": "1h"}],
        },
        {"input": 3, "input_cache_write_5m": 20, "input_cache_write_1h": 30, "output": 4},
        E,
    ),
    (
        "more written for an hour than written",
        {
            "inputTokens": 3,
            "outputTokens": 4,
            "cacheWriteInputTokens": 10,
            "cacheDetails": [{"inputTokens": 30, "ttl": "1h"}],
        },
        {"input": 3, "input_cache_write_5m": 0, "input_cache_write_1h": 10, "output": 4},
        P,
    ),
    (
        "an output that only the total tells",
        {"inputTokens": 10, "totalTokens": 14},
        {"input": 10, "output": 4},
        E,
    ),
    (
        "a total that is another",
        {"inputTokens": 10, "outputTokens": 4, "totalTokens": 99},
        {"input": 10, "output": 4},
        P,
    ),
    ("output alone", {"outputTokens": 4}, {"output": 4}, P),
    ("nothing", {}, {}, U),
]


@pytest.mark.parametrize(("usage", "tokens", "quality"), [u[1:] for u in USAGES], ids=[u[0] for u in USAGES])
def test_converse(usage: dict[str, Any], tokens: dict[str, int], quality: int) -> None:
    answer = {"output": {"message": {}}, "stopReason": "end_turn", "usage": usage}
    call = wire.the_call(exchange(f"/model/{MODEL}/converse", answer))
    assert (call.provider, call.operation, call.request_model) == (
        "aws.bedrock",
        "chat",
        "eu.test.model-v1:0",
    )
    assert reported(call) == (tokens, quality)
    assert (list(call.finish_reasons), call.billable, call.streaming) == (["end_turn"], True, False)


CONVERSATION = [
    event("messageStart", wire.dump({"p": "abc", "role": "assistant"})),
    event("contentBlockDelta", wire.dump({"contentBlockIndex": 0, "delta": {"text": "secret"}})),
    event("messageStop", wire.dump({"p": "abcdef", "stopReason": "end_turn"})),
    event(
        "metadata",
        wire.dump(
            {
                "metrics": {"latencyMs": 5},
                "usage": {"inputTokens": 10, "outputTokens": 4, "totalTokens": 14},
                "performanceConfig": {"latency": "optimized"},
            }
        ),
    ),
]


@pytest.mark.parametrize("framing", ["chunked", "close"])
@pytest.mark.parametrize("content_type", [FRAMES, "application/octet-stream"])
def test_converse_as_a_stream(content_type: str, framing: str) -> None:
    body = frames(CONVERSATION, content_type=content_type, framing=framing)
    call = wire.the_call(exchange(f"/model/{MODEL}/converse-stream", body))
    assert reported(call) == ({"input": 10, "output": 4}, E)
    assert (call.streaming, call.error_type, call.service_tier) == (True, "", "optimized")
    assert b"secret" not in call.SerializeToString()


def test_a_stream_that_is_cut_off_is_paid_for_and_unknown() -> None:
    body = frames(CONVERSATION[:2], framing="close")
    call = wire.the_call(exchange(f"/model/{MODEL}/converse-stream", body))
    assert (reported(call)[1], call.billable, call.error_type) == (U, True, "stream_incomplete")


def test_an_exception_in_a_stream() -> None:
    body = frames([*CONVERSATION[:2], exception("throttlingException")])
    call = wire.the_call(exchange(f"/model/{MODEL}/converse-stream", body))
    assert (call.error_type, call.billable, call.http_status) == ("throttlingException", False, 200)


@pytest.mark.parametrize("operation", ["converse", "converse-stream", "invoke"])
def test_an_error(operation: str) -> None:
    header = {"x-amzn-errortype": "ValidationException:http://internal.amazon.com/coral/"}
    body = wire.response({"message": "secret"}, status=400, headers=header)
    call = wire.the_call(exchange(f"/model/{MODEL}/{operation}", body))
    assert (call.error_type, call.billable, call.http_status) == ("ValidationException", False, 400)
    assert call.streaming == operation.endswith("stream")


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("m-v1:0", "m-v1:0"),
        (
            "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Ainference-profile%2Fus.m",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.m",
        ),
        (
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.m",
            "arn:aws:bedrock:us-east-1:1:inference-profile/us.m",
        ),
    ],
)
@pytest.mark.parametrize("host", [HOST, "gateway.internal:8787"])
def test_the_model_is_in_the_path(model: str, name: str, host: str) -> None:
    answer = {"usage": {"inputTokens": 1, "outputTokens": 2}, "stopReason": "end_turn"}
    call = wire.the_call(exchange(f"/bedrock/model/{model}/converse", answer, host=host))
    assert (call.provider, call.request_model) == ("aws.bedrock", name)


def test_a_prompt_router_tells_which_model_served() -> None:
    trace = {"promptRouter": {"invokedModelId": "arn:m"}}
    answer = {"usage": {"inputTokens": 1, "outputTokens": 2}, "stopReason": "end_turn", "trace": trace}
    call = wire.the_call(exchange("/model/arn%3Arouter/converse", answer))
    assert (call.request_model, call.response_model) == ("arn:router", "arn:m")


def test_the_tier_that_was_asked_for() -> None:
    answer = {"usage": {"inputTokens": 1, "outputTokens": 2}, "stopReason": "end_turn"}
    asked = {**MESSAGES, "serviceTier": {"type": "flex"}}
    assert wire.the_call(exchange(f"/model/{MODEL}/converse", answer, asked)).service_tier == "flex"
    headers = {"X-Amzn-Bedrock-Service-Tier": "priority"}
    call = wire.the_call(exchange(f"/model/{MODEL}/invoke", wire.message(), **headers))
    assert call.service_tier == "priority"


# -- invoke


def chunk(document: Any) -> bytes:
    encoded = base64.b64encode(wire.dump(document)).decode()
    return event("chunk", wire.dump({"bytes": encoded, "p": "abcdefgh"}))


def counted(**counts: int) -> dict[str, str]:
    return {f"X-Amzn-Bedrock-{name.replace('_', '-')}-Token-Count": str(n) for name, n in counts.items()}


BOTH = counted(input=10, output=4)
FAMILIES: list[tuple[str, str, Any, dict[str, str], dict[str, int], int]] = [
    (
        "Claude",
        "anthropic.claude-test",
        wire.message(usage={"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 4}),
        BOTH,
        {"input": 10, "input_cache_read": 90, "output": 4},
        E,
    ),
    (
        "Nova",
        "amazon.nova-test",
        {"output": {}, "stopReason": "end_turn", "usage": {"inputTokens": 10, "outputTokens": 4}},
        BOTH,
        {"input": 10, "output": 4},
        E,
    ),
    (
        "Titan",
        "amazon.titan-text-test",
        {
            "inputTextTokenCount": 10,
            "results": [{"tokenCount": 3, "completionReason": "FINISH"}, {"tokenCount": 1}],
        },
        {},
        {"input": 10, "output": 4},
        E,
    ),
    (
        "Llama",
        "meta.llama-test",
        {"generation": "secret", "prompt_token_count": 10, "generation_token_count": 4},
        {},
        {"input": 10, "output": 4},
        E,
    ),
    (
        "gpt-oss",
        "openai.gpt-oss-test",
        wire.chat_completion(usage=wire.chat_usage(10, 4, prompt_tokens_details={"cached_tokens": 3})),
        counted(input=7, output=4, cache_read_input=3),
        {"input": 7, "input_cache_read": 3, "output": 4},
        E,
    ),
    (
        "Cohere, by its headers",
        "cohere.command-test",
        {"generations": [{"text": "secret", "finish_reason": "COMPLETE"}]},
        BOTH,
        {"input": 10, "output": 4},
        E,
    ),
    (
        "Mistral, with half of its headers",
        "mistral.test",
        {"outputs": [{}]},
        counted(input=10),
        {"input": 10},
        P,
    ),
    (
        "headers that say something else",
        "meta.llama-test",
        {"prompt_token_count": 10, "generation_token_count": 4},
        counted(input=10, output=9),
        {"input": 10, "output": 4},
        P,
    ),
    (
        "a header that is no count",
        "cohere.test",
        {"generations": []},
        {**BOTH, **counted(output=-1)},
        {"input": 10},
        P,
    ),
    ("nothing", "unheard.of", {"text": "secret"}, {}, {}, U),
]


@pytest.mark.parametrize(
    ("model", "answer", "headers", "expected"),
    [(*f[1:4], f[4:]) for f in FAMILIES],
    ids=[f[0] for f in FAMILIES],
)
def test_invoke(model: str, answer: Any, headers: dict[str, str], expected: tuple[Any, ...]) -> None:
    body = wire.response(answer, headers=headers)
    call = wire.the_call(exchange(f"/model/{model}/invoke", body))
    assert reported(call) == expected
    assert (call.operation, call.billable, call.request_model) == ("chat", True, model)


def metrics(**counts: int) -> dict[str, Any]:
    return {"amazon-bedrock-invocationMetrics": {"invocationLatency": 5, **counts}}


TEN_FOUR = metrics(inputTokenCount=10, outputTokenCount=4)
CLAUDE = wire.message_events({"input_tokens": 10}, {"output_tokens": 4})
STREAMS: list[tuple[str, list[Any], dict[str, int], int]] = [
    ("Claude", [*CLAUDE[:-1], {**CLAUDE[-1], **TEN_FOUR}], {"input": 10, "output": 4}, E),
    (
        "Claude, with metrics that count less",
        [*CLAUDE[:-1], {**CLAUDE[-1], **metrics(inputTokenCount=10, outputTokenCount=3)}],
        {"input": 10, "output": 4},
        P,
    ),
    ("Claude, cut off", CLAUDE[:3], {"input": 10}, P),
    (
        "Llama",
        [
            {"generation": "s", "prompt_token_count": 10, "generation_token_count": 1},
            {
                "generation": "",
                "prompt_token_count": None,
                "generation_token_count": 4,
                "stop_reason": "stop",
            },
            {**TEN_FOUR},
        ],
        {"input": 10, "output": 4},
        E,
    ),
    (
        "Llama, cut off",
        [{"generation": "s", "prompt_token_count": 10, "generation_token_count": 1}],
        {"input": 10, "output": 1},
        P,
    ),
    (
        "Titan",
        [
            {
                "outputText": "secret",
                "inputTextTokenCount": 10,
                "totalOutputTextTokenCount": 4,
                "completionReason": "FINISH",
                **TEN_FOUR,
            }
        ],
        {"input": 10, "output": 4},
        E,
    ),
    (
        "Nova",
        [
            {"contentBlockDelta": {"delta": {"text": "secret"}}},
            {"messageStop": {"stopReason": "end_turn"}},
            {"metadata": {"usage": {"inputTokens": 10, "outputTokens": 4}}, **TEN_FOUR},
        ],
        {"input": 10, "output": 4},
        E,
    ),
    ("Mistral, by its metrics", [{"outputs": [{"text": "s"}]}, TEN_FOUR], {"input": 10, "output": 4}, E),
    (
        "metrics with a cache",
        [metrics(inputTokenCount=10, outputTokenCount=4, cacheReadInputTokenCount=6)],
        {"input": 10, "input_cache_read": 6, "output": 4},
        E,
    ),
]


@pytest.mark.parametrize(
    ("chunks", "tokens", "quality"), [s[1:] for s in STREAMS], ids=[s[0] for s in STREAMS]
)
def test_invoke_as_a_stream(chunks: list[Any], tokens: dict[str, int], quality: int) -> None:
    body = frames(
        [chunk(one) for one in chunks], framing="close" if "amazon" not in str(chunks) else "chunked"
    )
    call = wire.the_call(exchange(f"/model/{MODEL}/invoke-with-response-stream", body))
    assert (reported(call), call.streaming) == ((tokens, quality), True)
    assert b"secret" not in call.SerializeToString()


def test_a_guardrail_that_answers_in_the_models_place_pays_no_model() -> None:
    blocked = {
        "outputText": "no",
        "inputTextTokenCount": 6,
        "totalOutputTextTokenCount": 3,
        "amazon-bedrock-guardrailAction": "INTERVENED",
    }
    body = frames([chunk(blocked)])
    call = wire.the_call(exchange(f"/model/{MODEL}/invoke-with-response-stream", body))
    assert (reported(call)[1], call.billable, call.error_type) == (U, False, "guardrail_intervened")
    served = frames(
        [chunk({**blocked, **TEN_FOUR, "inputTextTokenCount": 10, "totalOutputTextTokenCount": 4})]
    )
    call = wire.the_call(exchange(f"/model/{MODEL}/invoke-with-response-stream", served))
    assert (dict(call.usage.tokens), call.billable) == ({"input": 10, "output": 4}, True)


def test_a_chunk_that_is_no_json_is_told() -> None:
    body = frames([event("chunk", wire.dump({"bytes": "!!!"})), chunk(TEN_FOUR)])
    [outcome] = exchange(f"/model/{MODEL}/invoke-with-response-stream", body)
    assert isinstance(outcome, Recognised)
    assert outcome.anomalies == ("malformed_json",)


@pytest.mark.parametrize(
    ("model", "operation", "answer", "tokens", "units"),
    [
        (
            "amazon.titan-embed-text-v2:0",
            "embeddings",
            {"embedding": [], "inputTextTokenCount": 7},
            {"input": 7},
            {},
        ),
        ("cohere.embed-test", "embeddings", {"embeddings": []}, {"input": 10}, {}),
        ("cohere.rerank-test", "rerank", {"results": []}, {"input": 10}, {}),
        ("amazon.titan-image-test", "image_generation", {"images": ["cw==", "cw=="]}, {}, {"images": 2.0}),
        ("stability.sd-test", "image_generation", {"artifacts": [{"base64": "cw=="}]}, {}, {"images": 1.0}),
    ],
)
def test_what_a_model_does_shows_in_its_name(
    model: str, operation: str, answer: Any, tokens: dict[str, int], units: dict[str, float]
) -> None:
    headers = {} if "inputTextTokenCount" in answer else counted(input=10)
    call = wire.the_call(exchange(f"/model/{model}/invoke", wire.response(answer, headers=headers)))
    assert (call.operation, dict(call.usage.tokens), dict(call.usage.units)) == (operation, tokens, units)
    assert reported(call)[1] == E


def test_speech_counts_the_whole_session() -> None:
    def told(scale: int) -> Any:
        total = {
            "input": {"speechTokens": 20 * scale, "textTokens": 3},
            "output": {"speechTokens": 9 * scale, "textTokens": 4},
        }
        details = {"delta": {}, "total": total}
        return {"event": {"usageEvent": {"details": details, "totalTokens": 29 * scale + 7}}}

    parts = [
        told(1),
        {"event": {"audioOutput": {"content": "c2VjcmV0"}}},
        told(2),
        {"event": {"completionEnd": {}}},
    ]
    call = wire.the_call(
        exchange(f"/model/{MODEL}/invoke-with-bidirectional-stream", frames(chunk(one) for one in parts))
    )
    expected = {"input": 3, "input_audio": 40, "output": 4, "output_audio": 18}
    assert (reported(call), call.streaming) == ((expected, E), True)


# -- what else there is

AGENT = "/agents/AGENT/agentAliases/ALIAS/sessions/session-7/text"
AGENTS = "bedrock-agent-runtime.us-east-1.amazonaws.com"


def trace(step: str, **invocation: Any) -> bytes:
    return event("trace", wire.dump({"agentId": "AGENT", "trace": {step: invocation}}))


def invoked(number: int, usage: Any, step: str = "orchestrationTrace") -> list[bytes]:
    told = {"traceId": f"0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9-{number}", "metadata": {"usage": usage}}
    return [
        trace(step, modelInvocationInput={"foundationModel": f"test.model-{number}", "text": "secret"}),
        trace(step, modelInvocationOutput=told),
    ]


SAID = event("chunk", wire.dump({"bytes": "c2VjcmV0"}))


def test_an_agent_is_the_sum_of_the_models_that_it_invokes() -> None:
    body = frames(
        [
            *invoked(1, {"inputTokens": 10, "outputTokens": 4}, "preProcessingTrace"),
            *invoked(2, {"inputTokens": 90, "outputTokens": 7}),
            trace("guardrailTrace", action="NONE"),
            SAID,
        ],
        content_type="application/octet-stream",
    )
    outcomes = exchange(AGENT, body, {"inputText": "secret", "enableTrace": True}, host=AGENTS)
    calls = [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]
    own = next(call for call in calls if call.operation == "invoke_agent")
    assert (reported(own)[1], own.billable, own.streaming, own.origin.session) == (
        U,
        False,
        True,
        "session-7",
    )
    assert {(c.request_model, c.usage.tokens["input"], c.billable) for c in calls if c is not own} == {
        ("test.model-1", 10, True),
        ("test.model-2", 90, True),
    }
    assert len({call.id for call in calls}) == 3


def test_an_agent_without_traces_is_paid_for_and_unknown() -> None:
    call = wire.the_call(exchange(AGENT, frames([SAID]), {"inputText": "secret"}, host=AGENTS))
    assert (reported(call)[1], call.billable, call.request_model, call.error_type) == (U, True, "", "")


@pytest.mark.parametrize(
    ("host", "path", "document", "expected"),
    [
        (HOST, "/guardrail/g/version/1/apply", {"source": "INPUT"}, ("guardrail", "", False)),
        (
            HOST,
            "/async-invoke",
            {"modelId": "amazon.nova-reel"},
            ("video_generation", "amazon.nova-reel", False),
        ),
        (AGENTS, "/flows/F/aliases/A", {"inputs": []}, ("invoke_agent", "", True)),
        (
            AGENTS,
            "/retrieveAndGenerate",
            {"retrieveAndGenerateConfiguration": {"knowledgeBaseConfiguration": {"modelArn": "arn:m"}}},
            ("invoke_agent", "arn:m", False),
        ),
        (
            AGENTS,
            "/rerank",
            {
                "rerankingConfiguration": {
                    "bedrockRerankingConfiguration": {"modelConfiguration": {"modelArn": "arn:r"}}
                }
            },
            ("rerank", "arn:r", False),
        ),
    ],
)
def test_operations_that_report_no_tokens(
    host: str, path: str, document: Any, expected: tuple[str, str, bool]
) -> None:
    call = wire.the_call(exchange(path, {"usage": {"contentPolicyUnits": 1}}, document, host=host))
    assert (call.operation, call.request_model, call.streaming) == expected
    assert (reported(call)[1], call.billable) == (U, True)


def test_counting_tokens_costs_nothing() -> None:
    [outcome] = exchange(f"/model/{MODEL}/count-tokens", {"inputTokens": 12}, {"input": {}})
    assert isinstance(outcome, Dropped)
    assert outcome.reason == "token_counting"
    assert outcome.call is not None
    assert (outcome.call.request_model, dict(outcome.call.usage.tokens)) == ("eu.test.model-v1:0", {})


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/openai/v1/chat/completions"])
@pytest.mark.parametrize("host", ["bedrock-mantle.us-east-1.api.aws", HOST])
def test_the_openai_front(host: str, path: str) -> None:
    call = wire.the_call(exchange(path, wire.chat_completion(), wire.chat_request(), host=host))
    assert (call.provider, dict(call.usage.tokens)) == ("aws.bedrock", {"input": 30, "output": 12})
