"""Small books of prices, with round numbers to reckon with."""

from __future__ import annotations

from decimal import Decimal

from mmpipeline.rating.cards import named
from mmpipeline.rating.shelf import Shelf
from mmpipeline.store.control import prices
from mmpipeline.store.control.database import Database
from mmproto.callform import parse_time
from mmproto.ratebook import ModelRates, RateBook
from mmproto.rating import ContextTier, Rate, RateCard


def card(
    model: str,
    usd_in: str,
    usd_out: str = "0",
    *,
    tier: str = "standard",
    since: str = "",
    until: str = "",
    cliff: tuple[int, str] | None = None,
    provider: str = "openai",
) -> RateCard:
    """Prices of input and output in USD a million; a cliff of the input by (total input, price)."""
    tiers = () if cliff is None else (ContextTier(cliff[0], Decimal(cliff[1])),)
    rates = {"input": Rate(Decimal(usd_in), 1_000_000, tiers), "output": Rate(Decimal(usd_out), 1_000_000)}
    return named(
        RateCard(
            id="",
            provider=provider,
            model=model,
            service_tier=tier,
            effective_from_unix_ns=parse_time(f"{since}T00:00:00Z") if since else 0,
            effective_to_unix_ns=parse_time(f"{until}T00:00:00Z") if until else None,
            rates=rates,
            sources=("a test",),
        )
    )


def book(version: str, *cards: RateCard, overrides: tuple[RateCard, ...] = ()) -> RateBook:
    """A book of these cards, their models known by their very names."""
    return RateBook(version, _shelf(cards), _shelf(overrides))


def take(database: Database, taken: RateBook, now_unix_ns: int = 1) -> bool:
    """Import a book as `mmpipeline prices import --file` does."""
    with database.write() as connection:
        return prices.import_book(connection, taken, "a test", "", now_unix_ns)


def _shelf(cards: tuple[RateCard, ...]) -> Shelf:
    by_provider: dict[str, dict[str, list[RateCard]]] = {}
    for one in cards:
        by_provider.setdefault(one.provider, {}).setdefault(one.model, []).append(one)
    return Shelf(
        by_provider,
        {"other-name-of-openai": "openai"},
        lambda name: [
            ModelRates(model, {"equals": model}, held) for model, held in by_provider[name].items()
        ],
    )
