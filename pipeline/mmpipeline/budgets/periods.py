"""Calendar periods in a budget's time zone, as moments on the one time line that all zones share.

A day begins at the first moment whose local time has reached its midnight. Where clocks leap over midnight
that is the moment of the leap, and where they pass midnight twice it is the first time; a date that a zone
left out has no moments. So periods abut and every moment is in exactly one, which need not be the one that
a clock on the wall says: turned back from 00:01 to 23:01, it shows yesterday for an hour, and that hour
belongs to the day that has begun.

The rules of the zones are those of the `tzdata` package, not of the machine: all processes of an
installation must agree on when a period begins, since it is the key under which spend is counted.

Bounds are half open: a moment belongs to the period that starts at or before it.
"""

from __future__ import annotations

import difflib
from bisect import bisect_right
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum
from functools import cache, lru_cache
from importlib.resources import files
from zoneinfo import ZoneInfo

from mmproto.callform import parse_time

_NS = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)

DEFAULT_TIME_ZONE = "UTC"


class Period(StrEnum):
    """Over which calendar period a budget's amount is meant. Weeks start on Monday."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    QUARTER = "quarter"
    YEAR = "year"


class UnknownZone(ValueError):
    """No time zone has that name; str() says so and what is meant perhaps."""


def bounds(period: Period, at_unix_ns: int, time_zone: str = DEFAULT_TIME_ZONE) -> tuple[int, int]:
    """Start (inclusive) and end (exclusive) of the period around `at_unix_ns`, in unix nanoseconds.

    Raises UnknownZone.
    """
    zone = _zone(time_zone)
    at = at_unix_ns // _NS
    local = (_EPOCH + timedelta(seconds=at)).astimezone(zone)
    first = _first_day(period, local.date())
    # The wall's date is at most a few steps beside the period that holds the moment.
    while (start := _start(first, zone)) > at:
        first = _first_day(period, first - timedelta(days=1))
    while (end := _start(following := _next(period, first), zone)) <= at:
        first, start = following, end
    return start * _NS, end * _NS


def starts(
    period: Period, from_unix_ns: int, to_unix_ns: int, time_zone: str = DEFAULT_TIME_ZONE
) -> list[int]:
    """Starts of the periods that hold the moments from `from_unix_ns` to `to_unix_ns`, both included."""
    start, end = bounds(period, from_unix_ns, time_zone)
    found = [start]
    while end <= to_unix_ns:
        found.append(end)
        end = bounds(period, end, time_zone)[1]
    return found


def moment_of(text: str, time_zone: str = DEFAULT_TIME_ZONE) -> int:
    """A date as the beginning of that day in the zone, or an RFC 3339 time, in unix nanoseconds.

    Raises ValueError, of which UnknownZone is one.
    """
    zone = _zone(time_zone)
    try:
        if "T" in text or "t" in text:
            return parse_time(text)
        return _start(date.fromisoformat(text), zone) * _NS
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f"a date such as 2026-12-01 or a time such as 2026-12-01T09:00:00Z is expected, not '{text[:40]}'"
        ) from error


def local_day(at_unix_ns: int, time_zone: str = DEFAULT_TIME_ZONE) -> str:
    """The date that the zone's clocks show at a moment."""
    return (_EPOCH + timedelta(seconds=at_unix_ns // _NS)).astimezone(_zone(time_zone)).date().isoformat()


class Calendar:
    """Periods of one kind in one zone, remembered: calls come by the thousand and periods by the day."""

    def __init__(self, period: Period, time_zone: str) -> None:
        self.period = period
        self.time_zone = time_zone
        self._start = self._end = 0
        self._starts: list[int] = []
        self._ends: list[int] = []

    def start(self, at_unix_ns: int) -> int:
        """Start of the period around a moment."""
        if not self._start <= at_unix_ns < self._end:
            self._start, self._end = self._look_up(at_unix_ns)
        return self._start

    def _look_up(self, at_unix_ns: int) -> tuple[int, int]:
        place = bisect_right(self._starts, at_unix_ns)
        if place and at_unix_ns < self._ends[place - 1]:
            return self._starts[place - 1], self._ends[place - 1]
        if len(self._starts) >= 10_000:  # times come from outside: never let them fill the memory
            self._starts.clear()
            self._ends.clear()
            place = 0
        start, end = bounds(self.period, at_unix_ns, self.time_zone)
        self._starts.insert(place, start)
        self._ends.insert(place, end)
        return start, end


def check_zone(name: str) -> None:
    """Raises UnknownZone where no time zone has this name."""
    if name in zone_names():
        return
    close = difflib.get_close_matches(name, zone_names(), 1, 0.6)
    hint = f"; is {close[0]} meant?" if close else "; a name such as Europe/Berlin is expected"
    raise UnknownZone(f"there is no time zone '{name[:60]}'{hint}")


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """All names that a time zone can be given by."""
    return frozenset(files("tzdata").joinpath("zones").read_text(encoding="ascii").split())


@cache  # a few hundred at most: names are checked first
def _zone(name: str) -> tzinfo:
    check_zone(name)
    if name == DEFAULT_TIME_ZONE:
        return UTC
    with files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


def _start(day: date, zone: tzinfo) -> int:
    """The first second at which the zone's local time has reached midnight of `day`."""
    midnight = datetime.combine(day, time(), zone)
    reached = (midnight - _EPOCH) // _SECOND
    leapt = (midnight.replace(fold=1) - _EPOCH) // _SECOND
    # Midnight lies in a gap where the offset before it puts it later than the offset after it; the clocks
    # leapt at some moment between the two.
    while reached - leapt > 1:
        middle = (reached + leapt) // 2
        local = (_EPOCH + timedelta(seconds=middle)).astimezone(zone)
        if local.replace(tzinfo=None) >= midnight.replace(tzinfo=None):
            reached = middle
        else:
            leapt = middle
    return reached


def _first_day(period: Period, day: date) -> date:
    match period:
        case Period.DAY:
            return day
        case Period.WEEK:
            return day - timedelta(days=day.weekday())
        case Period.MONTH:
            return day.replace(day=1)
        case Period.QUARTER:
            return day.replace(month=(day.month - 1) // 3 * 3 + 1, day=1)
        case Period.YEAR:
            return day.replace(month=1, day=1)


def _next(period: Period, first: date) -> date:
    match period:
        case Period.DAY:
            return first + timedelta(days=1)
        case Period.WEEK:
            return first + timedelta(days=7)
        case Period.MONTH:
            return _months_later(first, 1)
        case Period.QUARTER:
            return _months_later(first, 3)
        case Period.YEAR:
            return _months_later(first, 12)


def _months_later(first_of_month: date, months: int) -> date:
    count = first_of_month.month - 1 + months
    return first_of_month.replace(year=first_of_month.year + count // 12, month=count % 12 + 1)
