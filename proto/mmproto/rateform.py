"""The JSON form of rate cards and books, as `GET /v1/rate-cards` serves it.

Money is decimal strings, times are RFC 3339; what does not apply is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from mmproto.callform import format_time, parse_time
from mmproto.ratebook import ModelRates, RateBook
from mmproto.rating import ContextTier, Rate, RateCard, plain


def book_to_json(book: RateBook, providers: Iterable[str]) -> dict[str, Any]:
    """The cards of `providers`: `{"version", "catalogue": {provider: [model]}, "overrides": {...}}`."""
    wanted = list(providers)

    def shelf(models_of: Mapping[str, Sequence[ModelRates]]) -> dict[str, Any]:
        return {
            name: [
                {"model": m.model, "match": m.match, "cards": [card_to_json(c) for c in m.cards]}
                for m in models_of[name]
            ]
            for name in wanted
            if name in models_of
        }

    return {
        "version": book.version,
        "catalogue": shelf(book.catalogue),
        "overrides": shelf(book.overrides),
    }


def book_from_json(form: Mapping[str, Any]) -> RateBook:
    """The book that `book_to_json` wrote. Raises KeyError, TypeError or ValueError for anything else."""

    def shelf(models_of: Mapping[str, Any]) -> dict[str, list[ModelRates]]:
        return {
            name: [
                ModelRates(m["model"], m["match"], [card_from_json(card) for card in m["cards"]])
                for m in models
            ]
            for name, models in models_of.items()
        }

    return RateBook(form["version"], shelf(form["catalogue"]), shelf(form["overrides"]))


def card_to_json(card: RateCard) -> dict[str, Any]:
    """A card with decimal strings and RFC 3339 times; what does not apply is left out."""
    form: dict[str, Any] = {
        "id": card.id,
        "provider": card.provider,
        "model": card.model,
        "service_tier": card.service_tier,
    }
    if card.effective_from_unix_ns:
        form["effective_from"] = format_time(card.effective_from_unix_ns)
    if card.effective_to_unix_ns is not None:
        form["effective_to"] = format_time(card.effective_to_unix_ns)
    if card.daily_window is not None:
        form["daily_window_s"] = list(card.daily_window)
    form["rates"] = {bucket: _rate_to_json(r) for bucket, r in card.rates.items()}
    form["sources"] = list(card.sources)
    return form


def card_from_json(form: Mapping[str, Any]) -> RateCard:
    """The card that `card_to_json` wrote."""
    window = form.get("daily_window_s")
    until = form.get("effective_to")
    return RateCard(
        id=form["id"],
        provider=form["provider"],
        model=form["model"],
        service_tier=form["service_tier"],
        effective_from_unix_ns=parse_time(form["effective_from"]) if "effective_from" in form else 0,
        effective_to_unix_ns=None if until is None else parse_time(until),
        rates={bucket: _rate_from_json(r) for bucket, r in form["rates"].items()},
        sources=tuple(form["sources"]),
        daily_window=None if window is None else (window[0], window[1]),
    )


def _rate_to_json(r: Rate) -> dict[str, Any]:
    form: dict[str, Any] = {"usd": plain(r.usd), "per": r.per}
    if r.tiers:
        form["tiers"] = [{"above_input_tokens": t.above_input_tokens, "usd": plain(t.usd)} for t in r.tiers]
    if r.minimum:
        form["minimum"] = r.minimum
    return form


def _rate_from_json(form: Mapping[str, Any]) -> Rate:
    tiers = tuple(ContextTier(t["above_input_tokens"], Decimal(t["usd"])) for t in form.get("tiers", ()))
    return Rate(Decimal(form["usd"]), form["per"], tiers, form.get("minimum", 0))
