"""From usage to money: rate cards and exact integer arithmetic.

Pure and shared: the pipeline charges with it, and the router settles with it before the pipeline has
seen the call, so both must come to the same nano-dollar. Nothing here knows where prices come from;
`ratebook` knows which card applies, `rateform` how a card crosses a wire.

The way of one charge: provider and model references ▸ the model's cards ▸ the card of the SERVED tier
in force at the time of the call ▸ a rate for each bucket with a count ▸ the sum. Whatever cannot be
known on that way ends in no cost and a reason, never in 0:

    unknown_provider     no rate card of this provider at all
    unknown_model        the provider is known, none of the model references is
    unknown_tier         the model is known, but no price of this tier at this time
    no_usage             no bucket was reported
    unknown_bucket       a bucket with a count that this version does not know
    invalid_count        a count that is negative, not finite, or beyond any real call
    no_rate_for_<bucket> the card has no rate for a bucket with a count

Money is integer nano-dollars. The exact sum of a charge is rounded ONCE, half to even; its lines are
rounded by largest remainder so that they add up to exactly that sum, each within one nano-dollar of its
exact amount.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from mmproto.usage import INPUT_BUCKETS, MAX_TOKENS, TOKEN_BUCKETS, UNITS

NANO = 1_000_000_000
_DAY_S = 86_400

STANDARD = "standard"
BATCH = "batch"
SERVICE_TIERS = (STANDARD, BATCH, "flex", "priority", "fast")

# How providers name the tier that serves at the list price. `auto` is what was asked for, and without a
# contract for more it is served as standard; a provider that served something else says so.
_STANDARD_NAMES = frozenset({"", "standard", "default", "auto", "on_demand", "on-demand", "standard_only"})

# A flat fee for each call, whatever its usage: not a bucket anybody reports.
REQUESTS = "requests"

# More of a unit than one call can hold: seconds in three centuries, characters in a library.
_MAX_UNITS = 1e10


@dataclass(frozen=True, slots=True)
class ContextTier:
    """A cliff: above this TOTAL input, cached tokens included, every token of the bucket costs `usd`."""

    above_input_tokens: int
    usd: Decimal


@dataclass(frozen=True, slots=True)
class Rate:
    """Price of one bucket: `usd` for `per` of it. A count above 0 is billed as at least `minimum`."""

    usd: Decimal
    per: int
    tiers: tuple[ContextTier, ...] = ()
    minimum: int = 0

    def usd_at(self, total_input: int) -> Decimal:
        """The price that applies to a call with this total input."""
        usd = self.usd
        for tier in self.tiers:
            if total_input > tier.above_input_tokens:
                usd = tier.usd
        return usd


@dataclass(frozen=True, slots=True)
class RateCard:
    """Prices of one model in one tier, in force in [effective_from, effective_to), by bucket.

    `daily_window` restricts the card to [from, to) seconds of each UTC day, where a provider has off-peak
    prices; from > to wraps over midnight. `id` is derived from the content, so that it names the same
    prices for ever.
    """

    id: str
    provider: str
    model: str
    service_tier: str
    effective_from_unix_ns: int
    effective_to_unix_ns: int | None
    rates: Mapping[str, Rate]
    sources: tuple[str, ...]
    daily_window: tuple[int, int] | None = None

    def in_force(self, at_unix_ns: int) -> bool:
        """Whether these prices apply at that moment."""
        if at_unix_ns < self.effective_from_unix_ns:
            return False
        if self.effective_to_unix_ns is not None and at_unix_ns >= self.effective_to_unix_ns:
            return False
        if self.daily_window is None:
            return True
        start, end = self.daily_window
        second = at_unix_ns // NANO % _DAY_S
        return start <= second < end if start <= end else second >= start or second < end


@dataclass(frozen=True, slots=True)
class Line:
    """What one bucket of a charge costs: `quantity` at `usd` per `per`."""

    bucket: str
    quantity: Decimal
    usd: Decimal
    per: int
    nano_usd: int


@dataclass(frozen=True, slots=True)
class Charge:
    """The result of rating: a cost by a card, or none and the reason."""

    nano_usd: int | None
    reason: str = ""
    card: RateCard | None = None
    lines: tuple[Line, ...] = ()


def served_tier(name: str) -> str:
    """A provider's own name of a tier as ours; a name we do not know is returned in lower case."""
    if not name:
        return STANDARD
    lowered = name.strip().lower()
    return STANDARD if lowered in _STANDARD_NAMES else lowered


def rate(card: RateCard, usage: Mapping[str, float | Decimal]) -> Charge:
    """The charge for `usage` (bucket or unit: count) by `card`, with its lines.

    Counts of 0 cost nothing and need no rate. Usage without any bucket is not free: it is not known.
    """
    reason = check(usage)
    if reason:
        return Charge(None, reason)
    total_input = int(sum(usage.get(name, 0) for name in INPUT_BUCKETS))
    by_unit = _is_priced_by_unit(card, usage)
    parts: list[tuple[str, Decimal, Decimal, int]] = []
    for bucket, count in usage.items():
        if not count:
            continue
        rate_of = card.rates.get(bucket)
        if rate_of is None:
            if by_unit and bucket in TOKEN_BUCKETS:
                continue
            return Charge(None, f"no_rate_for_{bucket}")
        quantity = max(_exact(count), Decimal(rate_of.minimum))
        parts.append((bucket, quantity, rate_of.usd_at(total_input), rate_of.per))
    if (fee := card.rates.get(REQUESTS)) is not None:
        parts.append((REQUESTS, Decimal(1), fee.usd, fee.per))
    exact = [Fraction(quantity) * Fraction(usd) * NANO / per for _, quantity, usd, per in parts]
    amounts = _apportion(exact)
    lines = tuple(Line(*part, nano) for part, nano in zip(parts, amounts, strict=True))
    return Charge(sum(amounts), "", card, lines)


def _is_priced_by_unit(card: RateCard, usage: Mapping[str, float | Decimal]) -> bool:
    """Whether the card prices no token at all, but a unit of this usage: a transcript by its seconds.

    Then the tokens that a provider counts as well are in the price of the unit.
    """
    if any(bucket in TOKEN_BUCKETS for bucket in card.rates):
        return False
    return any(usage.get(unit) for unit in card.rates if unit in UNITS)


def check(usage: Mapping[str, float | Decimal]) -> str:
    """Why this usage cannot be rated by any card; "" where it can."""
    if not usage:
        return "no_usage"
    for bucket, count in usage.items():
        if isinstance(count, bool) or not math.isfinite(count) or count < 0:
            return "invalid_count"
        if bucket in TOKEN_BUCKETS:
            if count > MAX_TOKENS or count != int(count):
                return "invalid_count"
        elif bucket in UNITS:
            if count > _MAX_UNITS:
                return "invalid_count"
        elif count:
            return "unknown_bucket"
    return ""


def _exact(count: float | Decimal) -> Decimal:
    """The number that was written, not the binary neighbour of it: 0.1 stays 0.1."""
    return Decimal(repr(count)) if isinstance(count, float) else Decimal(count)


def _apportion(exact: Sequence[Fraction]) -> list[int]:
    """Integers that add up to the rounded sum of `exact`, each within 1 of its own."""
    total = round(sum(exact, Fraction(0)))
    floors = [math.floor(amount) for amount in exact]
    by_remainder = sorted(range(len(exact)), key=lambda i: (floors[i] - exact[i], i))
    for index in by_remainder[: total - sum(floors)]:
        floors[index] += 1
    return floors


class Pricer:
    """A card prepared for many charges: integer weights over one common denominator, no Fraction in sight.

    `cost` gives what `rate` gives for whole token counts, about fifty times faster.
    """

    __slots__ = ("_denominator", "_fee", "_levels", "_weights", "card")

    def __init__(self, card: RateCard) -> None:
        self.card = card
        rates = {b: r for b, r in card.rates.items() if b in TOKEN_BUCKETS or b == REQUESTS}
        cliffs = sorted({tier.above_input_tokens for r in rates.values() for tier in r.tiers})
        # For each level of total input, from the lowest: from where on, and the price of one of a bucket.
        levels = [
            (above, {b: Fraction(r.usd_at(above + 1)) * NANO / r.per for b, r in rates.items()})
            for above in (-1, *cliffs)
        ]
        self._denominator = math.lcm(1, *(w.denominator for _, prices in levels for w in prices.values()))
        scaled = [(above, {b: int(w * self._denominator) for b, w in p.items()}) for above, p in levels]
        self._weights = scaled[0][1]
        self._fee = self._weights.get(REQUESTS, 0)
        for _, weights in scaled:
            weights.pop(REQUESTS, None)
        self._levels = scaled[1:]

    def cost(self, tokens: Mapping[str, int], units: Mapping[str, float]) -> tuple[int | None, str]:
        """Nano-dollars and "", or None and the reason."""
        if units:
            charge = rate(self.card, {**tokens, **units})
            return charge.nano_usd, charge.reason
        if not tokens:
            return None, "no_usage"
        weights = self._weights
        if self._levels:
            total_input = sum([tokens[name] for name in INPUT_BUCKETS if name in tokens])
            for above, dearer in self._levels:
                if total_input > above:
                    weights = dearer
        exact = self._fee
        for bucket in tokens:  # not items(): the maps of protobuf are slow at those
            count = tokens[bucket]
            if 0 < count <= MAX_TOKENS:
                weight = weights.get(bucket)
                if weight is None:
                    return None, f"no_rate_for_{bucket}" if bucket in TOKEN_BUCKETS else "unknown_bucket"
                exact += count * weight
            elif count:
                return None, "invalid_count"
        nano, rest = divmod(exact, self._denominator)
        twice = 2 * rest
        if twice > self._denominator or (twice == self._denominator and nano & 1):
            nano += 1
        return nano, ""


def plain(number: Decimal) -> str:
    """A decimal without exponent and without trailing zeros: `2.5`, `0.000125`, `100`."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def usd(nano_usd: int) -> str:
    """Nano-dollars as a plain decimal string in dollars: 1_500_000 is `0.0015`."""
    return plain(Decimal(nano_usd).scaleb(-9))
