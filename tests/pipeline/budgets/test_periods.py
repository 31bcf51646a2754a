"""Calendar periods, in UTC and in zones that turn their clocks at awkward moments."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmpipeline.budgets.matching import BudgetMatcher
from mmpipeline.budgets.model import Budget
from mmpipeline.budgets.periods import Calendar, Period, UnknownZone, bounds, zone_names
from mmproto.callform import format_time, parse_time

NS = 10**9

# Clocks that are turned at midnight (Santiago, Cairo, Beirut, Havana, Asuncion), a minute past it (St Johns
# until 2011), by half an hour (Lord Howe); odd offsets; dates that were left out (Apia, Kiritimati,
# Kwajalein).
AWKWARD = [
    "UTC",
    "America/Santiago",
    "Africa/Cairo",
    "Asia/Beirut",
    "America/Havana",
    "America/Asuncion",
    "America/St_Johns",
    "America/Sao_Paulo",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Asia/Gaza",
    "Pacific/Chatham",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Africa/Monrovia",
    "Africa/Casablanca",
    "Antarctica/Troll",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "Pacific/Kwajalein",
]

# 1970 to 2100
moments = st.integers(0, 4_102_444_800 * NS)
kinds = st.sampled_from(list(Period))
zones = st.sampled_from(AWKWARD) | st.sampled_from(sorted(zone_names()))


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


@pytest.mark.parametrize(
    ("zone", "period", "at", "start", "end"),
    [
        ("Asia/Kathmandu", Period.DAY, "2026-11-23T18:14:59Z", "2026-11-22T18:15", "2026-11-23T18:15"),
        ("Asia/Kathmandu", Period.MONTH, "2026-11-30T18:15:00Z", "2026-11-30T18:15", "2026-12-31T18:15"),
        # Clocks leap from 00:00 to 01:00: the day has 23 hours and begins at one o'clock.
        ("America/Santiago", Period.DAY, "2026-09-06T12:00:00Z", "2026-09-06T04:00", "2026-09-07T03:00"),
        ("Africa/Cairo", Period.DAY, "2026-04-23T22:00:00Z", "2026-04-23T22:00", "2026-04-24T21:00"),
        ("Asia/Beirut", Period.DAY, "2026-03-29T10:00:00Z", "2026-03-28T22:00", "2026-03-29T21:00"),
        # Clocks are turned back from 24:00 to 23:00: that hour comes twice, and both belong to the old day.
        ("America/Santiago", Period.DAY, "2026-04-05T03:30:00Z", "2026-04-04T03:00", "2026-04-05T04:00"),
        # From 01:00 to 00:00: midnight comes twice, and the day begins at the first.
        ("America/Havana", Period.DAY, "2024-11-03T05:30:00Z", "2024-11-03T04:00", "2024-11-04T05:00"),
        # From 00:01 to 23:01 of the day before: the new day has begun, whatever the wall shows.
        ("America/St_Johns", Period.DAY, "2006-10-29T02:45:00Z", "2006-10-29T02:30", "2006-10-30T03:30"),
        ("America/St_Johns", Period.DAY, "2006-10-29T02:29:59Z", "2006-10-28T02:30", "2006-10-29T02:30"),
        # A whole date was left out: the day before it is followed by the day after it.
        ("Pacific/Apia", Period.DAY, "2011-12-30T09:59:59Z", "2011-12-29T10:00", "2011-12-30T10:00"),
        ("Pacific/Apia", Period.DAY, "2011-12-30T10:00:00Z", "2011-12-30T10:00", "2011-12-31T10:00"),
        ("Pacific/Apia", Period.MONTH, "2011-12-30T10:00:00Z", "2011-12-01T10:00", "2011-12-31T10:00"),
        ("Pacific/Kiritimati", Period.YEAR, "1995-01-01T00:00:00Z", "1994-12-31T10:00", "1995-12-31T10:00"),
        ("Europe/Berlin", Period.QUARTER, "2026-11-23T10:00:00Z", "2026-09-30T22:00", "2026-12-31T23:00"),
        ("Europe/Berlin", Period.WEEK, "2026-10-25T22:59:59Z", "2026-10-18T22:00", "2026-10-25T23:00"),
        # Toronto in 1919 leapt from 23:30 to 00:30, over midnight and not from it.
        ("America/Toronto", Period.DAY, "1919-03-31T12:00:00Z", "1919-03-31T04:30", "1919-04-01T04:00"),
    ],
)
def test_bounds_in_zones(zone: str, period: Period, at: str, start: str, end: str) -> None:
    found = [format_time(bound) for bound in bounds(period, parse_time(at), zone)]
    assert found == [f"{start}:00Z", f"{end}:00Z"]


@given(kinds, moments, zones)
def test_periods_cover_all_time_without_overlap(period: Period, at: int, zone: str) -> None:
    start, end = bounds(period, at, zone)
    assert start <= at < end
    assert bounds(period, start, zone) == (start, end)
    assert bounds(period, end - 1, zone) == (start, end)
    assert bounds(period, end, zone)[0] == end
    assert bounds(period, start - 1, zone)[1] == start


@given(moments, zones)
def test_longer_periods_are_made_of_whole_days(at: int, zone: str) -> None:
    for period in Period:
        for bound in bounds(period, at, zone):
            assert bounds(Period.DAY, bound, zone)[0] == bound


@given(moments, zones)
def test_a_day_begins_when_the_wall_first_shows_its_date(at: int, zone: str) -> None:
    start, _ = bounds(Period.DAY, at, zone)
    clock = ZoneInfo(zone)  # the machine's own rules may be other ones: only their arithmetic is asked

    def shown(moment_s: int) -> datetime:
        return datetime.fromtimestamp(moment_s, UTC).astimezone(clock)

    before, after = shown(start // NS - 1), shown(start // NS)
    assert before.date() < after.date()
    # Where the wall shows no whole hour, clocks were turned at that very moment.
    turned = after.utcoffset() != before.utcoffset()
    assert turned or (after.hour, after.minute, after.second) == (0, 0, 0)


@pytest.mark.parametrize("zone", AWKWARD)
def test_days_of_a_lifetime_abut_and_are_days(zone: str) -> None:
    at, last = parse_time("1991-12-15T12:00:00Z"), parse_time("2013-01-15T12:00:00Z")
    starts = []
    while at < last:
        start, at = bounds(Period.DAY, at, zone)
        starts.append(start)
    lengths = {(b - a) // (60 * NS) for a, b in pairwise(starts)}
    assert lengths <= {24 * 60 + turned for turned in (-120, -60, -30, -20, 0, 20, 30, 60, 120)}
    assert len(set(starts)) == len(starts)


@given(kinds, zones, st.lists(moments, min_size=1, max_size=30), st.integers(0, 2**32))
def test_remembered_periods_are_the_computed_ones(
    period: Period, zone: str, at: list[int], seed: int
) -> None:
    calendar = Calendar(period, zone)
    near = [moment + delta for moment in at for delta in (0, 3_600 * NS, 86_400 * NS, -60 * NS)]
    edges = [edge + step for moment in at for edge in bounds(period, moment, zone) for step in (-1, 0)]
    asked = 2 * (near + edges)
    random.Random(seed).shuffle(asked)
    assert [calendar.start(moment) for moment in asked] == [bounds(period, m, zone)[0] for m in asked]


def test_each_budget_is_matched_by_its_own_calendar() -> None:
    at = parse_time("2026-11-30T23:30:00Z")
    budgets = [
        Budget(id=zone, name=zone, tenant="t", scope={}, period=Period.MONTH, time_zone=zone)
        for zone in ("UTC", "Europe/Berlin", "America/Santiago")
    ]
    matcher = BudgetMatcher(budgets)
    starts = [format_time(matcher.period_start(budget, at)) for budget in budgets]
    assert starts == ["2026-11-01T00:00:00Z", "2026-11-30T23:00:00Z", "2026-11-01T03:00:00Z"]


def test_what_is_remembered_stays_bounded() -> None:
    calendar = Calendar(Period.DAY, "Asia/Kathmandu")
    first = datetime(1970, 1, 1, tzinfo=UTC)
    for day in range(10_050):
        at = int((first + timedelta(days=day)).timestamp()) * NS
        assert calendar.start(at) == bounds(Period.DAY, at, "Asia/Kathmandu")[0]
    assert len(calendar._starts) <= 10_000


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Europe/Berln", "Europe/Berlin"),
        ("", "such as Europe/Berlin"),
        ("../../etc/passwd", "such as Europe/Berlin"),
        ("Europe", "Europe/|such as"),
    ],
)
def test_unknown_zones_are_named(name: str, hint: str) -> None:
    with pytest.raises(UnknownZone, match=hint):
        bounds(Period.DAY, 0, name)
