"""Which negotiated rate applies where several could, and the cards that say so.

References of a file form chains: `gpt-4o-2024-*` is narrower than `gpt-4o*`, that than `*`. At any moment
the narrowest entry that is in force for the tier holds, of several with the same reference the one that
began last; where none is in force the catalogue's price applies. This is worked out here once, into cards
whose times do not overlap, so that a rate book asks no more than which model is meant.

A discount needs to know the list price, and therefore the model: for each of the catalogue's models that
its reference may mean it becomes an entry of its own, in the catalogue's order. A reference that the
catalogue does not know has no list price, and no discounted one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from mmpipeline.rating.cards import append, named
from mmpipeline.rating.catalogue import catalogue_id
from mmpipeline.rating.overrides import OverrideEntry
from mmproto.ratebook import Clause, ModelRates
from mmproto.rating import SERVICE_TIERS, RateCard, plain

# Of one provider: the entries by the reference that they stand under, in lower case.
_Entries = Mapping[str, Sequence[OverrideEntry]]
_Span = tuple[int, int | None]


class NoListPrice(ValueError):
    """A discount off prices that the catalogue does not have; str() says of what."""


def negotiated(
    entries: Sequence[OverrideEntry], listed: Callable[[str], Sequence[ModelRates]]
) -> dict[str, list[ModelRates]]:
    """The overrides of a rate book; `listed` gives the catalogue's models of a provider, () for none.

    Raises NoListPrice: a discount that is silently none would be charged at the list price.
    """
    by_provider: dict[str, dict[str, list[OverrideEntry]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        for reference in dict.fromkeys(text.lower() for text in entry.models):
            provider = catalogue_id(entry.provider)
            if entry.discount_percent is not None and not _meant(reference, listed(provider)):
                raise NoListPrice(
                    f"a discount for {entry.provider} '{reference}', of which no list price is known"
                )
            by_provider[provider][reference].append(entry)
    return {
        provider: list(_models(provider, by_reference, listed))
        for provider, by_reference in by_provider.items()
    }


def _models(
    provider: str, entries: _Entries, listed: Callable[[str], Sequence[ModelRates]]
) -> Iterator[ModelRates]:
    # Exact names before beginnings, longer beginnings before shorter ones: the narrowest match is first.
    for reference in sorted(entries, key=lambda text: (text.endswith("*"), -len(text), text)):
        chain = [entries[reference], *(entries[wider] for wider in _wider(reference, entries))]
        if any(entry.discount_percent is not None for step in chain for entry in step):
            meant = _meant(reference, listed(provider))
            for model in meant:
                cards = _cards(provider, model.model, chain, model.cards)
                if cards:
                    yield ModelRates(model.model, _both(reference, model.match), cards)
            if meant and not reference.endswith("*"):
                continue
        cards = _cards(provider, reference, chain, ())
        if cards:
            yield ModelRates(reference, _clause(reference), cards)


def _wider(reference: str, entries: _Entries) -> list[str]:
    """The beginnings among `entries` that match all that `reference` matches, the narrowest first."""
    own = reference.removesuffix("*")
    found = [
        text for text in entries if text != reference and text.endswith("*") and own.startswith(text[:-1])
    ]
    return sorted(found, key=len, reverse=True)


def _meant(reference: str, models: Sequence[ModelRates]) -> Sequence[ModelRates]:
    """Those of the catalogue's models that `reference` may mean, in their order."""
    if reference.endswith("*"):
        return [model for model in models if _may_begin(model.match, reference[:-1])]
    return [model for model in models if model.is_meant_by(reference)][:1]


def _may_begin(clause: Clause, beginning: str) -> bool:
    """Whether some text that begins so may match; True where that is not easily seen."""
    ((kind, value),) = clause.items()
    match kind:
        case "equals":
            return bool(value.lower().startswith(beginning))
        case "starts_with":
            wanted = value.lower()
            return bool(wanted.startswith(beginning) or beginning.startswith(wanted))
        case "or":
            return any(_may_begin(part, beginning) for part in value)
        case "and":
            return all(_may_begin(part, beginning) for part in value)
    return True


def _clause(reference: str) -> Clause:
    return {"starts_with": reference[:-1]} if reference.endswith("*") else {"equals": reference}


def _both(reference: str, match: Clause) -> Clause:
    if reference == "*":
        return match
    return {"and": [_clause(reference), match]} if reference.endswith("*") else _clause(reference)


def _cards(
    provider: str, model: str, chain: Sequence[Sequence[OverrideEntry]], listed: Sequence[RateCard]
) -> list[RateCard]:
    """The cards of one model: of every tier, one after the other."""
    cards: list[RateCard] = []
    for tier in SERVICE_TIERS:
        steps = [[entry for entry in step if tier in entry.tiers] for step in chain]
        list_cards = [card for card in listed if card.service_tier == tier]
        for span, entry in _holding(steps):
            if entry.discount_percent is None:
                begin, end = span
                made = [RateCard("", provider, model, tier, begin, end, entry.rates(), (entry.source,))]
            else:
                made = list(_discounted(entry, span, list_cards))
            for card in made:
                append(cards, card)
    return [named(card) for card in cards]


def _holding(steps: Sequence[Sequence[OverrideEntry]]) -> Iterator[tuple[_Span, OverrideEntry]]:
    """Stretches of time without gaps inside, each with the entry that holds in it."""
    entries = [entry for step in steps for entry in step]
    moments = {entry.from_unix_ns for entry in entries}
    moments.update(entry.to_unix_ns for entry in entries if entry.to_unix_ns is not None)
    for begin, end in _stretches(sorted(moments)):
        for step in steps:
            active = [
                entry
                for entry in step
                if entry.from_unix_ns <= begin and (entry.to_unix_ns is None or begin < entry.to_unix_ns)
            ]
            if active:
                yield (begin, end), max(active, key=lambda entry: entry.from_unix_ns)
                break


def _stretches(moments: Sequence[int]) -> Iterator[_Span]:
    """From each moment to the next, the last without an end."""
    for index, begin in enumerate(moments):
        yield begin, moments[index + 1] if index + 1 < len(moments) else None


def _discounted(entry: OverrideEntry, span: _Span, listed: Sequence[RateCard]) -> Iterator[RateCard]:
    """The catalogue's cards in `span`, less the discount."""
    begin, end = span
    how = "off" if entry.percent >= 0 else "on"
    source = f"{plain(abs(entry.percent))} % {how} the list price: {entry.source}"
    for card in listed:
        start = max(begin, card.effective_from_unix_ns)
        ends = [e for e in (end, card.effective_to_unix_ns) if e is not None]
        until = min(ends) if ends else None
        if card.rates and (until is None or start < until):
            yield replace(
                card,
                id="",
                effective_from_unix_ns=start,
                effective_to_unix_ns=until,
                rates=entry.discounted(card.rates),
                sources=(*card.sources, source),
            )
