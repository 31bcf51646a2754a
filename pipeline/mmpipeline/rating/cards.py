"""Making cards: their ids, and one card where nothing but the dates would make it two."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime

from mmproto.rateform import card_to_json
from mmproto.rating import NANO, RateCard


def named(card: RateCard) -> RateCard:
    """`card` with its id: what it is for, since when, and a digest of its prices.

    The end of its time and its sources are left out of the digest: a later price ends a card and a new
    catalogue repeats it, and neither makes other prices of it.
    """
    form = card_to_json(card)
    for key in ("id", "effective_to", "sources"):
        form.pop(key, None)
    digest = hashlib.sha256(json.dumps(form, sort_keys=True).encode()).hexdigest()[:12]
    since = "always"
    if card.effective_from_unix_ns:
        since = datetime.fromtimestamp(card.effective_from_unix_ns // NANO, UTC).strftime("%Y-%m-%d")
    return replace(card, id=f"{card.provider}/{card.model}/{card.service_tier}@{since}#{digest}")


def append(cards: list[RateCard], card: RateCard) -> None:
    """Append `card`, or prolong the one before it where nothing but the dates differs."""
    for index, before in enumerate(cards):
        if before.effective_to_unix_ns == card.effective_from_unix_ns and _same(before, card):
            cards[index] = replace(before, effective_to_unix_ns=card.effective_to_unix_ns)
            return
    cards.append(card)


def _same(one: RateCard, other: RateCard) -> bool:
    return (
        one.service_tier == other.service_tier
        and one.rates == other.rates
        and one.sources == other.sources
        and one.daily_window == other.daily_window
    )
