from __future__ import annotations

import csv
import io
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpipeline.dashboard import figures
from mmpipeline.dashboard.tables import csv_text, harmless


@pytest.mark.parametrize(
    ("nano_usd", "text"),
    [
        (None, "unpriced"),
        (0, "$0.00"),
        (1, "$0.000000001"),
        (123_000, "$0.000123"),
        (1_500_000, "$0.00150"),
        (45_678_901, "$0.0457"),
        (999_999_999, "$1.00"),
        (1_000_000_000, "$1.00"),
        (1_234_567_891_234, "$1,234.57"),
        (-2_500_000_000, "−$2.50"),
    ],
)
def test_one_amount(nano_usd: int | None, text: str) -> None:
    assert figures.money(nano_usd) == text


def test_amounts_of_a_column_line_up() -> None:
    column = figures.money_column([12_000_000_000, 4_560_000, 0, None, 1])
    assert column == ["$12.0000", "$0.0046", "$0.0000", "unpriced", "<$0.0001"]
    assert figures.money_column([12_000_000_000, 3_000_000_000, 0]) == ["$12.00", "$3.00", "$0.00"]


@given(st.integers(1, 10**18))
def test_an_amount_never_looks_like_nothing_and_is_near_what_it_is(nano_usd: int) -> None:
    shown = Decimal(figures.money(nano_usd).strip("$").replace(",", ""))
    exact = Decimal(nano_usd).scaleb(-9)
    assert shown > 0
    assert abs(shown - exact) <= max(exact * Decimal("0.006"), Decimal(0))


@given(st.lists(st.none() | st.integers(0, 10**15), min_size=1))
def test_a_column_has_one_number_of_decimals_and_hides_nothing(amounts: list[int | None]) -> None:
    column = figures.money_column(amounts)
    decimals = {text.partition(".")[2] for text in column if text != "unpriced"}
    assert len({len(digits) for digits in decimals}) <= 1
    for amount, text in zip(amounts, column, strict=True):
        if amount:
            assert text.strip("<$0.,")


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "0 %"),
        (0, 10, "0 %"),
        (10, 10, "100 %"),
        (1, 10**6, "<0.1 %"),
        (999_999, 10**6, "99.9 %"),
        (1, 3, "33.3 %"),
    ],
)
def test_a_share_is_nothing_or_all_only_where_it_is(part: int, whole: int, text: str) -> None:
    assert figures.share(part, whole) == text


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0"), (999, "999"), (1_240_000, "1.24 M"), (99_960, "100 k"), (25_300, "25.3 k")]
)
def test_large_numbers_in_short(number: int, text: str) -> None:
    assert figures.short_count(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.0123, "12 ms"), (0.9999, "1.0 s"), (12.34, "12.3 s"), (600, "10.0 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert figures.duration(seconds) == text


@given(st.lists(st.text(), min_size=1, max_size=5))
def test_csv_gives_back_what_went_in_and_starts_no_formula(cells: list[str]) -> None:
    text = csv_text(["h"] * len(cells), [cells])
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[1] == [harmless(cell) for cell in cells]
    for cell in rows[1]:
        assert not cell.lstrip(" ").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
