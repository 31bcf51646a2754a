"""Negotiated rates: a YAML file of prices that apply instead of the catalogue's.

    rates:
      - provider: openai                 # an OpenTelemetry provider name
        models: [gpt-4o, "gpt-4o-2024-*"]  # references as calls carry them; * at the end only
        service_tier: standard           # the default
        effective_from: "2026-07-01"     # UTC midnight
        effective_to: "2027-07-01"       # optional
        source: contract 2026-17
        usd_per_million: {input: 2.0, input_cache_read: 1.0, output: 8.0}
        usd_each: {web_searches: 0.008}

An entry is the whole price of that model, tier and time: a bucket that neither it nor the next wider
bucket names has no rate, and a call with a count in it is unpriced. Outside its time the catalogue's price
applies. Like every card, an override is known by its content; to change a price, add an entry with a
later `effective_from` and leave the old one standing, so that old charges can still be explained.
"""

# `setting` makes a new field at each call, as dataclasses.field does.

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

from mmpipeline.rating.catalogue import catalogue_id, named
from mmproto.ratebook import Clause, ModelRates
from mmproto.rating import REQUESTS, SERVICE_TIERS, STANDARD, Rate, RateCard
from mmproto.settings import load, setting
from mmproto.usage import TOKEN_BUCKETS, UNITS

_NS = 1_000_000_000

# A token bucket without a rate of its own costs what the next wider one costs.
_WIDER: Mapping[str, tuple[str, ...]] = {
    "input_cache_write_1h": ("input_cache_write_5m", "input"),
    "input_audio_cache_read": ("input_audio", "input_cache_read", "input"),
}


@dataclass(frozen=True, slots=True)
class OverrideEntry:
    """One entry of the file; raises ValueError where it contradicts itself."""

    provider: str = setting(about="OpenTelemetry provider name")
    models: tuple[str, ...] = setting(about="model references; a * at the end matches any rest")
    effective_from: str = setting(about="first day, in quotes: '2026-07-01'")
    source: str = setting(about="where the price comes from, for whoever explains a charge")
    usd_per_million: Mapping[str, float] = setting(factory=dict, about="USD for a million of a bucket")
    usd_each: Mapping[str, float] = setting(factory=dict, about="USD for one of a unit, or `requests`")
    service_tier: str = setting(STANDARD, about="standard, batch, flex, priority or fast")
    effective_to: str | None = setting(None, about="first day on which it no longer applies")

    def __post_init__(self) -> None:
        known = TOKEN_BUCKETS | UNITS | {REQUESTS}
        for bucket, price in (*self.usd_per_million.items(), *self.usd_each.items()):
            if bucket not in known:
                raise ValueError(f"unknown bucket '{bucket}'; known are {', '.join(sorted(known))}")
            if not math.isfinite(price) or price < 0:
                raise ValueError(f"the price of '{bucket}' is {price}; 0 or more is expected")
        if both := sorted(self.usd_per_million.keys() & self.usd_each.keys()):
            raise ValueError(f"'{both[0]}' is in usd_per_million and in usd_each; keep one of them")
        if not self.usd_per_million and not self.usd_each:
            raise ValueError("an entry without prices; give usd_per_million or usd_each")
        if self.service_tier not in SERVICE_TIERS:
            raise ValueError(f"service_tier '{self.service_tier}' is none of {', '.join(SERVICE_TIERS)}")
        for reference in self.models:
            if not reference or "*" in reference[:-1]:
                raise ValueError(f"model '{reference}': a name, or a beginning followed by one *")
        start, end = _day(self.effective_from), _day(self.effective_to or "9999-12-31")
        if start >= end:
            raise ValueError("effective_to must be later than effective_from")

    def card(self, model: str) -> RateCard:
        """This entry's card for one model reference."""
        own = {bucket: Rate(Decimal(repr(usd)), 1_000_000) for bucket, usd in self.usd_per_million.items()}
        own.update({bucket: Rate(Decimal(repr(usd)), 1) for bucket, usd in self.usd_each.items()})
        rates = dict(own)
        for bucket in TOKEN_BUCKETS - own.keys():
            widest = "input" if bucket.startswith("input") else "output"
            wider = next((w for w in _WIDER.get(bucket, (widest,)) if w in own), None)
            if wider is not None:
                rates[bucket] = own[wider]
        return named(
            RateCard(
                id="",
                provider=catalogue_id(self.provider),
                model=model,
                service_tier=self.service_tier,
                effective_from_unix_ns=_midnight(self.effective_from),
                effective_to_unix_ns=None if self.effective_to is None else _midnight(self.effective_to),
                rates=rates,
                sources=(self.source,),
            )
        )


@dataclass(frozen=True, slots=True)
class OverrideFile:
    """The whole file."""

    rates: tuple[OverrideEntry, ...] = setting((), about="negotiated rates")


def read_overrides(file: Path) -> dict[str, list[ModelRates]]:
    """Overrides by the catalogue's provider name. Raises ConfigurationError (file, line, what to do)."""
    entries = load(OverrideFile, [file], {}, {}).rates
    cards: dict[tuple[str, str], list[RateCard]] = {}
    for entry in entries:
        for reference in entry.models:
            key = (catalogue_id(entry.provider), reference.lower())
            cards.setdefault(key, []).append(entry.card(reference.lower()))
    shelf: dict[str, list[ModelRates]] = {}
    # Exact names before beginnings, longer beginnings before shorter ones: the closest match wins.
    for provider, reference in sorted(cards, key=lambda key: (key[1].endswith("*"), -len(key[1]), key)):
        model = ModelRates(reference, _clause(reference), cards[provider, reference])
        shelf.setdefault(provider, []).append(model)
    return shelf


def _clause(reference: str) -> Clause:
    return {"starts_with": reference[:-1]} if reference.endswith("*") else {"equals": reference}


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a day; write it as '2026-07-01'") from None


def _midnight(text: str) -> int:
    return int(datetime.combine(_day(text), time(), UTC).timestamp()) * _NS
