"""Our charges against the catalogue library's own calculation, to the nano-dollar.

The library counts in units that contain each other and sums Decimals; we count in disjoint buckets and
weigh integers. Where it has a price for every bucket that is used, both must come to the same.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from genai_prices import Usage, calc_price
from genai_prices.data import providers
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ClauseAnd, ClauseContains, ClauseEquals, ClauseOr, ClauseStartsWith

from mmpipeline.rating import catalogue
from mmproto.ratebook import RateBook
from mmproto.usage import INPUT_BUCKETS, OUTPUT_BUCKETS

BOOK = RateBook("test", {provider.id: catalogue.models_of(provider.id) for provider in providers})

CONTEXTS: Mapping[str, Mapping[str, str]] = {
    "standard": {},
    "batch": {"processing": "batch"},
    "flex": {"service_tier": "flex"},
    "priority": {"service_tier": "priority"},
    "fast": {"service_tier": "fast", "speed": "fast"},
}


def references(clause: object) -> list[str]:
    """Texts that a match clause may match."""
    match clause:
        case ClauseEquals():
            return [clause.equals]
        case ClauseStartsWith():
            return [clause.starts_with, clause.starts_with + "-x1"]
        case ClauseContains():
            return [clause.contains]
        case ClauseOr():
            return [text for part in clause.or_ for text in references(part)]
        case ClauseAnd():
            return [text for part in clause.and_ for text in references(part)]
    return []


REFERENCES = [
    (provider.id, text)
    for provider in providers
    for model in provider.models
    for text in references(model.match)
]


def library_usage(usage: Mapping[str, int]) -> Usage:
    """The same usage in the library's containing units."""

    def total(*buckets: str) -> int:
        return sum(usage.get(bucket, 0) for bucket in buckets)

    return Usage(
        input_tokens=total(*INPUT_BUCKETS),
        output_tokens=total(*OUTPUT_BUCKETS),
        cache_read_tokens=total("input_cache_read", "input_audio_cache_read"),
        cache_audio_read_tokens=total("input_audio_cache_read"),
        cache_image_read_tokens=0,
        cache_video_read_tokens=0,
        cache_write_tokens=total("input_cache_write_5m", "input_cache_write_1h"),
        cache_write_5m_tokens=total("input_cache_write_5m"),
        cache_write_1h_tokens=total("input_cache_write_1h"),
        input_audio_tokens=total("input_audio", "input_audio_cache_read"),
        input_image_tokens=total("input_image"),
        input_video_tokens=total("input_video"),
        output_audio_tokens=total("output_audio"),
        output_image_tokens=total("output_image"),
        output_video_tokens=0,
        output_reasoning_tokens=total("output_reasoning"),
        output_citation_tokens=0,
        web_searches=total("web_searches"),
        audio_seconds=total("audio_seconds"),
        input_audio_seconds=total("audio_seconds"),
        input_characters=total("characters"),
        input_document_pages=total("pages", "annotated_pages"),
        input_annotated_document_pages=total("annotated_pages"),
    )


@pytest.mark.parametrize("seed", range(8))
def test_same_charge_to_the_nano_dollar(seed: int) -> None:
    rng = random.Random(seed)
    compared = dict.fromkeys(CONTEXTS, 0)
    for _ in range(1500):
        provider_id, reference = rng.choice(REFERENCES)
        tier = rng.choice(list(CONTEXTS))
        at = datetime(2023, 1, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(5 * 365 * 86400))
        if rng.random() < 0.5:
            at = datetime(2026, 10, 1, tzinfo=UTC) + timedelta(seconds=rng.randrange(200 * 86400))
        provider, model = get_snapshot().find_provider_model(reference, None, provider_id, None)
        if tier != "standard":
            wanted = CONTEXTS[tier]
            in_force = any(
                all(wanted.get(key) == value for key, value in variant.when.items())
                and (variant.constraint is None or variant.constraint.active(at))
                for variant in model.price_variants or []
            )
            if not in_force or not any(model is own for own in provider.models):
                continue  # the library falls back to the standard price; we do not, on purpose
        at_ns = int(at.timestamp()) * 10**9
        card, reason = BOOK.find(provider_id, [reference], tier, at_ns)
        assert card is not None, (provider_id, reference, tier, at, reason)
        buckets = [b for b in card.rates if b != "requests" and rng.random() < 0.5]
        usage = {b: rng.choice((0, 1, 7, 999, 123_457, 272_001, rng.randrange(10**6))) for b in buckets}
        if not usage:
            continue
        charge = BOOK.price(provider_id, [reference], tier, at_ns, usage)
        theirs = calc_price(
            library_usage(usage),
            reference,
            provider_id=provider_id,
            genai_request_timestamp=at,
            price_context=CONTEXTS[tier] or None,
        )
        exact = theirs.total_price * 10**9
        assert charge.nano_usd == round(exact), (provider_id, reference, tier, at, usage, card.id)
        assert sum(line.nano_usd for line in charge.lines) == charge.nano_usd
        tokens = {b: n for b, n in usage.items() if b in INPUT_BUCKETS + OUTPUT_BUCKETS}
        units = {b: float(n) for b, n in usage.items() if b not in tokens}
        assert BOOK.pricer(card).cost(tokens, units) == (charge.nano_usd, "")
        compared[tier] += 1
    assert compared["standard"] > 100
    assert sum(compared.values()) > 180


def test_models_mean_what_the_library_says() -> None:
    rng = random.Random(11)
    names = [text for _, text in REFERENCES]
    for provider in providers:
        for reference in [*rng.sample(names, 60), "gpt-99", "gpt-5.2-20251211", "nonsense", "GPT-4O"]:
            theirs = provider.find_model(reference, all_providers=providers)
            ours = BOOK.models(provider.id, reference)
            assert [m.model for m in ours] == ([theirs.id] if theirs else []), (provider.id, reference)


def test_every_card_of_the_catalogue_has_an_id_of_its_own() -> None:
    cards = [card for models in BOOK.catalogue.values() for model in models for card in model.cards]
    assert len(cards) > 3000
    # Azure sells OpenAI's and Anthropic's models under the makers' names: one id, one content.
    by_id: dict[str, object] = {}
    for card in cards:
        assert by_id.setdefault(card.id, card.rates) == card.rates
    assert all(Decimal(0) <= rate.usd < 10_000 for card in cards for rate in card.rates.values())


def test_cards_of_one_tier_follow_one_another() -> None:
    for models in BOOK.catalogue.values():
        for model in models:
            for card in model.cards:
                until = card.effective_to_unix_ns
                assert until is None or until > card.effective_from_unix_ns
                if card.daily_window is None and until is not None:
                    after = model.card(card.service_tier, until)
                    assert after is None or after.id != card.id
