"""What counts as right, and what does not."""

from __future__ import annotations

from typing import Any

import pytest
from tests.proto.score.records import chat, record

from mmproto.outcome import Dropped, Failed, Outcome, Recognised
from mmproto.score.compare import differences
from mmproto.score.observed import observe
from mmproto.score.record import Record
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import QUALITY_ESTIMATED, QUALITY_EXACT, QUALITY_PARTIAL, Quality, Usage

COUNTS = {"input": 30, "output": 12}


def call(
    tokens: dict[str, int] | None = None,
    *,
    estimated: tuple[str, ...] = (),
    quality: Quality = QUALITY_EXACT,
    **fields: Any,
) -> Recognised:
    counts = COUNTS if tokens is None else tokens
    made: dict[str, Any] = {
        "provider": "openai",
        "operation": "chat",
        "request_model": "gpt-test",
        "response_model": "gpt-test-2026",
        "billable": True,
        "usage": Usage(
            tokens=counts, quality=QUALITY_ESTIMATED if estimated else quality, estimated=estimated
        ),
    }
    return Recognised(Call(**made | fields))


def wrong(outcomes: Outcome | list[Outcome], against: Record | None = None) -> set[str]:
    expected = against or record()
    listed = outcomes if isinstance(outcomes, list) else [outcomes]
    return {one.field for one in differences(observe(listed, expected), expected)}


def test_what_is_right_differs_in_nothing() -> None:
    assert wrong(call()) == set()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"provider": "azure.ai.openai"}, "provider"),
        ({"request_model": ""}, "model_requested"),
        ({"response_model": "other"}, "model_response"),
        ({"streaming": True}, "streaming"),
        ({"billable": False}, "billable"),
        ({"tokens": {"input": 31, "output": 12}}, "input_tokens"),
        ({"tokens": {"input": 30, "output": 0}}, "output_tokens"),
        ({"tokens": {"input": 20, "input_cache_read": 10, "output": 12}}, "cached_read_tokens"),
        ({"tokens": {"input": 20, "input_cache_write_1h": 10, "output": 12}}, "cache_write_tokens"),
        ({"tokens": {"input": 30, "output": 10, "output_reasoning": 2}}, "reasoning_tokens"),
    ],
)
def test_every_field_is_held(change: dict[str, Any], field: str) -> None:
    assert wrong(call(**change)) == {field}


def test_nothing_reported_is_not_zero() -> None:
    silent = record(chat(input_tokens=None, output_tokens=None, usage_reported=False))
    assert wrong(call({}), silent) == set()
    assert wrong(call({"input": 0, "output": 0}), silent) == {
        "input_tokens",
        "output_tokens",
        "usage_reported",
    }


def test_none_of_a_subset_and_not_reported_are_the_same() -> None:
    zero = record(chat(cached_read_tokens=0, reasoning_tokens=0))
    assert wrong(call(), zero) == set()
    assert wrong(call({"input": 30, "input_cache_read": 0, "output": 12}), record()) == set()


def test_more_of_a_part_than_of_the_whole_is_cut_to_it_and_not_exact() -> None:
    odd = record(chat(reasoning_tokens=20))
    cut = {"input": 30, "output": 0, "output_reasoning": 12}
    assert wrong(call(cut), odd) == {"reasoning_tokens"}
    assert wrong(call(cut, quality=QUALITY_PARTIAL), odd) == set()
    assert wrong(call(cut | {"output": 5, "output_reasoning": 7}, quality=QUALITY_PARTIAL), odd) == {
        "reasoning_tokens"
    }


def test_other_values_are_right_in_pairs() -> None:
    paired = record(chat(alt={"input_tokens": [60], "output_tokens": [24]}))
    assert wrong(call(), paired) == set()
    assert wrong(call({"input": 60, "output": 24}), paired) == set()
    assert wrong(call({"input": 60, "output": 12}), paired) == {"input_tokens"}
    alone = record(chat(alt={"input_tokens": [7]}))
    assert wrong(call({"input": 7, "output": 12}), alone) == set()


def test_estimates_are_no_reports() -> None:
    silent = record(chat(input_tokens=None, output_tokens=None, usage_reported=False))
    guessed = call(estimated=("input", "output"))
    assert wrong(guessed, silent) == set()
    assert wrong(guessed, record()) == {"input_tokens", "output_tokens", "usage_reported"}


def test_a_cut_off_stream_may_have_been_estimated_upwards() -> None:
    begun = record(chat(output_tokens=3, more={"aborted": True}))
    assert wrong(call(estimated=("output",)), begun) == set()
    assert wrong(call({"input": 30, "output": 2}, estimated=("output",)), begun) == {"output_tokens"}
    assert wrong(call({"input": 31, "output": 12}, estimated=("output",)), begun) == {"input_tokens"}


def test_several_calls_are_summed() -> None:
    both = record(chat(input_tokens=60, output_tokens=24))
    assert wrong([call(), call(response_model="another")], both) == set()
    assert wrong([call(), call()], record()) == {"input_tokens", "output_tokens"}


def test_of_several_calls_the_parts_are_only_held_where_they_are_expected() -> None:
    thinking = call({"input": 30, "output": 10, "output_reasoning": 2})
    totals: dict[str, Any] = {"input_tokens": 60, "output_tokens": 24}
    assert wrong([thinking, call()], record(chat(**totals))) == set()
    assert wrong([thinking, call()], record(chat(**totals, reasoning_tokens=3))) == {"reasoning_tokens"}


def test_an_embedding_makes_no_output() -> None:
    assert wrong(call({"input": 30}, operation="embeddings"), record(chat(output_tokens=0))) == set()
    assert wrong(call({"input": 30}), record(chat(output_tokens=0))) == {"output_tokens"}


def test_the_tier_that_served_is_held() -> None:
    tiered = record(chat(extra={"service_tier": "priority"}))
    assert wrong(call(service_tier="priority"), tiered) == set()
    assert wrong(call(), tiered) == {"service_tier"}


def test_a_field_that_is_not_expected_is_not_compared() -> None:
    document = chat()
    for name in ("model_response", "input_tokens", "reasoning_tokens"):
        del document["expected"][name]
    assert wrong(call({"input": 1, "output": 12}, response_model="x"), record(document)) == set()


def test_what_costs_nothing_has_no_numbers() -> None:
    counted = record(
        chat(
            path="/v1/responses/input_tokens",
            input_tokens=None,
            output_tokens=None,
            usage_reported=False,
            billable=False,
            model_response=None,
        )
    )
    read = Dropped("token_counting", call=call(response_model="another").call)
    assert wrong(Dropped("token_counting"), counted) == {"model_requested"}
    assert wrong(read, counted) == {"model_response"}


def test_a_failure_is_never_right() -> None:
    free = record(
        chat(
            model_requested=None,
            model_response=None,
            input_tokens=None,
            output_tokens=None,
            usage_reported=False,
            billable=False,
        )
    )
    assert wrong(Dropped("not_an_operation"), free) == set()
    assert wrong(Failed("malformed_json"), free) == {"outcome"}
    assert wrong([], free) == {"outcome", "provider"}


@pytest.mark.parametrize(
    ("theirs", "endpoint", "path", "ours", "right"),
    [
        ("google_gemini", "gemini.generateContent", "/", "gcp.gemini", True),
        ("watsonx", "watsonx.text", "/", "watsonx", False),
        ("gateway_proxy", "anthropic.messages", "/v1/messages", "anthropic", True),
        ("gateway_proxy", "anthropic.messages", "/v1/messages", "openai", False),
        ("gateway_proxy", "openai.chat", "/groq/v1/chat/completions", "groq", True),
        ("openai_compatible_local", "openai.chat", "/v1/chat/completions", "openai", True),
    ],
)
def test_names_of_providers(theirs: str, endpoint: str, path: str, ours: str, right: bool) -> None:
    against = record(chat(provider=theirs, endpoint=endpoint, path=path, host="10.0.0.7:4000"))
    assert wrong(call(provider=ours), against) == (set() if right else {"provider"})


def test_a_model_that_the_record_does_not_name_is_right_where_the_exchange_names_it() -> None:
    unnamed = record(chat(model_requested=None, model_response=None))
    assert wrong(call(), unnamed) == set()
    assert wrong(call(request_model="invented"), unnamed) == {"model_requested"}
    assert wrong(call(response_model="invented"), unnamed) == {"model_response"}
