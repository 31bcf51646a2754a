"""Rate cards compiled from the `genai-prices` catalogue: the one module that knows that library's shapes.

What its data means, and what we make of it:

- A model has prices with start dates; the last active one applies, and the first applies before all of
  them. Each stretch between two starts becomes one card per tier. A time-of-day price (DeepSeek's
  off-peak hours) becomes a card with a daily window, asked before the card around it.
- Retired models stay in the catalogue, and so do their cards: a call of last year keeps its price.
- Tier prices are partial price sets selected by request context; what they do not name costs what the
  standard tier charges for it. They count only from the date the catalogue verified them (most of them
  from October 2026). Before that date a flex, priority or fast price is not known: there is no card, so
  such a call is unpriced (`unknown_tier`), never charged at the standard price.
- Batch is the exception, because providers document it as a rule: half of the standard token prices,
  cached tokens included, tool calls such as web searches at their full price. DOCUMENTED_BATCH lists
  who. Where the catalogue has its own batch prices in force they apply instead, also where they are not
  half (cached input of some OpenAI models); where verified batch prices of a model are later than the
  call and are not half, the rule is known not to hold for it and there is no card.
- A bucket without a price of its own costs what the next wider bucket costs (reasoning as output, audio
  without an audio price as text, a 1h cache write without a price as a cache write): FALLBACKS. A bucket
  for which even the widest has no price gets no rate, and a call with a count in it is unpriced.
- Where a provider sells another's models (Azure OpenAI's, Google Anthropic's) and the catalogue has no
  own entry, the maker's standard prices apply, and its tier prices do not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from decimal import Decimal
from functools import cache
from importlib.metadata import version
from typing import Any

from genai_prices import types as genai

from mmpipeline.rating.buckets import FALLBACKS, FULL_PRICE_IN_BATCH, PER, PER_MILLION
from mmpipeline.rating.cards import append, named
from mmproto.ratebook import Clause, ModelRates
from mmproto.rating import BATCH, STANDARD, ContextTier, Rate, RateCard

_NS = 1_000_000_000

# OpenTelemetry's `gen_ai.provider.name` to the catalogue's provider. A catalogue id is understood as
# itself. Nothing is guessed: a name that is in neither list has no prices.
PROVIDERS: Mapping[str, str] = {
    "azure.ai.inference": "azure",
    "azure.ai.openai": "azure",
    "aws.bedrock": "aws",
    "gcp.gemini": "google",
    "gcp.gen_ai": "google",
    "gcp.vertex_ai": "google",
    "x_ai": "x-ai",
    "xai": "x-ai",
    "mistral_ai": "mistral",
    "moonshot_ai": "moonshotai",
    "together_ai": "together",
    "fireworks_ai": "fireworks",
    "github_copilot": "github-copilot",
    "z_ai": "zai",
    "voyage_ai": "voyageai",
    "voyage": "voyageai",
    "zhipu": "zhipuai",
}

# Who documents batch as half of the standard token prices.
DOCUMENTED_BATCH: Mapping[str, str] = {
    "openai": "https://developers.openai.com/api/docs/guides/batch",
    "anthropic": "https://platform.claude.com/docs/en/build-with-claude/batch-processing",
    "azure": "https://learn.microsoft.com/azure/ai-services/openai/how-to/batch",
    "aws": "https://docs.aws.amazon.com/bedrock/latest/userguide/batch-inference.html",
    "google": "https://ai.google.dev/gemini-api/docs/batch-api",
    "mistral": "https://docs.mistral.ai/capabilities/batch",
    "groq": "https://console.groq.com/docs/batch",
}

# The request contexts by which the catalogue selects a tier's prices.
_CONTEXTS: Mapping[str, tuple[Mapping[str, str], ...]] = {
    STANDARD: (),
    BATCH: ({"processing": "batch"},),
    "flex": ({"service_tier": "flex"},),
    "priority": ({"service_tier": "priority"},),
    "fast": ({"service_tier": "fast"}, {"speed": "fast"}),
}

# Groq bills at least ten seconds of each transcription (the catalogue has it in code, not in data).
_MINIMUM_SECONDS = {("groq", "whisper-large-v3"): 10, ("groq", "whisper-large-v3-turbo"): 10}

_Price = Decimal | genai.TieredPrices
_Prices = Mapping[str, _Price]


class CatalogueError(Exception):
    """The installed catalogue has a shape that this module does not know; prices cannot be trusted."""


@cache  # the library reads its metadata anew each time, which takes longer than to compile a model
def catalogue_version() -> str:
    """Name and version of the installed catalogue."""
    return f"genai-prices {version('genai-prices')}"


def catalogue_id(provider: str) -> str:
    """The catalogue's name of a provider by its OpenTelemetry name."""
    return PROVIDERS.get(provider, provider)


@cache
def _providers() -> Mapping[str, genai.Provider]:
    from genai_prices.data import providers  # noqa: PLC0415 - 30,000 lines: only for those who price

    return {provider.id: provider for provider in providers}


def provider_ids() -> Sequence[str]:
    """The catalogue's own names of all its providers."""
    return tuple(_providers())


@cache
def models_of(provider_id: str) -> tuple[ModelRates, ...]:
    """All models of a provider (by the catalogue's name) in the order in which they are matched."""
    provider = _providers()[provider_id]
    models = [_compile(provider_id, model, own=True) for model in provider.models]
    for seller in provider.fallback_model_providers or ():
        models += [_compile(provider_id, model, own=False) for model in _providers()[seller].models]
    return tuple(models)


def _compile(provider_id: str, model: genai.ModelInfo, own: bool) -> ModelRates:
    cards: list[RateCard] = []
    for tier in _CONTEXTS:
        cards += _cards(provider_id, model, tier, own)
    return ModelRates(model.id, _clause(model.match), cards)


def _cards(provider_id: str, model: genai.ModelInfo, tier: str, own: bool) -> list[RateCard]:
    """The cards of one tier: one for each stretch between two starts, and each daily window in it."""
    variants = _variants(model, tier) if own else []
    starts = {0, *(_start(v.constraint) for v in variants)}
    starts.update(_start(p.constraint) for p in _conditional(model) if _is_dated(p.constraint))
    ordered = sorted(starts)
    minimum = _MINIMUM_SECONDS.get((provider_id, model.id), 0)
    cards: list[RateCard] = []
    for begin, end in zip(ordered, [*ordered[1:], None], strict=True):
        for window, standard in _standard_at(model, begin):
            active = [variant for variant in variants if _start(variant.constraint) <= begin]
            source = catalogue_version()
            if tier == STANDARD:
                rates = _rates(standard, minimum)
            elif active:
                rates = _rates(_overlaid(standard, active), minimum)
            elif (
                tier == BATCH
                and provider_id in DOCUMENTED_BATCH
                and all(_is_half(model, v) for v in variants)
            ):
                rates = _halved(_rates(standard, minimum))
                source = f"{source}, and batch is half of standard: {DOCUMENTED_BATCH[provider_id]}"
            else:
                continue
            card = RateCard("", provider_id, model.id, tier, begin, end, rates, (source,), window)
            append(cards, card)
    return [named(card) for card in cards]


def _overlaid(standard: _Prices, variants: Sequence[genai.PriceVariant]) -> _Prices:
    """Standard prices with those of `variants` over them; the first that names a price key wins."""
    merged: dict[str, _Price] = {}
    for variant in variants:
        for key, price in _items(variant.prices):
            merged.setdefault(key, price)
    return {**standard, **merged}


def _is_half(model: genai.ModelInfo, variant: genai.PriceVariant) -> bool:
    """Whether a verified batch price is half of the standard price in force on its first day."""
    at = _start(variant.constraint)
    standard = _standard_at(model, at)[-1][1]
    batch = _rates(_overlaid(standard, [variant]), 0)
    return all(
        batch[bucket].usd * 2 == rate.usd
        for bucket, rate in _rates(standard, 0).items()
        if bucket in ("input", "output")
    )


def _halved(rates: Mapping[str, Rate]) -> Mapping[str, Rate]:
    halved: dict[str, Rate] = {}
    for bucket, rate in rates.items():
        if bucket in FULL_PRICE_IN_BATCH:
            halved[bucket] = rate
        elif bucket.startswith(("input", "output")):
            tiers = tuple(ContextTier(t.above_input_tokens, t.usd / 2) for t in rate.tiers)
            halved[bucket] = Rate(rate.usd / 2, rate.per, tiers)
    return halved


def _rates(prices: _Prices, minimum_seconds: int) -> Mapping[str, Rate]:
    """The rate of every bucket that these prices pay for."""
    rates: dict[str, Rate] = {}
    for bucket, keys in FALLBACKS.items():
        price = next((prices[key] for key in keys if key in prices), None)
        if price is None:
            continue
        per = PER.get(bucket, PER_MILLION)
        minimum = minimum_seconds if bucket == "audio_seconds" else 0
        if isinstance(price, genai.TieredPrices):
            tiers = tuple(ContextTier(tier.start, tier.price) for tier in price.tiers)
            rates[bucket] = Rate(price.base, per, tiers, minimum)
        else:
            rates[bucket] = Rate(price, per, (), minimum)
    return rates


def _standard_at(model: genai.ModelInfo, at: int) -> list[tuple[tuple[int, int] | None, _Prices]]:
    """The standard prices from `at` on: those of daily windows first, the one around them last."""
    found: list[tuple[tuple[int, int] | None, _Prices]] = []
    conditional = _conditional(model)
    for price in reversed(conditional):
        if isinstance(price.constraint, genai.TimeOfDateConstraint):
            found.append((_window(price.constraint), dict(_items(price.prices))))
        elif price.constraint is None or _start(price.constraint) <= at:
            return [*found, (None, dict(_items(price.prices)))]
    return [*found, (None, dict(_items(conditional[0].prices)))]


def _conditional(model: genai.ModelInfo) -> list[genai.ConditionalPrice]:
    if isinstance(model.prices, list):
        return model.prices
    return [genai.ConditionalPrice(prices=model.prices)]


def _variants(model: genai.ModelInfo, tier: str) -> list[genai.PriceVariant]:
    return [v for v in model.price_variants or () if v.when in _CONTEXTS[tier]]


def _items(prices: genai.ModelPrice) -> Iterator[tuple[str, _Price]]:
    for key, price in vars(prices).items():
        if price is not None:
            yield key, price


def _is_dated(constraint: object) -> bool:
    return isinstance(constraint, genai.StartDateConstraint)


def _start(constraint: object) -> int:
    """From when a constraint holds, in unix nanoseconds; 0 for none."""
    if constraint is None:
        return 0
    if isinstance(constraint, genai.StartDateConstraint):
        return _midnight(constraint.start_date)
    raise CatalogueError(f"{catalogue_version()}: unknown price constraint {type(constraint).__name__}")


def _midnight(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * _NS


def _window(constraint: genai.TimeOfDateConstraint) -> tuple[int, int]:
    return _second_of_day(constraint.start_time), _second_of_day(constraint.end_time)


def _second_of_day(moment: time) -> int:
    aware = datetime.combine(date(2000, 1, 2), moment, moment.tzinfo or UTC).astimezone(UTC)
    if aware.second or aware.microsecond:  # rating/service.py shares a card among a minute's calls
        raise CatalogueError(f"{catalogue_version()}: a daily price starts within a minute, at {moment}")
    return aware.hour * 3600 + aware.minute * 60


_TEXT_CLAUSES = {
    genai.ClauseEquals: "equals",
    genai.ClauseStartsWith: "starts_with",
    genai.ClauseEndsWith: "ends_with",
    genai.ClauseContains: "contains",
    genai.ClauseRegex: "regex",
}


def _clause(match: Any) -> Clause:
    """A match clause as data. Raises CatalogueError for a kind that is not known."""
    if isinstance(match, genai.ClauseOr):
        return {"or": [_clause(part) for part in match.or_]}
    if isinstance(match, genai.ClauseAnd):
        return {"and": [_clause(part) for part in match.and_]}
    kind = _TEXT_CLAUSES.get(type(match))
    if kind is None:
        raise CatalogueError(f"{catalogue_version()}: unknown match clause {type(match).__name__}")
    return {kind: getattr(match, kind)}
