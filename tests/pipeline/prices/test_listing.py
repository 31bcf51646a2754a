"""What two books do not agree about, as people and programs read it."""

from __future__ import annotations

from typing import Any

from mmpipeline.rating.listing import card_form, change_form, differences, listed
from mmproto.callform import parse_time
from mmproto.ratebook import ModelRates, RateBook
from mmproto.rating import RateCard
from tests.pipeline.prices.books import book, card

NOV = parse_time("2026-11-20T12:00:00Z")


def changes(before: RateBook, after: RateBook, provider: str = "") -> list[dict[str, Any]]:
    return [change_form(change) for change in differences(before, after, provider)]


def short(forms: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """(change, model, from, to, [(bucket, old, new)])."""
    return [
        (
            form["change"],
            form["model"],
            form["from"],
            form["to"],
            [(bucket, price["old"], price["new"]) for price in form["prices"] for bucket in price["buckets"]],
        )
        for form in forms
    ]


def test_cards_that_appear_change_end_and_go() -> None:
    before = book("1", card("a", "1", "2"), card("b", "1"), card("c", "1"), card("d", "1", tier="batch"))
    after = book(
        "2",
        card("a", "3", "2", since="2026-10-01"),
        card("a", "1", "2", until="2026-10-01"),
        card("b", "1", until="2026-12-01"),
        card("d", "1", tier="batch"),
        card("e", "9", cliff=(200_000, "18")),
    )
    october, december = "2026-10-01T00:00:00Z", "2026-12-01T00:00:00Z"
    found = changes(before, after)
    assert short(found) == [
        ("changed", "a", october, None, [("input", "1", "3")]),
        ("ended", "a", None, october, []),
        ("ended", "b", None, december, []),
        ("gone", "c", None, None, [("input", "1", None), ("output", "0", None)]),
        ("new", "e", None, None, [("input", None, "9, 18 above 200000"), ("output", None, "0")]),
    ]
    assert found[0]["card_before"] == card("a", "1", "2").id
    assert found[2]["to_before"] is None
    assert changes(after, after) == []


def test_a_negotiated_rate_is_compared_with_the_list_price_it_takes_the_place_of() -> None:
    plain = book("1", card("a", "2"))
    negotiated = book("2", card("a", "2"), overrides=(card("a", "1", since="2026-07-01"),))
    (come,), (gone,) = changes(plain, negotiated), changes(negotiated, plain)
    assert (come["change"], come["is_override"], come["prices"][0]["old"], come["prices"][0]["new"]) == (
        ("changed", True, "2", "1")
    )
    assert (gone["change"], gone["prices"][0]["old"], gone["prices"][0]["new"]) == ("gone", "1", "2")


def test_other_names_of_a_model_are_told() -> None:
    def named(match: str) -> RateBook:
        return RateBook("x", {"openai": [ModelRates("a", {"starts_with": match}, [card("a", "1")])]})

    (change,) = changes(named("a"), named("a-"))
    assert (change["change"], change["model"]) == ("match", "a")


def test_only_one_provider_by_any_of_its_names() -> None:
    before, after = book("1", card("a", "1"), card("b", "1", provider="acme")), book("2", card("a", "1"))
    assert [form["provider"] for form in changes(before, after)] == ["acme"]
    assert changes(before, after, "other-name-of-openai") == []


def test_cards_by_provider_reference_tier_and_time() -> None:
    cards = (
        card("a", "1", until="2026-10-01"),
        card("a", "2", since="2026-10-01"),
        card("a", "0.5", tier="batch"),
        card("b", "7"),
    )
    held = book("1", *cards, overrides=(card("a", "1.5", since="2026-11-01"),))

    def ids(*question: Any) -> list[tuple[str, bool]]:
        return [(one.card.id, one.is_override) for one in listed(held, *question)]

    def at(one: RateCard) -> tuple[str, bool]:
        return one.id, False

    assert len(ids()) == 5
    assert ids("openai", "b") == [at(cards[3])]
    assert ids("", "a", "batch") == [at(cards[2])]
    assert ids("other-name-of-openai", "a", "standard", NOV) == [
        (card("a", "1.5", since="2026-11-01").id, True),
        at(cards[1]),
    ]
    assert ids("openai", "a", "standard", parse_time("2026-09-30T23:59:59Z")) == [at(cards[0])]
    assert card_form(listed(held, "openai", "b")[0])["is_override"] is False
