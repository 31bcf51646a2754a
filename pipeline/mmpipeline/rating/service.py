"""Prices calls: the rate book of this installation, and the rules around it.

- The response's model is asked first, since it names what served the call; the request's where the
  response's is absent or unknown.
- The tier that SERVED the call is priced.
- A call that the provider does not bill costs 0.
- Usage of quality UNKNOWN has no counts, not zero counts: unpriced (`no_usage`). PARTIAL and ESTIMATED
  usage is priced by the counts there are; the quality travels with the row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from mmpipeline.rating import catalogue
from mmpipeline.rating.overrides import read_overrides
from mmpipeline.rating.rated import NOT_BILLABLE
from mmproto.ratebook import ModelRates, RateBook
from mmproto.rateform import book_to_json
from mmproto.rating import Charge, Pricer, RateCard
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import QUALITY_UNKNOWN

_MINUTE_NS = 60_000_000_000

# (nano-dollars or None, reason where None, rate card id)
Priced = tuple[int | None, str, str]


class _Shelf(Mapping[str, Sequence[ModelRates]]):
    """Models by provider name, the catalogue's or OpenTelemetry's; compiled when first asked for."""

    def __init__(self, models_of: Callable[[str], Sequence[ModelRates]], names: frozenset[str]) -> None:
        self._models_of = models_of
        self._names = names

    def __getitem__(self, provider: str) -> Sequence[ModelRates]:
        name = catalogue.catalogue_id(provider)
        if name not in self._names:
            raise KeyError(provider)
        return self._models_of(name)

    def __contains__(self, provider: object) -> bool:
        return isinstance(provider, str) and catalogue.catalogue_id(provider) in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@dataclass(frozen=True, slots=True)
class ModelCards:
    """One model for the prices page: what it is called and its cards, all tiers and times."""

    provider: str
    model: str
    override: bool
    cards: tuple[RateCard, ...]


class RatingService:
    """Thread-safe: caches only ever gain entries that any thread would compute alike."""

    def __init__(self, book: RateBook) -> None:
        self.book = book
        self._resolved: dict[tuple[str, str, str, str, int], tuple[Pricer | None, str]] = {}

    @classmethod
    def open(cls, overrides_file: Path | None = None) -> RatingService:
        """The installed catalogue with the overrides over it. Raises ConfigurationError."""
        shelf = _Shelf(catalogue.models_of, frozenset(catalogue.provider_ids()))
        if overrides_file is None:
            return cls(RateBook(catalogue.catalogue_version(), shelf))
        overrides = read_overrides(overrides_file)
        ids = sorted(card.id for models in overrides.values() for m in models for card in m.cards)
        digest = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:12]
        over = _Shelf(lambda name: overrides[name], frozenset(overrides))
        return cls(RateBook(f"{catalogue.catalogue_version()} with overrides {digest}", shelf, over))

    @property
    def version(self) -> str:
        """Changes whenever any price does."""
        return self.book.version

    def rate_call(self, call: Call, tokens: Mapping[str, int]) -> Priced:
        """The charge of a call; `tokens` are those of its usage (a dict is read faster than their map)."""
        if not call.billable:
            return 0, "", NOT_BILLABLE
        usage = call.usage
        units = usage.units
        if usage.quality == QUALITY_UNKNOWN or not (tokens or units):
            return None, "no_usage", ""
        at = call.started_at_unix_ns
        # Prices change on whole minutes only, so that a minute's calls of one model share a card.
        key = (call.provider, call.response_model, call.request_model, call.service_tier, at // _MINUTE_NS)
        resolved = self._resolved.get(key)
        if resolved is None:
            resolved = self._resolve(key, at)
        pricer, reason = resolved
        if pricer is None:
            return None, reason, ""
        cost, reason = pricer.cost(tokens, units)
        return cost, reason, "" if cost is None else pricer.card.id

    def _resolve(self, key: tuple[str, str, str, str, int], at: int) -> tuple[Pricer | None, str]:
        provider, response_model, request_model, tier, _ = key
        card, reason = self.book.find(provider, (response_model, request_model), tier, at)
        resolved = (None if card is None else self.book.pricer(card), reason)
        if len(self._resolved) > 50_000:  # names come from outside: never let them fill the memory
            self._resolved.clear()
        self._resolved[key] = resolved
        return resolved

    def explain(
        self, provider: str, model: str, tier: str, at_unix_ns: int, usage: Mapping[str, float | Decimal]
    ) -> Charge:
        """The charge of any usage, with its lines."""
        return self.book.price(provider, (model,), tier, at_unix_ns, usage)

    def cards(self, provider: str, model: str = "") -> list[ModelCards]:
        """The cards of a provider's models, or of those that a reference means; empty where none."""
        book = self.book
        if model:
            chosen = book.models(provider, model)
        else:
            chosen = (*book.overrides.get(provider, ()), *book.catalogue.get(provider, ()))
        over = set(map(id, book.overrides.get(provider, ())))
        return [ModelCards(provider, m.model, id(m) in over, m.cards) for m in chosen]

    def export(self, providers: Iterable[str]) -> dict[str, Any]:
        """The book of these providers as JSON, under the names that were asked for."""
        return book_to_json(self.book, dict.fromkeys(providers))
