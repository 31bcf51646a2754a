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
        long_context:                    # cliffs by the total input, cached tokens included
          - {above_input_tokens: 200000, usd_per_million: {input: 4.0, output: 12.0}}
      - provider: anthropic
        models: ["*"]
        effective_from: "2026-07-01"
        source: contract 2026-18
        discount_percent: 12.5           # off the list price, of every tier unless service_tier names one
        discount_on: [input, output]     # these buckets alone; all of them by default

An entry with prices is the whole price of that model, tier and time: a bucket that neither it nor the next
wider bucket names has no rate, and a call with a count in it is unpriced. An entry with a discount follows
the list: its cards are the catalogue's cards of that time, cheaper. Outside their time the catalogue's
price applies; negotiated.py knows which entry applies where several could.

Like every card, an override is known by its content; to change a price, add an entry with a later
`effective_from` and leave the old one standing, so that old charges can still be explained.
"""

# `setting` makes a new field at each call, as dataclasses.field does.

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from pathlib import Path

from mmpipeline.rating.catalogue import catalogue_id
from mmproto.rating import REQUESTS, SERVICE_TIERS, STANDARD, ContextTier, Rate
from mmproto.settings import ConfigurationError, Problem, load, setting
from mmproto.usage import TOKEN_BUCKETS, UNITS

_NS = 1_000_000_000
# More digits than a price times a percentage can have; a result that were rounded all the same is an error.
_EXACT = Context(prec=100, traps=[Inexact, Overflow, InvalidOperation])
_KNOWN = TOKEN_BUCKETS | UNITS | {REQUESTS}

# A token bucket without a rate of its own costs what the next wider one costs.
_WIDER: Mapping[str, tuple[str, ...]] = {
    "input_cache_write_1h": ("input_cache_write_5m", "input"),
    "input_audio_cache_read": ("input_audio", "input_cache_read", "input"),
}


@dataclass(frozen=True, slots=True)
class LongContext:
    """A cliff: above this total input every token of a bucket costs the price that stands here."""

    above_input_tokens: int = setting(about="total input, cached tokens included", minimum=1)
    usd_per_million: Mapping[str, float] = setting(about="USD for a million of a bucket")


@dataclass(frozen=True, slots=True)
class OverrideEntry:
    """One entry of the file; raises ValueError where it contradicts itself."""

    provider: str = setting(about="OpenTelemetry provider name")
    models: tuple[str, ...] = setting(about="model references; a * at the end matches any rest")
    effective_from: str = setting(about="first day, in quotes: '2026-07-01'")
    source: str = setting(about="where the price comes from, for whoever explains a charge")
    usd_per_million: Mapping[str, float] = setting(factory=dict, about="USD for a million of a bucket")
    usd_each: Mapping[str, float] = setting(factory=dict, about="USD for one of a unit, or `requests`")
    long_context: tuple[LongContext, ...] = setting((), about="dearer rates above a total input")
    discount_percent: float | None = setting(
        None, about="percent off the list price; below 0 a surcharge", minimum=-100, maximum=100
    )
    discount_on: tuple[str, ...] = setting((), about="buckets the discount is for; all by default")
    service_tier: str | None = setting(
        None, about="standard, batch, flex, priority or fast; a discount is for all of them by default"
    )
    effective_to: str | None = setting(None, about="first day on which it no longer applies")

    def __post_init__(self) -> None:
        cliffs = [prices for cliff in self.long_context for prices in cliff.usd_per_million.items()]
        for bucket, price in (*self.usd_per_million.items(), *self.usd_each.items(), *cliffs):
            _check_bucket(bucket)
            if not math.isfinite(price) or price < 0:
                raise ValueError(f"the price of '{bucket}' is {price}; 0 or more is expected")
        if both := sorted(self.usd_per_million.keys() & self.usd_each.keys()):
            raise ValueError(f"'{both[0]}' is in usd_per_million and in usd_each; keep one of them")
        for bucket, _ in cliffs:
            if bucket not in self.usd_per_million:
                raise ValueError(f"long_context: '{bucket}' is not in usd_per_million; give its lower price")
        starts = [cliff.above_input_tokens for cliff in self.long_context]
        if starts != sorted(set(starts)):
            raise ValueError("long_context: above_input_tokens must grow from one cliff to the next")
        self._check_discount()
        if self.service_tier not in (None, *SERVICE_TIERS):
            raise ValueError(f"service_tier '{self.service_tier}' is none of {', '.join(SERVICE_TIERS)}")
        for reference in self.models:
            if not reference or "*" in reference[:-1]:
                raise ValueError(f"model '{reference}': a name, or a beginning followed by one *")
        start, end = _day(self.effective_from), _day(self.effective_to or "9999-12-31")
        if start >= end:
            raise ValueError("effective_to must be later than effective_from")

    def _check_discount(self) -> None:
        priced = bool(self.usd_per_million or self.usd_each)
        if self.discount_percent is None:
            if not priced:
                raise ValueError(
                    "an entry without prices; give usd_per_million, usd_each or discount_percent"
                )
            if self.discount_on:
                raise ValueError("discount_on without discount_percent; give how much the discount is")
        elif priced:
            raise ValueError("prices and discount_percent in one entry; keep one of them, or make it two")
        for bucket in self.discount_on:
            _check_bucket(bucket)

    @property
    def tiers(self) -> tuple[str, ...]:
        """The service tiers that the entry is for."""
        if self.service_tier is not None:
            return (self.service_tier,)
        return (STANDARD,) if self.discount_percent is None else SERVICE_TIERS

    @property
    def from_unix_ns(self) -> int:
        """When it begins to apply."""
        return _midnight(self.effective_from)

    @property
    def to_unix_ns(self) -> int | None:
        """When it no longer applies; None: never."""
        return None if self.effective_to is None else _midnight(self.effective_to)

    @property
    def percent(self) -> Decimal:
        """The discount as it was written; 0 where there is none."""
        return _written(self.discount_percent or 0.0)

    def rates(self) -> Mapping[str, Rate]:
        """The prices that stand here, as the rate of every bucket that they pay for."""
        own = {
            bucket: Rate(_written(usd), 1_000_000, self._cliffs(bucket))
            for bucket, usd in self.usd_per_million.items()
        }
        own.update({bucket: Rate(_written(usd), 1) for bucket, usd in self.usd_each.items()})
        rates = dict(own)
        for bucket in sorted(TOKEN_BUCKETS - own.keys()):
            widest = "input" if bucket.startswith("input") else "output"
            wider = next((w for w in _WIDER.get(bucket, (widest,)) if w in own), None)
            if wider is not None:
                rates[bucket] = own[wider]
        return rates

    def discounted(self, rates: Mapping[str, Rate]) -> Mapping[str, Rate]:
        """List `rates` less the discount, exactly: the sum of a charge is what is rounded, once."""
        left = (100 - self.percent).scaleb(-2)

        def cheaper(usd: Decimal) -> Decimal:
            return _EXACT.multiply(usd, left)

        return {
            bucket: Rate(
                cheaper(r.usd),
                r.per,
                tuple(ContextTier(t.above_input_tokens, cheaper(t.usd)) for t in r.tiers),
                r.minimum,
            )
            if not self.discount_on or bucket in self.discount_on
            else r
            for bucket, r in rates.items()
        }

    def _cliffs(self, bucket: str) -> tuple[ContextTier, ...]:
        return tuple(
            ContextTier(cliff.above_input_tokens, _written(cliff.usd_per_million[bucket]))
            for cliff in self.long_context
            if bucket in cliff.usd_per_million
        )


@dataclass(frozen=True, slots=True)
class OverrideFile:
    """The whole file."""

    rates: tuple[OverrideEntry, ...] = setting((), about="negotiated rates")


def read_overrides(file: Path) -> tuple[OverrideEntry, ...]:
    """The file's entries. Raises ConfigurationError (file, line, what to do)."""
    entries = load(OverrideFile, [file], {}, {}).rates
    _refuse_contradictions(file, entries)
    return entries


def _refuse_contradictions(file: Path, entries: Sequence[OverrideEntry]) -> None:
    """Of two prices of the same reference and tier from the same day nobody could say which holds."""
    seen: set[tuple[str, str, str, int]] = set()
    problems = []
    for entry in entries:
        for reference in dict.fromkeys(text.lower() for text in entry.models):
            for tier in entry.tiers:
                key = (catalogue_id(entry.provider), reference, tier, entry.from_unix_ns)
                if key in seen:
                    what = f"two entries for {entry.provider} {reference} {tier} from {entry.effective_from}"
                    problems.append(Problem(str(file), what, "keep one of them"))
                seen.add(key)
    if problems:
        raise ConfigurationError(problems)


def _check_bucket(bucket: str) -> None:
    if bucket not in _KNOWN:
        raise ValueError(f"unknown bucket '{bucket}'; known are {', '.join(sorted(_KNOWN))}")


def _written(number: float) -> Decimal:
    """The number as it was written in the file, not the binary neighbour of it."""
    return Decimal(repr(number))


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ValueError(f"'{text}' is not a day; write it as '2026-07-01'") from None


def _midnight(text: str) -> int:
    return int(datetime.combine(_day(text), time(), UTC).timestamp()) * _NS
