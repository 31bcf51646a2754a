"""Anthropic messages: disjoint buckets, the overlay of a stream's two usages, iterations, errors."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from tests.proto import wire
from tests.proto.providers import asking
from tests.proto.providers.reported import reported

from mmproto.exchange import Exchange, RequestHead, ResponseHead
from mmproto.outcome import Dropped, Recognised
from mmproto.v1.usage_pb2 import Quality

E, P = Quality.QUALITY_EXACT, Quality.QUALITY_PARTIAL


def ask(body: bytes, *, close: bool = True, **fields: Any) -> Recognised:
    sent = wire.request("api.anthropic.com", "/v1/messages", wire.chat_request(model="claude-test", **fields))
    outcome, *_ = wire.read(sent, body, close=close)
    assert isinstance(outcome, Recognised)
    return replace(outcome, call=asking.without_estimates(outcome.call))


def stream(events: list[Any], *, names: bool = True, framing: str = "chunked", **fields: Any) -> Recognised:
    body = wire.response(wire.sse(events, names=names), content_type="text/event-stream", framing=framing)
    return ask(body, stream=True, **fields)


def split(five: Any, hour: Any) -> dict[str, Any]:
    return {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour}


USAGES: list[tuple[str, dict[str, Any], dict[str, int], int, tuple[str, ...]]] = [
    ("plain", {"input_tokens": 21, "output_tokens": 34}, {"input": 21, "output": 34}, E, ()),
    (
        "cache beside input",
        {
            "input_tokens": 3,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 50,
            "output_tokens": 4,
        },
        {"input": 3, "input_cache_read": 100, "input_cache_write_5m": 50, "output": 4},
        E,
        (),
    ),
    (
        "split by lifetime",
        {
            "input_tokens": 3,
            "cache_creation_input_tokens": 50,
            "cache_creation": split(20, 30),
            "output_tokens": 4,
        },
        {"input": 3, "input_cache_write_5m": 20, "input_cache_write_1h": 30, "output": 4},
        E,
        (),
    ),
    (
        "split that says less",
        {
            "input_tokens": 3,
            "cache_creation_input_tokens": 50,
            "cache_creation": split(0, 30),
            "output_tokens": 4,
        },
        {"input": 3, "input_cache_write_5m": 20, "input_cache_write_1h": 30, "output": 4},
        E,
        (),
    ),
    (
        "split that says more",
        {
            "input_tokens": 3,
            "cache_creation_input_tokens": 10,
            "cache_creation": split(20, 30),
            "output_tokens": 4,
        },
        {"input": 3, "input_cache_write_5m": 10, "output": 4},
        P,
        ("contradictory_counts",),
    ),
    (
        "thinking inside output",
        {"input_tokens": 3, "output_tokens": 40, "output_tokens_details": {"thinking_tokens": 25}},
        {"input": 3, "output": 15, "output_reasoning": 25},
        E,
        (),
    ),
    ("negative", {"input_tokens": -3, "output_tokens": 4}, {"output": 4}, P, ("bad_count",)),
    (
        "compaction on the same model",
        {
            "input_tokens": 100,
            "output_tokens": 10,
            "iterations": [
                {"type": "compaction", "input_tokens": 9000, "output_tokens": 70},
                {"type": "message", "input_tokens": 100, "output_tokens": 10},
            ],
        },
        {"input": 9100, "output": 80},
        E,
        (),
    ),
    (
        "advisor on another model",
        {
            "input_tokens": 100,
            "output_tokens": 10,
            "iterations": [
                {"type": "message", "input_tokens": 100, "output_tokens": 10},
                {"type": "advisor_message", "model": "claude-dear", "input_tokens": 500, "output_tokens": 60},
            ],
        },
        {"input": 100, "output": 10},
        E,
        (),
    ),
    (
        "an attempt that was declined is inside the top level or not: the passes tell",
        {
            "input_tokens": 300,
            "output_tokens": 14,
            "iterations": [
                {"type": "message", "model": "claude-dear", "input_tokens": 100, "output_tokens": 4},
                {
                    "type": "fallback_message",
                    "model": "claude-test-1",
                    "input_tokens": 200,
                    "output_tokens": 10,
                },
            ],
        },
        {"input": 200, "output": 10},
        E,
        (),
    ),
    (
        "an alias is the model that it stands for",
        {
            "input_tokens": 5,
            "output_tokens": 6,
            "iterations": [
                {
                    "type": "compaction",
                    "model": "claude-test-1-20260101",
                    "input_tokens": 90,
                    "output_tokens": 7,
                }
            ],
        },
        {"input": 95, "output": 13},
        E,
        (),
    ),
]


@pytest.mark.parametrize(
    ("usage", "buckets", "quality", "anomalies"), [u[1:] for u in USAGES], ids=[u[0] for u in USAGES]
)
def test_usage(
    usage: dict[str, Any], buckets: dict[str, int], quality: int, anomalies: tuple[str, ...]
) -> None:
    outcome = ask(wire.response(wire.message(usage=usage)))
    assert (*reported(outcome.call), outcome.anomalies) == (buckets, quality, anomalies)


def test_message() -> None:
    usage = {
        "input_tokens": 21,
        "output_tokens": 34,
        "service_tier": "priority",
        "server_tool_use": {"web_search_requests": 2},
    }
    call = ask(
        wire.response(wire.message(usage=usage)), metadata={"user_id": "user_9_account_8_session_abc"}
    ).call
    assert (call.provider, call.operation, call.response_model) == ("anthropic", "chat", "claude-test-1")
    assert (call.response_id, list(call.finish_reasons)) == (wire.MESSAGE_ID, ["end_turn"])
    assert (call.service_tier, dict(call.usage.units)) == ("priority", {"web_searches": 2.0})
    assert (call.origin.end_user, call.origin.session) == ("user_9_account_8", "abc")
    assert b"secret" not in call.SerializeToString()


@pytest.mark.parametrize("names", [True, False])
def test_stream(names: bool) -> None:
    call = stream(wire.message_events(), names=names).call
    assert (dict(call.usage.tokens), call.usage.quality) == ({"input": 21, "output": 34}, E)
    assert (call.streaming, call.billable, call.error_type, list(call.finish_reasons)) == (
        True,
        True,
        "",
        ["end_turn"],
    )


def test_the_delta_replaces_what_it_repeats_and_keeps_the_rest() -> None:
    start = {"cache_read_input_tokens": 0, "cache_creation_input_tokens": 0, "cache_creation": split(0, 0)}
    delta = {
        "input_tokens": 28,
        "cache_read_input_tokens": 46,
        "cache_creation_input_tokens": 14,
        "output_tokens": 9,
    }
    outcome = stream(wire.message_events({"service_tier": "standard", **start}, delta))
    assert dict(outcome.call.usage.tokens) == {
        "input": 28,
        "input_cache_read": 46,
        "input_cache_write_5m": 14,
        "input_cache_write_1h": 0,
        "output": 9,
    }
    assert (outcome.call.usage.quality, outcome.call.service_tier, outcome.anomalies) == (E, "standard", ())


def test_nulls_in_the_delta_do_not_erase_the_start() -> None:
    call = stream(wire.message_events({"cache_read_input_tokens": 5}, {"input_tokens": None})).call
    assert dict(call.usage.tokens) == {"input": 21, "input_cache_read": 5, "output": 34}


@pytest.mark.parametrize("kept", [1, 4, 6])
def test_a_stream_cut_off_has_its_input_and_no_output(kept: int) -> None:
    call = stream(wire.message_events()[:kept], framing="close").call
    assert reported(call) == ({"input": 21}, P)
    assert (call.billable, call.error_type) == (True, "stream_incomplete")


@pytest.mark.parametrize(("more", "tokens"), [(False, {"input": 21}), (True, {"input": 21, "output": 34})])
def test_a_count_that_may_still_grow_is_none(more: bool, tokens: dict[str, int]) -> None:
    events = wire.message_events()
    running = {"type": "message_delta", "delta": {"stop_reason": None}, "usage": {"output_tokens": 9}}
    call = stream([*events[:4], running, *(events[4:] if more else [])], framing="close").call
    assert dict(call.usage.tokens) == tokens


def test_a_stream_that_ends_without_a_reason_has_ended() -> None:
    events = wire.message_events()
    events[-2]["delta"] = {}
    call = stream(events).call
    assert (dict(call.usage.tokens), call.usage.quality) == ({"input": 21, "output": 34}, E)


def test_an_error_inside_a_stream() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}
    call = stream([*wire.message_events()[:4], error]).call
    assert (call.error_type, call.billable, call.http_status) == ("overloaded_error", False, 200)
    assert dict(call.usage.tokens) == {"input": 21}


def test_an_error() -> None:
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "m"}, "request_id": "req_1"}
    call = ask(wire.response(body, status=429)).call
    assert (call.error_type, call.billable, call.http_status, call.streaming) == (
        "rate_limit_error",
        False,
        429,
        False,
    )


def messages(usage: dict[str, Any], **options: Any) -> list[Any]:
    return asking.calls(
        "api.anthropic.com",
        "/v1/messages",
        wire.chat_request(model="claude-test"),
        wire.message(usage=usage),
        **options,
    )


def test_an_advisor_is_a_call_of_its_own_at_its_own_model() -> None:
    passes = [
        {"type": "message", "input_tokens": 100, "output_tokens": 10},
        {"type": "advisor_message", "model": "claude-dear", "input_tokens": 500, "output_tokens": 60},
        {"type": "advisor_message", "model": "claude-dear", "input_tokens": 700, "output_tokens": 80},
    ]
    usage = {"input_tokens": 100, "output_tokens": 10, "service_tier": "standard", "iterations": passes}
    own, *advisors = messages(usage)
    assert (own.response_model, dict(own.usage.tokens)) == ("claude-test-1", {"input": 100, "output": 10})
    assert [(a.response_model, a.request_model, dict(a.usage.tokens)) for a in advisors] == [
        ("claude-dear", "claude-dear", {"input": 500, "output": 60}),
        ("claude-dear", "claude-dear", {"input": 700, "output": 80}),
    ]
    assert all(a.usage.quality == E and a.billable and a.service_tier == "standard" for a in advisors)
    assert len({own.id, *(a.id for a in advisors)}) == 3
    assert [a.id for a in advisors] == [a.id for a in messages(usage)[1:]]  # the same wherever it is seen


def test_passes_of_a_stream_that_was_cut_off_are_not_told() -> None:
    passes = [{"type": "advisor_message", "model": "claude-dear", "input_tokens": 5, "output_tokens": 6}]
    events = wire.message_events({"iterations": passes})[:3]
    body = wire.sse(events, names=True)
    [call] = asking.calls(
        "api.anthropic.com", "/v1/messages", wire.chat_request(stream=True), body, kind=asking.SSE, cut=True
    )
    assert reported(call) == ({"input": 21}, P)


@pytest.mark.parametrize(
    ("usage", "asked", "tier"),
    [
        ({"service_tier": "standard"}, {}, "standard"),
        ({"service_tier": "standard", "speed": "standard"}, {"speed": "fast"}, "standard"),
        ({"service_tier": "standard", "speed": "fast"}, {"speed": "fast"}, "fast"),
        ({"service_tier": "standard"}, {"speed": "fast"}, "fast"),
        ({}, {"service_tier": "auto"}, "auto"),
    ],
)
def test_tiers(usage: dict[str, Any], asked: dict[str, Any], tier: str) -> None:
    body = wire.message(usage={"input_tokens": 1, "output_tokens": 2, **usage})
    assert ask(wire.response(body), **asked).call.service_tier == tier


@pytest.mark.parametrize(
    ("beyond", "tier"), [(None, "subscription"), ("false", "subscription"), ("true", "standard")]
)
def test_what_a_plan_pays_for_has_a_tier_of_its_own(beyond: str | None, tier: str) -> None:
    headers = {"anthropic-ratelimit-unified-status": "allowed"}
    if beyond:
        headers["anthropic-ratelimit-unified-overage-in-use"] = beyond
    usage = {"input_tokens": 1, "output_tokens": 2, "service_tier": "standard"}
    [call] = messages(usage, headers=headers)
    assert call.service_tier == tier


@pytest.mark.parametrize(
    ("host", "output", "billable"),
    [
        ("api.anthropic.com", 0, False),
        ("api.anthropic.com", 7, True),
        ("openrouter.ai", 0, True),
    ],
)
def test_a_refusal_before_any_output_is_not_billed(host: str, output: int, billable: bool) -> None:
    body = wire.message(stop_reason="refusal", usage={"input_tokens": 412, "output_tokens": output})
    call = asking.call(host, "/v1/messages", wire.chat_request(), body)
    assert (call.billable, list(call.finish_reasons)) == (billable, ["refusal"])


def test_a_gateway_says_what_it_charged() -> None:
    usage = {"input_tokens": 5, "output_tokens": 6, "cost": 0.00042}
    call = asking.call("openrouter.ai", "/api/v1/messages", wire.chat_request(), wire.message(usage=usage))
    assert (call.provider, call.reported_cost_nano_usd) == ("openrouter", 420_000)


FREE = [
    ("POST", "/v1/messages/count_tokens", {"input_tokens": 36}, 200, "token_counting"),
    (
        "POST",
        "/v1/messages/count_tokens?beta=true",
        {"error": {"type": "not_found_error"}},
        404,
        "token_counting",
    ),
    ("POST", "/v1/messages/batches", {"id": "msgbatch_1", "type": "message_batch"}, 200, "preparation"),
    (
        "GET",
        "/v1/messages/batches/msgbatch_1",
        {"id": "msgbatch_1", "type": "message_batch"},
        200,
        "retrieval",
    ),
    ("POST", "/v1/messages/batches/msgbatch_1/cancel", {"type": "message_batch"}, 200, "retrieval"),
    ("GET", "/v1/messages/batches?limit=5", {"data": [], "has_more": False}, 200, "retrieval"),
]


@pytest.mark.parametrize(("method", "path", "answer", "status", "why"), FREE)
def test_what_generates_nothing_costs_nothing(
    method: str, path: str, answer: Any, status: int, why: str
) -> None:
    request = wire.chat_request() if method == "POST" else None
    assert asking.reason("api.anthropic.com", path, request, answer, method=method, status=status) == why


def result(number: int, **fields: Any) -> dict[str, Any]:
    message = wire.message(id=f"msg_01BaTcHtEsTlInE{number:06}", **fields)
    return {"custom_id": str(number), "result": {"type": "succeeded", "message": message}}


@pytest.mark.parametrize("count", [1, 3])
def test_every_line_of_a_batch_is_a_call_at_the_batch_tier(count: int) -> None:
    usage = {"input_tokens": 10, "output_tokens": 4, "service_tier": "batch"}
    body = asking.lines(
        [
            *[result(number, usage=usage) for number in range(count)],
            {"custom_id": "e", "result": {"type": "errored", "error": {"type": "error"}}},
            {"custom_id": "x", "result": {"type": "expired"}},
        ][: count if count == 1 else None]
    )
    path = "/v1/messages/batches/msgbatch_1/results"
    found = asking.outcomes("api.anthropic.com", path, None, body, method="GET", kind="application/x-jsonl")
    calls = [outcome.call for outcome in found if isinstance(outcome, Recognised)]
    assert [outcome for outcome in found if not isinstance(outcome, Recognised)] == [
        Dropped("counted_in_portions")
    ]
    assert len({call.id for call in calls}) == len(calls) == count
    for call in calls:
        assert (call.operation, call.service_tier, call.response_model) == ("chat", "batch", "claude-test-1")
        assert (dict(call.usage.tokens), call.usage.quality) == ({"input": 10, "output": 4}, E)


def test_a_long_batch_is_not_held() -> None:
    head = RequestHead("GET", "/v1/messages/batches/msgbatch_1/results", (("host", "api.anthropic.com"),))
    exchange = Exchange(head, wire.RULES, "fallback-1", wire.START_NS)
    exchange.request_end(wire.START_NS)
    exchange.response_head(ResponseHead(200, (("content-type", "application/x-jsonl"),)), wire.START_NS)
    told, held = 0, []
    for number in range(3000):
        exchange.response_body(wire.dump(result(number)) + b"\n", wire.START_NS)
        told += len(exchange.further(wire.START_NS))
        if number in (1000, 2999):
            held.append(tracemalloc.get_traced_memory()[0] if tracemalloc.is_tracing() else 0)
        elif number == 999:
            tracemalloc.start()
    tracemalloc.stop()
    assert told == 3000
    assert held[1] - held[0] < 200_000  # 100 bytes a line


def completion(**fields: Any) -> dict[str, Any]:
    return {
        "type": "completion",
        "id": "compl_01AbCdEfGhIjKlMnOp",
        "completion": "x",
        "model": "claude-2.1",
        **fields,
    }


@pytest.mark.parametrize(("model", "told"), [("claude-2.1", ""), ("claude-2", "claude-2.1")])
def test_first_completions_count_nothing(model: str, told: str) -> None:
    request = {"model": model, "prompt": "p", "max_tokens_to_sample": 3}
    answer = completion(stop_reason="stop_sequence")
    call = asking.call("api.anthropic.com", "/v1/complete", request, answer)
    assert (call.operation, call.request_model, call.response_model) == ("text_completion", model, told)
    assert (*reported(call), call.billable, call.streaming) == ({}, Quality.QUALITY_UNKNOWN, True, False)


@pytest.mark.parametrize("whole", [True, False])
def test_first_completions_stream(whole: bool) -> None:
    events: list[Any] = [completion(stop_reason=None), {"type": "ping"}, completion(stop_reason="max_tokens")]
    body = wire.sse(events if whole else events[:2], names=True)
    request = {"model": "claude-2.1", "prompt": "p", "stream": True}
    call = asking.call("api.anthropic.com", "/v1/complete", request, body, kind=asking.SSE, cut=not whole)
    assert (call.streaming, call.error_type, call.response_id) == (
        True,
        "" if whole else "stream_incomplete",
        "compl_01AbCdEfGhIjKlMnOp",
    )


def request_end(number: int, **fields: Any) -> dict[str, Any]:
    usage = {"input_tokens": 10, "cache_read_input_tokens": 90, "output_tokens": 5}
    identifier = f"sevt_01AbCdEfGhIjKlMnOp{number}"
    return {"type": "span.model_request_end", "id": identifier, "model_usage": usage, **fields}


SESSION_EVENTS = [
    {"type": "session.status_running", "id": "sevt_0"},
    request_end(1),
    {"type": "agent.message", "id": "sevt_2", "content": [{"type": "text", "text": "secret"}]},
    request_end(2, model="claude-test"),
    request_end(3, is_error=True, model_usage=None),
]
SESSION_PATHS = [
    ("/v1/sessions/sesn_1/events/stream", wire.sse(SESSION_EVENTS, names=True), asking.SSE),
    ("/v1/sessions/sesn_1/threads/sthr_1/stream", wire.sse(SESSION_EVENTS), asking.SSE),
    ("/v1/sessions/sesn_1/events?limit=20", wire.dump({"data": SESSION_EVENTS}), "application/json"),
]


@pytest.mark.parametrize(("path", "body", "kind"), SESSION_PATHS)
def test_every_model_request_of_a_managed_session_is_a_call(path: str, body: bytes, kind: str) -> None:
    found = asking.outcomes("api.anthropic.com", path, None, body, method="GET", kind=kind)
    calls = [outcome.call for outcome in found if isinstance(outcome, Recognised)]
    assert [(call.response_model, dict(call.usage.tokens), call.billable) for call in calls] == [
        ("", {"input": 10, "input_cache_read": 90, "output": 5}, True),
        ("claude-test", {"input": 10, "input_cache_read": 90, "output": 5}, True),
        ("", {}, False),
    ]
    assert {call.origin.session for call in calls} == {"sesn_1"}
    stream = asking.outcomes(
        "api.anthropic.com", *SESSION_PATHS[0][:1], None, SESSION_PATHS[0][1], method="GET"
    )
    again = [outcome.call.id for outcome in stream if isinstance(outcome, Recognised)]
    assert [call.id for call in calls] == again  # an event that is seen twice is one call


def test_setting_up_a_session_costs_nothing() -> None:
    session = {"id": "sesn_1", "type": "session", "usage": {"input_tokens": 5}}
    assert asking.reason("api.anthropic.com", "/v1/sessions", {"agent": "a"}, session) == "preparation"
    assert (
        asking.reason("api.anthropic.com", "/v1/sessions/sesn_1", None, session, method="GET") == "retrieval"
    )
