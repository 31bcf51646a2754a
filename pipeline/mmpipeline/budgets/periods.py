"""Budget periods: calendar periods in UTC, so that every place agrees on when one ends.

Bounds are half open: a moment belongs to the period that starts at or before it.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum

_NS = 1_000_000_000


class Period(StrEnum):
    """Over which calendar period a budget's amount is meant. Weeks start on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


def bounds(period: Period, at_unix_ns: int) -> tuple[int, int]:
    """Start (inclusive) and end (exclusive) of the period around `at_unix_ns`, in unix nanoseconds."""
    midnight = datetime.fromtimestamp(at_unix_ns // _NS, UTC).replace(hour=0, minute=0, second=0)
    match period:
        case Period.DAY:
            start = midnight
            end = start + timedelta(days=1)
        case Period.WEEK:
            start = midnight - timedelta(days=midnight.weekday())
            end = start + timedelta(days=7)
        case Period.MONTH:
            start = midnight.replace(day=1)
            end = _months_later(start, 1)
        case Period.QUARTER:
            start = midnight.replace(month=(midnight.month - 1) // 3 * 3 + 1, day=1)
            end = _months_later(start, 3)
        case Period.YEAR:
            start = midnight.replace(month=1, day=1)
            end = _months_later(start, 12)
    return int(start.timestamp()) * _NS, int(end.timestamp()) * _NS


def _months_later(first_of_month: datetime, months: int) -> datetime:
    count = first_of_month.month - 1 + months
    return first_of_month.replace(year=first_of_month.year + count // 12, month=count % 12 + 1)
