"""Which rate card applies to a call: by provider, model reference, served tier and time.

A model is known by clauses over the references that requests and responses use (`gpt-4o-2024-08-06`,
`us.anthropic.claude-sonnet-4-5-v1:0`). The clauses are data, so that a book can be sent to the router.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from mmproto.rating import Charge, Pricer, RateCard, check, rate, served_tier

# {"equals": text} | {"starts_with": ..} | {"ends_with": ..} | {"contains": ..} | {"regex": ..}
# | {"or": [clauses]} | {"and": [clauses]}: as the price catalogue writes them, matched in lower case.
Clause = Mapping[str, Any]
_Predicate = Callable[[str], bool]


def predicate(clause: Clause) -> _Predicate:
    """`clause` as a function of a lower-case model reference. Raises ValueError for an unknown clause."""
    ((kind, value),) = clause.items()
    if kind in ("or", "and"):
        parts = [predicate(part) for part in value]
        combine = any if kind == "or" else all
        return lambda text: combine(part(text) for part in parts)
    if kind == "regex":
        search = re.compile(value).search
        return lambda text: search(text) is not None
    wanted = value.lower()
    match kind:
        case "equals":
            return lambda text: text == wanted
        case "starts_with":
            return lambda text: text.startswith(wanted)
        case "ends_with":
            return lambda text: text.endswith(wanted)
        case "contains":
            return lambda text: wanted in text
    raise ValueError(f"unknown match clause {kind!r}")


_COMPACT_DATE = re.compile(r"-(20\d\d)(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(?=-|:|$)")


class ModelRates:
    """One model of one provider: what refers to it, and its cards of all tiers and times."""

    __slots__ = ("_by_tier", "_matches", "cards", "match", "model")

    def __init__(self, model: str, match: Clause, cards: Iterable[RateCard]) -> None:
        self.model = model
        self.match = match
        self.cards = tuple(cards)
        self._matches: _Predicate | None = None
        self._by_tier: dict[str, list[RateCard]] = {}
        # Newest first, and a daily window before the price around it: the first in force applies.
        for card in sorted(self.cards, key=lambda c: (-c.effective_from_unix_ns, c.daily_window is None)):
            self._by_tier.setdefault(card.service_tier, []).append(card)

    def is_meant_by(self, reference: str) -> bool:
        """Whether this lower-case reference means this model."""
        if self._matches is None:
            self._matches = predicate(self.match)
        return self._matches(reference)

    def card(self, tier: str, at_unix_ns: int) -> RateCard | None:
        """The card of `tier` in force at that moment, None where there is none."""
        for card in self._by_tier.get(tier, ()):
            if card.in_force(at_unix_ns):
                return card
        return None


class RateBook:
    """All rate cards, by provider and model. Models are tried in order, the first that matches is meant.

    `overrides` (negotiated rates) are asked first; where they have no card for the tier and time, the
    catalogue's card applies. `version` changes whenever any card does.
    """

    def __init__(
        self,
        version: str,
        catalogue: Mapping[str, Sequence[ModelRates]],
        overrides: Mapping[str, Sequence[ModelRates]] | None = None,
    ) -> None:
        self.version = version
        self.catalogue = catalogue
        self.overrides = overrides or {}
        self._found: dict[tuple[str, str], tuple[ModelRates, ...]] = {}
        self._pricers: dict[str, Pricer] = {}

    def price(
        self,
        provider: str,
        references: Sequence[str],
        tier: str,
        at_unix_ns: int,
        usage: Mapping[str, float | Decimal],
    ) -> Charge:
        """The charge with its lines; `references` are tried in order (response model, request model)."""
        if problem := check(usage):
            return Charge(None, problem)
        card, reason = self.find(provider, references, tier, at_unix_ns)
        return Charge(None, reason) if card is None else rate(card, usage)

    def find(
        self, provider: str, references: Sequence[str], tier: str, at_unix_ns: int
    ) -> tuple[RateCard | None, str]:
        """The card that applies and "", or None and the reason."""
        if provider not in self.catalogue and provider not in self.overrides:
            return None, "unknown_provider"
        wanted = served_tier(tier)
        for reference in references:
            models = self.models(provider, reference)
            for model in models:
                card = model.card(wanted, at_unix_ns)
                if card is not None:
                    return card, ""
            if models:
                return None, "unknown_tier"
        return None, "unknown_model"

    def models(self, provider: str, reference: str) -> tuple[ModelRates, ...]:
        """The models that `reference` means, overrides first; empty where none is."""
        key = (provider, reference)
        found = self._found.get(key)
        if found is None:
            if len(self._found) > 10_000:  # references come from outside: never let them fill the memory
                self._found.clear()
            found = self._found[key] = self._search(provider, reference.strip().lower())
        return found

    def pricer(self, card: RateCard) -> Pricer:
        """`card` prepared for many charges."""
        pricer = self._pricers.get(card.id)
        if pricer is None:
            pricer = self._pricers[card.id] = Pricer(card)
        return pricer

    def _search(self, provider: str, reference: str) -> tuple[ModelRates, ...]:
        if not reference:
            return ()
        # Gateways write gpt-5.2-20251211 where the provider writes gpt-5.2-2025-12-11.
        dashed = _COMPACT_DATE.sub(r"-\1-\2-\3", reference)
        found: list[ModelRates] = []
        for shelf in (self.overrides, self.catalogue):
            models = shelf.get(provider, ())
            for spelling in dict.fromkeys((reference, dashed)):
                model = next((m for m in models if m.is_meant_by(spelling)), None)
                if model is not None:
                    found.append(model)
                    break
        return tuple(found)
