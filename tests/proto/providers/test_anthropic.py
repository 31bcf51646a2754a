"""Anthropic messages: disjoint buckets, the overlay of a stream's two usages, iterations, errors."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto import wire

from mmproto.exchange import Recognised
from mmproto.v1.usage_pb2 import Quality

E, P = Quality.QUALITY_EXACT, Quality.QUALITY_PARTIAL


def ask(body: bytes, *, close: bool = True, **fields: Any) -> Recognised:
    sent = wire.request("api.anthropic.com", "/v1/messages", wire.chat_request(model="claude-test", **fields))
    outcome, *_ = wire.read(sent, body, close=close)
    assert isinstance(outcome, Recognised)
    return outcome


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
    ("reported", "buckets", "quality", "anomalies"), [u[1:] for u in USAGES], ids=[u[0] for u in USAGES]
)
def test_usage(
    reported: dict[str, Any], buckets: dict[str, int], quality: int, anomalies: tuple[str, ...]
) -> None:
    outcome = ask(wire.response(wire.message(usage=reported)))
    call = outcome.call
    assert (dict(call.usage.tokens), call.usage.quality, outcome.anomalies) == (buckets, quality, anomalies)


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
    assert (dict(call.usage.tokens), call.usage.quality) == ({"input": 21}, P)
    assert (call.billable, call.error_type) == (True, "stream_incomplete")


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
