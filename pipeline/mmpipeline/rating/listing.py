"""What a rate book says, for people: its cards, and what another book says otherwise.

Pure functions over books; forms are JSON, with money as decimal strings and times in RFC 3339.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmpipeline.rating.books import aliases, shelves
from mmproto.callform import format_time
from mmproto.ratebook import ModelRates, RateBook
from mmproto.rateform import card_to_json
from mmproto.rating import Rate, RateCard, plain, served_tier

# What tells the cards of a provider apart, but for their dates: model, tier, hours of the day.
_Key = tuple[str, str, tuple[int, int] | None]


@dataclass(frozen=True, slots=True)
class Listed:
    """A card and whether it is negotiated."""

    card: RateCard
    is_override: bool


@dataclass(frozen=True, slots=True)
class Change:
    """What a new book says otherwise about one card.

    kind: `new` (no price before), `changed` (another price from its date on), `ended` (the same price, until
    another day), `gone` (no such card any more), `match` (other names mean the model). `before` and `after`
    are the cards for the same time; of a negotiated rate that is new or gone the list price.
    """

    kind: str
    is_override: bool
    provider: str
    model: str
    before: RateCard | None = None
    after: RateCard | None = None


def listed(
    book: RateBook, provider: str = "", model: str = "", tier: str = "", at_unix_ns: int | None = None
) -> list[Listed]:
    """The cards of a book, in its order; `model` is a reference as calls carry it.

    With a moment those in force then, otherwise those of all times. A book's negotiated rates come before
    the catalogue's, which they take the place of.
    """
    chosen: list[Listed] = []
    for is_override, models in _chosen(book, provider, model):
        for one in models:
            cards = [card for card in one.cards if not tier or card.service_tier == served_tier(tier)]
            if at_unix_ns is not None:
                cards = [card for card in cards if card.in_force(at_unix_ns)]
            chosen += [Listed(card, is_override) for card in cards]
    return chosen


def card_form(listed_card: Listed) -> dict[str, Any]:
    """A card as JSON, with whether it is negotiated."""
    return {**card_to_json(listed_card.card), "is_override": listed_card.is_override}


def differences(before: RateBook, after: RateBook, provider: str = "") -> Iterator[Change]:
    """What `after` says otherwise than `before`, provider by provider; negotiated rates come last."""
    old, new = dict(_by_provider(before, provider)), dict(_by_provider(after, provider))
    for is_override, name in sorted(old.keys() | new.keys()):
        books = [shelves_of.get((is_override, name), ()) for shelves_of in (old, new)]
        lists = [
            _by_key(shelves_of.get((False, name), ())) if is_override else {} for shelves_of in (old, new)
        ]
        for model in _other_matches(*books):
            yield Change("match", is_override, name, model)
        cards = [_by_key(models) for models in books]
        for key in sorted(cards[0].keys() | cards[1].keys(), key=repr):
            sides = [
                _Side(of.get(key, {}), of_list.get(key, {})) for of, of_list in zip(cards, lists, strict=True)
            ]
            for kind, one, other in _of_cards(*sides):
                yield Change(kind, is_override, name, key[0], one, other)


def change_form(change: Change) -> dict[str, Any]:
    """A change as JSON; `prices` has the buckets whose price is another one."""
    card = change.before if change.kind == "gone" else change.after or change.before
    form: dict[str, Any] = {
        "change": change.kind,
        "provider": change.provider,
        "model": change.model,
        "is_override": change.is_override,
    }
    if card is None:
        return form
    form |= {"service_tier": card.service_tier, "card": card.id}
    form["from"] = format_time(card.effective_from_unix_ns) if card.effective_from_unix_ns else None
    form["to"] = _time(card.effective_to_unix_ns)
    if change.kind == "ended" and change.before is not None:
        form["to_before"] = _time(change.before.effective_to_unix_ns)
    if change.kind == "changed" and change.before is not None:
        form["card_before"] = change.before.id
    form["prices"] = [
        {"buckets": buckets, "per": per, "old": old, "new": new} for buckets, per, old, new in _prices(change)
    ]
    return form


def price_text(rate: Rate) -> str:
    """A price in USD, with its cliffs: `1.25, 2.5 above 200000`."""
    cliffs = "".join(f", {plain(tier.usd)} above {tier.above_input_tokens}" for tier in rate.tiers)
    minimum = f", at least {rate.minimum}" if rate.minimum else ""
    return f"{plain(rate.usd)}{cliffs}{minimum}"


def grouped(rates: Mapping[str, Rate]) -> list[tuple[list[str], Rate]]:
    """Buckets by their rate: most of a card's buckets cost what a wider one costs."""
    groups: dict[Rate, list[str]] = {}
    for bucket, rate in rates.items():
        groups.setdefault(rate, []).append(bucket)
    return [(buckets, rate) for rate, buckets in groups.items()]


def _chosen(book: RateBook, provider: str, model: str) -> Iterator[tuple[bool, Sequence[ModelRates]]]:
    if not model:
        for is_override, name, models in shelves(book):
            if not provider or name == _name(book, provider):
                yield is_override, models
        return
    over = {id(m) for name in book.overrides for m in book.overrides[name]}
    names = [provider] if provider else sorted({*book.overrides, *book.catalogue})
    for name in names:
        meant = book.models(name, model)
        for is_override in (True, False):
            yield is_override, [m for m in meant if (id(m) in over) is is_override]


def _name(book: RateBook, provider: str) -> str:
    return aliases(book).get(provider, provider)


def _by_provider(book: RateBook, provider: str) -> Iterator[tuple[tuple[bool, str], Sequence[ModelRates]]]:
    for is_override, name, models in shelves(book):
        if not provider or name == _name(book, provider):
            yield (is_override, name), models


def _other_matches(before: Sequence[ModelRates], after: Sequence[ModelRates]) -> list[str]:
    """Models that other names mean than before."""
    old, new = ({model.model: model.match for model in models} for models in (before, after))
    return sorted(model for model in old.keys() & new.keys() if old[model] != new[model])


@dataclass(frozen=True, slots=True)
class _Side:
    """The cards of one key in one book by id; for negotiated ones the list's beside them."""

    cards: Mapping[str, RateCard]
    list_cards: Mapping[str, RateCard]

    def at(self, at_unix_ns: int) -> RateCard | None:
        """The card whose dates hold at that moment, whatever hours of the day it is for."""
        for card in (*self.cards.values(), *self.list_cards.values()):
            until = card.effective_to_unix_ns
            if card.effective_from_unix_ns <= at_unix_ns and (until is None or at_unix_ns < until):
                return card
        return None


def _by_key(models: Iterable[ModelRates]) -> Mapping[_Key, dict[str, RateCard]]:
    found: dict[_Key, dict[str, RateCard]] = defaultdict(dict)
    for model in models:
        for card in model.cards:
            found[model.model, card.service_tier, card.daily_window].setdefault(card.id, card)
    return found


def _of_cards(old: _Side, new: _Side) -> Iterator[tuple[str, RateCard | None, RateCard | None]]:
    replaced: set[str] = set()
    for card_id, card in new.cards.items():
        same = old.cards.get(card_id)
        if same is None:
            before = old.at(card.effective_from_unix_ns)
            if before is not None:
                replaced.add(before.id)
            yield ("new" if before is None else "changed"), before, card
        elif same.effective_to_unix_ns != card.effective_to_unix_ns:
            yield "ended", same, card
    for card_id, card in old.cards.items():
        if card_id not in new.cards and card_id not in replaced:
            yield "gone", card, new.at(card.effective_from_unix_ns)


def _prices(change: Change) -> list[tuple[list[str], int, str | None, str | None]]:
    old = {} if change.before is None else change.before.rates
    new = {} if change.after is None else change.after.rates
    groups: dict[tuple[int, str | None, str | None], list[str]] = {}
    for bucket in [*new, *(bucket for bucket in old if bucket not in new)]:
        one, other = old.get(bucket), new.get(bucket)
        if one == other:
            continue
        per = next(rate.per for rate in (other, one) if rate is not None)
        if one is not None and other is not None and one.per != other.per:
            texts = f"{price_text(one)} per {one.per}", f"{price_text(other)} per {other.per}"
            groups.setdefault((per, *texts), []).append(bucket)
        else:
            groups.setdefault((per, _price(one), _price(other)), []).append(bucket)
    return [(buckets, per, one_text, other_text) for (per, one_text, other_text), buckets in groups.items()]


def _price(rate: Rate | None) -> str | None:
    return None if rate is None else price_text(rate)


def _time(unix_ns: int | None) -> str | None:
    return None if unix_ns is None else format_time(unix_ns)
