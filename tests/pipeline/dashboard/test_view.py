from __future__ import annotations

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpipeline.dashboard.series import grain_of, over_time
from mmpipeline.dashboard.view import RANGES, UNALLOCATED, read
from mmpipeline.store.warehouse.shapes import CostRow
from tests.pipeline.running import NOW_NS


@pytest.mark.parametrize(
    ("query", "first", "last", "days"),
    [
        ({}, "2026-10-25", "2026-11-23", 30),
        ({"range": "today"}, "2026-11-23", "2026-11-23", 1),
        ({"range": "7d"}, "2026-11-17", "2026-11-23", 7),
        ({"range": "month"}, "2026-11-01", "2026-11-23", 23),
        ({"range": "last-month"}, "2026-10-01", "2026-10-31", 31),
        ({"range": "custom", "from": "2026-02-27", "until": "2026-03-01"}, "2026-02-27", "2026-03-01", 3),
    ],
)
def test_ranges(query: dict[str, str], first: str, last: str, days: int) -> None:
    view = read(query, NOW_NS)
    assert (view.from_day, view.until_day, view.days) == (first, last, days)
    assert view.span.whole_days
    assert view.previous.to_unix_ns == view.span.from_unix_ns
    assert not view.warning


@pytest.mark.parametrize(
    "query",
    [
        {"range": "everything"},
        {"range": "custom"},
        {"range": "custom", "from": "2026-03-01", "until": "2026-02-01"},
        {"range": "custom", "from": "0001-01-01", "until": "0001-01-02"},
        {"range": "custom", "from": "2026-02-30", "until": "2026-03-01"},
        {"range": "custom", "from": "1990-01-01", "until": "2026-03-01"},
        {"range": "custom", "from": "9999-12-31", "until": "9999-12-31"},
    ],
)
def test_a_damaged_url_shows_the_default_and_says_so(query: dict[str, str]) -> None:
    view = read(query, NOW_NS)
    assert view.range == "30d"
    assert view.warning


_text = st.text(min_size=1, max_size=20)


@given(
    query=st.fixed_dictionaries(
        {"range": st.sampled_from([name for name in RANGES if name != "custom"])},
        optional={"team": _text, "model": _text, "application": st.just(UNALLOCATED), "tenant": _text},
    )
)
def test_the_url_is_the_state(query: dict[str, str]) -> None:
    view = read(query, NOW_NS)
    again = read(dict(parse_qsl(view.query(), strict_parsing=True)), NOW_NS)
    assert again == view


def test_days_without_calls_are_shown_and_small_groups_gathered() -> None:
    view = read({"range": "7d"}, NOW_NS)
    rows = [CostRow(("2026-11-20", f"team {n}"), 1, 0, 10**9 * n) for n in range(12)]
    rows.append(CostRow(("2026-11-22", ""), 1, 0, 10**12))
    series = over_time(rows, view, "(none)")
    assert grain_of(view) == "day"
    assert len(series.points) == 7
    assert series.lines[0].name == "(none)"
    assert series.lines[1].name == "team 11"
    assert series.lines[-1].name == "all others (6)"
    assert sum(line.total for line in series.lines) == sum(row.priced_nano_usd for row in rows)
    table = series.table()
    assert table[0][0] == "23 Nov"
    assert all(len(cells) == len(series.lines) for _, cells, _ in table)


def test_a_group_without_a_price_is_unpriced_in_legend_and_table_and_not_zero() -> None:
    view = read({"range": "7d"}, NOW_NS)
    rows = [CostRow(("2026-11-20", "known"), 2, 1, 10**9), CostRow(("2026-11-20", "unknown"), 3, 3, 0)]
    series = over_time(rows, view, "(none)")
    assert [(line.name, amount) for line, amount in series.legend()] == [
        ("known", "$1.00"),
        ("unknown", "unpriced"),
    ]
    assert all(cells[1] == "unpriced" for _, cells, _ in series.table())
