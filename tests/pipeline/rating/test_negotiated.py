"""Negotiated rates, with amounts worked out by hand: discounts, cliffs, what holds where several could.

List prices used, in USD for a million: gpt-4o 2.50 in, 1.25 cached, 10 out, batch half of it; o3 10 in until
2025-06-10 and 2 since; gemini-2.5-pro 1.25 in and 10 out, 2.50 and 15 above 200,000 tokens of input;
claude-sonnet-4-5 3 in, 15 out, web searches 0.01 each.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmpipeline.rating import catalogue
from mmpipeline.rating.books import Installed
from mmpipeline.rating.service import RatingService
from mmproto.callform import parse_time
from mmproto.settings import ConfigurationError

NOV = parse_time("2026-11-20T12:00:00Z")


def rating_of(folder: Path, *entries: str) -> RatingService:
    """Entries of YAML in flow style, as the rates in force."""
    file = folder / "rates.yaml"
    file.write_text("rates:\n" + "".join(f"  - {{{entry}}}\n" for entry in entries), encoding="utf-8")
    return RatingService.open(file)


def entry(
    models: str, what: str, since: str = "2026-07-01", until: str = "", provider: str = "openai"
) -> str:
    end = f", effective_to: '{until}'" if until else ""
    return (
        f"provider: {provider}, models: [{models}], effective_from: '{since}'{end}, source: contract, {what}"
    )


def nano(
    rating: RatingService,
    model: str,
    at: str | int = NOV,
    tier: str = "",
    provider: str = "openai",
    **usage: int,
) -> int | None:
    moment = parse_time(at) if isinstance(at, str) else at
    return rating.explain(provider, model, tier, moment, usage).nano_usd


def test_a_discount_is_percent_of_the_list_price(tmp_path: Path) -> None:
    rating = rating_of(tmp_path, entry("'*'", "discount_percent: 12.5"))
    # 1,000 in: 0.0025 less an eighth; 7 cached: 8,750 nano-dollars less an eighth is 7,656.25
    assert nano(rating, "gpt-4o", input=1000) == 2_187_500
    assert nano(rating, "gpt-4o", input_cache_read=7) == 7_656
    assert nano(rating, "gpt-4o", input=1000, input_cache_read=7, output=3) == 2_187_500 + 7_656 + 26_250
    # Batch is half of the list price, and of that again an eighth less.
    assert nano(rating, "gpt-4o", tier="batch", input=1000) == 1_093_750
    # Another provider, and the day before.
    assert nano(rating, "claude-sonnet-4-5", provider="anthropic", input=1000) == 3_000_000
    assert nano(rating, "gpt-4o", "2026-06-30T23:59:59.999Z", input=1000) == 2_500_000
    card = rating.explain("openai", "gpt-4o-2024-08-06", "", NOV, {"input": 1}).card
    assert card is not None
    assert card.sources == (catalogue.catalogue_version(), "12.5 % off the list price: contract")
    assert card.id.startswith("openai/gpt-4o/standard@2026-07-01#")


def test_only_the_sum_is_rounded_half_to_even(tmp_path: Path) -> None:
    rating = rating_of(tmp_path, entry("gpt-4o", "discount_percent: 33.333"))
    # 2.5 * 0.66667 = 1.666675 a million: 1 token is 1,666.675 nano-dollars, 2 are 3,333.35, 20 are 33,333.5
    assert [nano(rating, "gpt-4o", input=count) for count in (1, 2, 20, 60)] == [1667, 3333, 33334, 100_000]
    card = rating.explain("openai", "gpt-4o", "", NOV, {"input": 1}).card
    assert card is not None
    assert card.rates["input"].usd == Decimal("1.666675")


def test_a_discount_of_one_tier_and_of_some_buckets(tmp_path: Path) -> None:
    rating = rating_of(
        tmp_path,
        entry("gpt-4o", "discount_percent: 50, service_tier: batch"),
        entry("'claude-*'", "discount_percent: 10, discount_on: [input, output]", provider="anthropic"),
    )
    assert nano(rating, "gpt-4o", input=1000) == 2_500_000
    assert nano(rating, "gpt-4o", tier="batch", input=1000) == 625_000
    cost = nano(rating, "claude-sonnet-4-5", provider="anthropic", input=1000, output=10, web_searches=2)
    assert cost == 2_700_000 + 135_000 + 20_000_000


def test_a_surcharge_is_a_discount_below_zero(tmp_path: Path) -> None:
    rating = rating_of(tmp_path, entry("gpt-4o", "discount_percent: -10"))
    assert nano(rating, "gpt-4o", input=1000) == 2_750_000
    card = rating.explain("openai", "gpt-4o", "", NOV, {"input": 1}).card
    assert card is not None
    assert "10 % on the list price" in card.sources[1]


def test_a_discount_follows_the_list_price_and_its_cliffs(tmp_path: Path) -> None:
    rating = rating_of(
        tmp_path,
        entry("o3", "discount_percent: 20", since="2025-01-01"),
        entry("'gemini-2.5-*'", "discount_percent: 20", since="2025-01-01", provider="gcp.gemini"),
    )
    assert nano(rating, "o3", "2025-06-09T23:59:59Z", input=1000) == 8_000_000
    assert nano(rating, "o3", "2025-06-10T00:00:00Z", input=1000) == 1_600_000
    google = "gcp.gemini"
    assert nano(rating, "gemini-2.5-pro", provider=google, input=200_000, output=10) == 200_000_000 + 80_000
    assert nano(rating, "gemini-2.5-pro", provider=google, input=200_001, output=10) == 400_002_000 + 120_000


def test_prices_with_a_cliff(tmp_path: Path) -> None:
    cliff = "long_context: [{above_input_tokens: 1000, usd_per_million: {input: 3, output: 9}}]"
    rating = rating_of(tmp_path, entry("gpt-4o", f"usd_per_million: {{input: 1, output: 4}}, {cliff}"))
    assert nano(rating, "gpt-4o", input=600, input_cache_read=400, output=10) == 1_000_000 + 40_000
    assert nano(rating, "gpt-4o", input=600, input_cache_read=401, output=10) == 3_003_000 + 90_000


def test_the_narrowest_entry_in_force_holds(tmp_path: Path) -> None:
    rating = rating_of(
        tmp_path,
        entry("'*'", "discount_percent: 10", since="2026-01-01"),
        entry("'gpt-4o*'", "discount_percent: 20", since="2026-01-01", until="2026-12-01"),
        entry("gpt-4o-2024-08-06", "usd_per_million: {input: 1, output: 1}", "2026-03-01", "2026-06-01"),
        entry("gpt-4o-2024-08-06", "usd_per_million: {input: 0.5, output: 1}", "2026-05-01", "2026-05-02"),
    )
    by_day = {
        "2025-12-31": 2_500_000,
        "2026-01-01": 2_000_000,
        "2026-03-01": 1_000_000,
        "2026-05-01": 500_000,
        "2026-05-02": 1_000_000,
        "2026-06-01": 2_000_000,
        "2026-12-01": 2_250_000,
    }
    found = {day: nano(rating, "gpt-4o-2024-08-06", f"{day}T00:00:00Z", input=1000) for day in by_day}
    assert found == by_day
    assert nano(rating, "gpt-4o-mini", input=1000) == 120_000  # 0.15 list
    assert nano(rating, "gpt-5", input=1000) == 1_125_000  # 1.25 list
    # A tier that the narrow price is not for: the discount that is for all tiers.
    assert nano(rating, "gpt-4o-2024-08-06", "2026-03-01T00:00:00Z", tier="batch", input=1000) == 1_000_000
    assert nano(rating, "gpt-99", input=1000) is None


def test_the_model_that_is_meant_is_the_catalogues_first_match(tmp_path: Path) -> None:
    """With half off everything each reference costs half of what it costs without, or is unknown as well."""
    half = rating_of(tmp_path, entry("'*'", "discount_percent: 50", since="2020-01-01"))
    plain = RatingService.open()
    references = [
        "gpt-4o",
        "gpt-4o-mini-2024-07-18",
        "GPT-4.1",
        "o3-pro",
        "gpt-5.2-20251211",
        "ft:gpt-4o",
        "x",
    ]
    for reference in references:
        for tier in ("standard", "batch", "flex", "priority"):
            usage = {"input": 1_000_000, "output": 2_000_000}
            listed = plain.explain("openai", reference, tier, NOV, usage)
            ours = half.explain("openai", reference, tier, NOV, usage)
            if listed.nano_usd is None:
                assert (ours.nano_usd, ours.reason) == (None, listed.reason)
            else:
                assert ours.nano_usd is not None
                assert ours.nano_usd * 2 == listed.nano_usd


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    percent=st.decimals(-100, 100, places=3),
    tokens=st.dictionaries(
        st.sampled_from(["input", "input_cache_read", "output"]), st.integers(0, 10**7), min_size=1
    ),
)
def test_any_discount_is_exact_up_to_the_one_rounding(
    tmp_path: Path, percent: Decimal, tokens: dict[str, int]
) -> None:
    rating = rating_of(tmp_path, entry("gpt-4o", f"discount_percent: {percent:f}"))
    usd = {"input": Fraction(5, 2), "input_cache_read": Fraction(5, 4), "output": Fraction(10)}
    exact = sum(count * usd[bucket] * 1000 for bucket, count in tokens.items())
    assert rating.explain("openai", "gpt-4o", "", NOV, tokens).nano_usd == round(
        exact * (100 - Fraction(percent)) / 100
    )


INPUT = "usd_per_million: {input: 1}"
CLIFF = "{above_input_tokens: 5, usd_per_million: {input: 2}}"


@pytest.mark.parametrize(
    ("what", "problem"),
    [
        ("discount_percent: 101", "100 or less"),
        ("discount_percent: 5, usd_each: {images: 1}", "prices and discount_percent"),
        ("discount_on: [input], usd_each: {images: 1}", "discount_on without discount_percent"),
        ("discount_percent: 5, discount_on: [inputs]", "unknown bucket 'inputs'"),
        (
            f"{INPUT}, long_context: [{{above_input_tokens: 5, usd_per_million: {{output: 1}}}}]",
            "'output' is not in",
        ),
        (f"{INPUT}, long_context: [{CLIFF}, {CLIFF}]", "must grow"),
        ("service_tier: batch", "without prices"),
    ],
)
def test_an_entry_that_contradicts_itself_is_named(tmp_path: Path, what: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        rating_of(tmp_path, entry("gpt-4o", what))


def test_two_prices_from_the_same_day_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="two entries for openai gpt-4o batch from 2026-07-01"):
        rating_of(
            tmp_path,
            entry("gpt-4o", "discount_percent: 5"),
            entry("GPT-4o", "discount_percent: 6, service_tier: batch"),
        )


@pytest.mark.parametrize(("provider", "model"), [("openai", "gpt4o"), ("ollama", "'*'")])
def test_a_discount_off_no_list_price_is_refused(tmp_path: Path, provider: str, model: str) -> None:
    with pytest.raises(ConfigurationError, match=f"a discount for {provider} .* no list price is known"):
        rating_of(tmp_path, entry(model, "discount_percent: 5", provider=provider))


def test_ids_of_cards_do_not_change_when_an_entry_is_added(tmp_path: Path) -> None:
    first = entry("'*'", "discount_percent: 10", since="2026-01-01")
    later = entry("'*'", "discount_percent: 12", since="2027-01-01")

    def ids(*entries: str) -> set[str]:
        rating_of(tmp_path, *entries)
        book = Installed(tmp_path / "rates.yaml").book()
        return {card.id for model in book.overrides["openai"] for card in model.cards}

    assert ids(first) < ids(first, later)
