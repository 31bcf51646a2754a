"""What the catalogue leaves open, decided: tiers before their verification, batch, fallbacks, overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpipeline.rating.service import RatingService
from mmproto.callform import parse_time
from mmproto.rateform import book_from_json
from mmproto.rating import Charge, usd
from mmproto.settings import ConfigurationError
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL, Usage

RATING = RatingService.open()
NOV = parse_time("2026-11-20T12:00:00Z")
BEFORE = parse_time("2026-05-01T00:00:00Z")  # before the catalogue verified any tier price


def price(
    provider: str, model: str, tier: str = "standard", at: int = NOV, /, **usage: float
) -> tuple[str | None, str]:
    charge = RATING.explain(provider, model, tier, at, usage)
    return (None if charge.nano_usd is None else usd(charge.nano_usd)), charge.reason


def test_standard_prices_are_rate_times_tokens() -> None:
    # gpt-4o: 2.50 in, 1.25 cached, 10 out per million
    assert price("openai", "gpt-4o", input=1000, input_cache_read=500, output=200) == ("0.005125", "")
    # claude-sonnet-4-5: 3 in, 0.30 cached, 3.75 written for 5 min, 6 for 1 h, 15 out
    written = {"input_cache_write_5m": 1000, "input_cache_write_1h": 1000}
    assert price("anthropic", "claude-sonnet-4-5", input_cache_read=1000, output=10, **written) == (
        "0.0102",
        "",
    )


@pytest.mark.parametrize("name", ["", "default", "auto", "standard", "STANDARD", " default "])
def test_names_of_the_standard_tier(name: str) -> None:
    assert price("openai", "gpt-4o", name, input=1000) == ("0.0025", "")


@pytest.mark.parametrize("tier", ["flex", "priority", "fast"])
def test_a_tier_that_was_not_verified_yet_has_no_price(tier: str) -> None:
    assert price("openai", "gpt-5", tier, BEFORE, input=1000) == (None, "unknown_tier")
    assert price("openai", "gpt-5", tier, NOV, input=1000)[0] is not None


@pytest.mark.parametrize(
    ("model", "tier", "usage", "usd"),
    [
        # By hand from the providers' lists: USD a million in / cached / out.
        ("o3", "standard", {"input": 1000, "output": 100}, "0.0028"),  # 2 / 0.5 / 8
        ("o3", "flex", {"input": 1000, "input_cache_read": 1000, "output": 100}, "0.00165"),  # 1 / 0.25 / 4
        (
            "o3",
            "priority",
            {"input": 1000, "input_cache_read": 1000, "output": 100},
            "0.005775",
        ),  # 3.5 / 0.875 / 14
        ("gpt-4o", "priority", {"input": 1000, "output": 100}, "0.00595"),  # 4.25 / 17
        ("gpt-4o", "standard", {"input": 1, "web_searches": 3}, "0.0300025"),  # a search is 0.01
        ("whisper-1", "standard", {"audio_seconds": 90}, "0.009"),  # 0.006 a minute
    ],
)
def test_prices_of_tiers_and_units(model: str, tier: str, usage: dict[str, float], usd: str) -> None:
    assert price("openai", model, tier, NOV, **usage) == (usd, "")


@pytest.mark.parametrize(
    ("provider", "model", "tier"),
    [
        ("anthropic", "claude-sonnet-4-5", "priority"),  # sold as commitments
        ("openai", "gpt-4o", "scale"),
        ("openai", "gpt-4o", "flex"),  # not offered for this model
        ("azure.ai.openai", "gpt-5", "priority"),  # the maker's tier prices are not the seller's
        ("deepseek", "deepseek-chat", "batch"),
    ],
)
def test_a_tier_without_a_price_is_never_charged_as_standard(provider: str, model: str, tier: str) -> None:
    assert price(provider, model, tier, input=1000, output=1) == (None, "unknown_tier")


@pytest.mark.parametrize("at", [BEFORE, NOV])
@pytest.mark.parametrize(
    ("provider", "model", "half"),
    [
        ("openai", "gpt-4o", "0.00125"),
        ("openai", "text-embedding-3-small", "0.00001"),
        ("anthropic", "claude-sonnet-4-5", "0.0015"),
        ("anthropic", "claude-3-5-sonnet-20241022", "0.0015"),
        ("azure.ai.openai", "gpt-4o", "0.00125"),
        ("gcp.gemini", "gemini-2.5-pro", "0.000625"),
    ],
)
def test_batch_is_half(provider: str, model: str, half: str, at: int) -> None:
    assert price(provider, model, "batch", at, input=1000) == (half, "")


def test_searches_keep_their_price_in_a_batch() -> None:
    for at in (BEFORE, NOV):
        cost = price("anthropic", "claude-sonnet-4-5", "batch", at, input=1000, web_searches=3)
        assert cost == ("0.0315", "")


def test_batch_of_a_model_for_which_half_does_not_hold() -> None:
    # The catalogue verified the full price for batch: half before that day would be a guess.
    assert price("openai", "gpt-3.5-turbo-1106", "batch", BEFORE, input=1000) == (None, "unknown_tier")
    assert price("openai", "gpt-3.5-turbo-1106", "batch", NOV, input=1000) == ("0.001", "")


def test_context_tier_is_a_cliff_over_all_input() -> None:
    # gemini-2.5-pro: 1.25 up to 200,000 tokens of input, cached ones included, 2.50 above
    assert price("gcp.gemini", "gemini-2.5-pro", input=100_000, input_cache_read=100_000) == ("0.1375", "")
    assert price("gcp.gemini", "gemini-2.5-pro", input=100_001, input_cache_read=100_000) == (
        "0.2750025",
        "",
    )


def test_a_price_changes_with_its_date() -> None:
    # o3 cost 10 / 40 until 2025-06-10 and 2 / 8 since
    assert price("openai", "o3", "standard", parse_time("2025-06-09T23:59:59Z"), input=1000) == ("0.01", "")
    assert price("openai", "o3", "standard", parse_time("2025-06-10T00:00:00Z"), input=1000) == ("0.002", "")


def test_off_peak_hours() -> None:
    night, day = parse_time("2025-06-01T20:00:00Z"), parse_time("2025-06-01T01:00:00Z")
    assert price("deepseek", "deepseek-chat", "standard", night, input=10**6) != price(
        "deepseek", "deepseek-chat", "standard", day, input=10**6
    )


def test_reasoning_costs_what_output_costs() -> None:
    assert price("openai", "gpt-5", output_reasoning=1000) == price("openai", "gpt-5", output=1000)


@pytest.mark.parametrize(
    ("provider", "model", "usage", "reason"),
    [
        ("openai", "gpt-99", {"input": 1}, "unknown_model"),
        ("openai", "", {"input": 1}, "unknown_model"),
        ("nobody", "gpt-4o", {"input": 1}, "unknown_provider"),
        ("ollama", "llama3", {"input": 1}, "unknown_provider"),
        ("openai", "gpt-4o", {}, "no_usage"),
        ("openai", "gpt-4o", {"input": 1, "inputs": 1}, "unknown_bucket"),
        ("openai", "gpt-4o", {"input": -1}, "invalid_count"),
        ("openai", "gpt-4o", {"input": 1.5}, "invalid_count"),
        ("openai", "gpt-4o", {"input": 10**11}, "invalid_count"),
        ("openai", "gpt-4o", {"input": float("nan")}, "invalid_count"),
        ("openai", "gpt-4o", {"web_searches": float("inf")}, "invalid_count"),
        ("openai", "gpt-4o", {"input": 1, "images": 1}, "no_rate_for_images"),
        ("openai", "text-embedding-3-small", {"input": 1, "output": 1}, "no_rate_for_output"),
    ],
)
def test_what_cannot_be_known_has_no_cost(
    provider: str, model: str, usage: dict[str, float], reason: str
) -> None:
    assert RATING.explain(provider, model, "standard", NOV, usage) == Charge(None, reason)


def test_a_count_of_zero_needs_no_rate() -> None:
    assert price("openai", "text-embedding-3-small", input=1000, output=0, images=0) == ("0.00002", "")


def test_groq_bills_ten_seconds_at_least() -> None:
    short = price("groq", "whisper-large-v3", audio_seconds=2)
    assert short == price("groq", "whisper-large-v3", audio_seconds=10)
    assert short != price("groq", "whisper-large-v3", audio_seconds=10.5)


def test_a_transcript_is_priced_by_its_seconds_whatever_tokens_are_counted() -> None:
    seconds = price("mistral_ai", "voxtral-mini-2602", audio_seconds=3600)
    assert seconds == ("0.18", "")
    tokens = {"input": 5, "input_audio": 375, "output": 11}
    assert price("mistral_ai", "voxtral-mini-2602", audio_seconds=3600, **tokens) == seconds
    assert price("mistral_ai", "voxtral-mini-2602", **tokens) == (None, "no_rate_for_input")


def call(**fields: object) -> Call:
    usage = Usage(tokens={"input": 1000}, quality=QUALITY_EXACT)
    made = Call(provider="openai", billable=True, started_at_unix_ns=NOV, usage=usage)
    made.MergeFrom(Call(**fields))  # type: ignore[arg-type]
    return made


def rated(made: Call) -> tuple[int | None, str]:
    return RATING.rate_call(made, dict(made.usage.tokens))[:2]


def test_the_responses_model_is_asked_first() -> None:
    assert rated(call(request_model="gpt-5", response_model="gpt-4o")) == (2_500_000, "")
    assert rated(call(request_model="gpt-4o", response_model="deployment-7")) == (2_500_000, "")
    assert rated(call(request_model="deployment-7")) == (None, "unknown_model")


def test_what_the_provider_does_not_bill_costs_nothing() -> None:
    made = call(request_model="gpt-99")
    made.billable = False
    assert RATING.rate_call(made, {}) == (0, "", "not_billable")


def test_usage_that_is_not_known_is_not_zero() -> None:
    made = call(request_model="gpt-4o")
    made.usage.Clear()
    assert rated(made) == (None, "no_usage")


def test_partial_usage_is_charged_by_what_there_is() -> None:
    made = call(request_model="gpt-4o")
    made.usage.quality = QUALITY_PARTIAL
    assert rated(made) == (2_500_000, "")


def test_the_router_prices_as_the_pipeline_does() -> None:
    names = ["openai", "anthropic", "azure.ai.openai"]
    book = book_from_json(RATING.export(names))
    usage = {"input": 12_345, "input_cache_read": 999, "output": 77, "output_reasoning": 5}
    for provider, model in [("openai", "gpt-5"), ("anthropic", "claude-haiku-4-5"), (names[2], "gpt-4o")]:
        for tier in ("standard", "batch", "flex"):
            ours = RATING.explain(provider, model, tier, NOV, usage)
            assert book.price(provider, (model,), tier, NOV, usage) == ours


OVERRIDES = """
rates:
  - provider: openai
    models: [gpt-4o, "gpt-4o-2024-*"]
    effective_from: "2026-07-01"
    effective_to: "2027-01-01"
    source: contract 17
    usd_per_million: {input: 2.0, output: 8}
    usd_each: {images: 0.04}
  - provider: vllm.internal
    models: ["*"]
    effective_from: "2026-01-01"
    source: our own machines
    usd_per_million: {input: 0.05, output: 0.1}
"""


def test_negotiated_rates_apply_in_their_time_and_tier(tmp_path: Path) -> None:
    file = tmp_path / "rates.yaml"
    file.write_text(OVERRIDES, encoding="utf-8")
    rating = RatingService.open(file)

    def cost(provider: str, model: str, tier: str, at: int, **usage: int) -> int | None:
        return rating.explain(provider, model, tier, at, usage).nano_usd

    assert cost("openai", "gpt-4o-2024-08-06", "standard", NOV, input=1000) == 2_000_000
    assert cost("openai", "gpt-4o", "standard", NOV, input_cache_read=1000, images=2) == 82_000_000
    assert cost("openai", "gpt-4o", "standard", BEFORE, input=1000) == 2_500_000
    assert cost("openai", "gpt-4o", "batch", NOV, input=1000) == 1_250_000
    assert cost("openai", "gpt-4o-mini", "standard", NOV, input=1000) == 150_000
    assert cost("vllm.internal", "llama-3", "standard", NOV, input=1000) == 50_000
    assert rating.version != RATING.version


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("usd_per_million: {inputs: 1}", "unknown bucket 'inputs'"),
        ("usd_per_million: {input: -1}", "0 or more"),
        ("usd_per_milion: {input: 1}", "did you mean 'usd_per_million'"),
        ("service_tier: turbo", "service_tier 'turbo'"),
        ("effective_to: '2020-01-01'", "later"),
        ("effective_from: 'soon'", "is not a day"),
    ],
)
def test_a_wrong_override_is_named(tmp_path: Path, line: str, problem: str) -> None:
    base = {
        "provider": "openai",
        "models": "[gpt-4o]",
        "effective_from": "'2026-07-01'",
        "source": "x",
        "usd_per_million": "{input: 1}",
    }
    key, _, value = line.partition(": ")
    entry = "\n".join(f"    {name}: {text}" for name, text in (base | {key: value}).items())
    file = tmp_path / "rates.yaml"
    file.write_text(f"rates:\n  -{entry[3:]}\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match=problem):
        RatingService.open(file)
