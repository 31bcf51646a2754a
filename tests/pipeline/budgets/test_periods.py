"""Calendar periods in UTC."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpipeline.budgets.periods import Period, bounds
from mmproto.callform import format_time, parse_time

# 1990 to 2100
moments = st.integers(631_152_000, 4_102_444_800).map(lambda s: s * 10**9)


@pytest.mark.parametrize(
    ("period", "at", "start", "end"),
    [
        (Period.DAY, "2026-11-23T23:59:59Z", "2026-11-23", "2026-11-24"),
        (Period.WEEK, "2026-11-23T00:00:00Z", "2026-11-23", "2026-11-30"),
        (Period.WEEK, "2026-11-22T23:59:59.999Z", "2026-11-16", "2026-11-23"),
        (Period.MONTH, "2026-12-31T23:59:59Z", "2026-12-01", "2027-01-01"),
        (Period.MONTH, "2028-02-29T12:00:00Z", "2028-02-01", "2028-03-01"),
        (Period.QUARTER, "2026-11-23T10:00:00Z", "2026-10-01", "2027-01-01"),
        (Period.YEAR, "2026-01-01T00:00:00Z", "2026-01-01", "2027-01-01"),
    ],
)
def test_bounds(period: Period, at: str, start: str, end: str) -> None:
    found = [format_time(bound) for bound in bounds(period, parse_time(at))]
    assert found == [f"{start}T00:00:00Z", f"{end}T00:00:00Z"]


@given(st.sampled_from(list(Period)), moments)
def test_periods_cover_all_time_without_overlap(period: Period, at: int) -> None:
    start, end = bounds(period, at)
    assert start <= at < end
    assert bounds(period, start) == (start, end)
    assert bounds(period, end)[0] == end
    assert bounds(period, start - 1)[1] == start
