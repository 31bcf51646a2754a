"""Properties of the arithmetic, whatever the prices: exact, adding up, the same on both ways."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from mmproto.rateform import card_from_json, card_to_json
from mmproto.rating import ContextTier, Pricer, Rate, RateCard, plain, rate, usd
from mmproto.usage import INPUT_BUCKETS, OUTPUT_BUCKETS, UNITS

BUCKETS = INPUT_BUCKETS + OUTPUT_BUCKETS

prices = st.decimals(0, 1000, places=6)
rates = st.builds(
    Rate,
    usd=prices,
    per=st.sampled_from([1, 1000, 3600, 1_000_000]),
    tiers=st.lists(
        st.builds(ContextTier, above_input_tokens=st.integers(1, 10**6), usd=prices),
        max_size=2,
        unique_by=lambda tier: tier.above_input_tokens,
    ).map(lambda tiers: tuple(sorted(tiers, key=lambda tier: tier.above_input_tokens))),
)
cards = st.builds(
    RateCard,
    id=st.just("card"),
    provider=st.just("p"),
    model=st.just("m"),
    service_tier=st.just("standard"),
    effective_from_unix_ns=st.integers(0, 2**61).map(lambda ns: ns // 10**9 * 10**9),
    effective_to_unix_ns=st.none(),
    rates=st.dictionaries(st.sampled_from([*BUCKETS, *sorted(UNITS), "requests"]), rates, min_size=1),
    sources=st.just(("test",)),
)
tokens = st.dictionaries(st.sampled_from(BUCKETS), st.integers(0, 10**7), min_size=1)
units = st.dictionaries(st.sampled_from(sorted(UNITS)), st.floats(0, 1e6, allow_nan=False))


@given(cards, tokens, units)
def test_lines_add_up_and_each_is_within_a_nano_dollar(
    card: RateCard, counts: dict[str, int], others: dict[str, float]
) -> None:
    charge = rate(card, {**counts, **others})
    if charge.nano_usd is None:
        assert charge.reason.startswith("no_rate_for_")
        return
    assert sum(line.nano_usd for line in charge.lines) == charge.nano_usd
    exact = Fraction(0)
    for line in charge.lines:
        amount = Fraction(line.quantity) * Fraction(line.usd) * 10**9 / line.per
        assert abs(line.nano_usd - amount) < 1
        exact += amount
    assert charge.nano_usd == round(exact)


@given(cards, tokens, units)
def test_the_fast_way_and_the_explaining_way_agree(
    card: RateCard, counts: dict[str, int], others: dict[str, float]
) -> None:
    charge = rate(card, {**counts, **others})
    cost, reason = Pricer(card).cost(counts, others)
    assert cost == charge.nano_usd
    assert bool(reason) == bool(charge.reason)


@given(cards)
def test_a_card_survives_its_json_form(card: RateCard) -> None:
    assert card_from_json(card_to_json(card)) == card


@given(st.integers(-(10**18), 10**18))
def test_money_as_text_is_exact_and_plain(nano: int) -> None:
    text = usd(nano)
    assert Decimal(text).scaleb(9) == nano
    assert "E" not in text.upper()


def test_plain_numbers() -> None:
    assert [plain(Decimal(text)) for text in ("2.50", "1E+2", "0.000", "1E-7")] == [
        "2.5",
        "100",
        "0",
        "0.0000001",
    ]
