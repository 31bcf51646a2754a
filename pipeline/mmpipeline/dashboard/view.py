"""The state of a page, which is its URL: which span, and which calls.

Everything that a page shows follows from its URL and the warehouse, so a link shows somebody else the same
page, and back is back. A damaged URL shows the default for what is damaged, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlencode

from mmpipeline.store.warehouse.shapes import DAY_NS, HOUR_NS, Filters, Span

UNALLOCATED: Final = "(unallocated)"
FILTERS: Final = ("team", "application", "provider", "model")

RANGES: Final = {
    "today": "Today",
    "7d": "Last 7 days",
    "30d": "Last 30 days",
    "month": "This month",
    "last-month": "Last month",
    "custom": "Other days",
}
DEFAULT_RANGE: Final = "30d"

_NS: Final = 1_000_000_000
_LONGEST_DAYS: Final = 1100


@dataclass(frozen=True, slots=True)
class View:
    """What a page is about. `range` is one of RANGES; `span` follows from it and the clock."""

    tenant: str
    range: str
    span: Span
    filters: Filters
    warning: str = ""

    @property
    def previous(self) -> Span:
        """The span of the same length just before."""
        length = self.span.to_unix_ns - self.span.from_unix_ns
        start = max(self.span.from_unix_ns - length, 0)
        return Span(start, max(self.span.from_unix_ns, start + HOUR_NS))

    @property
    def days(self) -> int:
        """Length in days, rounded up."""
        return -(-(self.span.to_unix_ns - self.span.from_unix_ns) // DAY_NS)

    @property
    def from_day(self) -> str:
        return _date(self.span.from_unix_ns)

    @property
    def until_day(self) -> str:
        """The last day, included."""
        return _date(self.span.to_unix_ns - 1)

    def chosen(self) -> dict[str, str]:
        """The filters that are set, as they are shown."""
        return {name: value or UNALLOCATED for name, value in self.filters.chosen().items()}

    def without(self, name: str) -> View:
        """The same view with one filter less."""
        return replace(self, filters=replace(self.filters, **{name: None}))

    def unfiltered(self) -> View:
        """The same view without filters."""
        return replace(self, filters=Filters())

    def query(self) -> str:
        """The query string that makes this view again."""
        pairs = [] if self.tenant == "default" else [("tenant", self.tenant)]
        pairs.append(("range", self.range))
        if self.range == "custom":
            pairs += [("from", self.from_day), ("until", self.until_day)]
        return urlencode(pairs + list(self.chosen().items()))


def read(query: Mapping[str, str], now_ns: int) -> View:
    """The view that a query string asks for."""
    name = query.get("range") or DEFAULT_RANGE
    warning = ""
    if name not in RANGES:
        name, warning = DEFAULT_RANGE, "That range is not known; the last 30 days are shown."
    span = _span(name, now_ns)
    if name == "custom":
        chosen = _chosen_days(query.get("from", ""), query.get("until", ""))
        if chosen is None:
            name, warning = DEFAULT_RANGE, "Those days are not a range; the last 30 days are shown."
            span = _span(name, now_ns)
        else:
            span = chosen
    values = {key: query.get(key) or None for key in FILTERS}
    filters = Filters(**{k: "" if v == UNALLOCATED else v for k, v in values.items()})
    return View(query.get("tenant") or "default", name, span, filters, warning)


def _span(name: str, now_ns: int) -> Span:
    # To the end of today: nothing lies there yet, and whole days are answered by the shortest roll-ups.
    end = (now_ns // DAY_NS + 1) * DAY_NS
    today = now_ns // DAY_NS * DAY_NS
    first = int(_moment(now_ns).replace(day=1, hour=0, minute=0, second=0).timestamp()) * _NS
    match name:
        case "today":
            return Span(today, end)
        case "7d":
            return Span(today - 6 * DAY_NS, end)
        case "month":
            return Span(first, end)
        case "last-month":
            before = _moment(first - 1).replace(day=1, hour=0, minute=0, second=0)
            return Span(int(before.timestamp()) * _NS, first)
        case _:
            return Span(today - 29 * DAY_NS, end)


def _chosen_days(first: str, last: str) -> Span | None:
    try:
        start = datetime.strptime(first, "%Y-%m-%d").replace(tzinfo=UTC)
        end = datetime.strptime(last, "%Y-%m-%d").replace(tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        return None
    if (
        not timedelta(0) < end - start <= timedelta(days=_LONGEST_DAYS)
        or start.year < 1971
        or end.year > 2100
    ):
        return None
    return Span(int(start.timestamp()) * _NS, int(end.timestamp()) * _NS)


def _moment(unix_ns: int) -> datetime:
    return datetime.fromtimestamp(unix_ns // _NS, UTC)


def _date(unix_ns: int) -> str:
    return _moment(unix_ns).strftime("%Y-%m-%d")
