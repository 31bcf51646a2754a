"""Spend over time as a chart and as the table under it: the same numbers, made once.

A chart shows at most seven groups and gathers the rest, because an eighth colour tells nobody anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from mmpipeline.dashboard.figures import money, money_column
from mmpipeline.dashboard.view import View
from mmpipeline.store.warehouse.shapes import CostRow, Dimension

MOST_GROUPS: Final = 7
OTHERS: Final = "all others"

# Colours: 1 to 8 are for named groups.
_UNNAMED: Final = 9
_OTHERS: Final = 10

_NS: Final = 1_000_000_000
_HOURLY_DAYS: Final = 2
_MONTHLY_DAYS: Final = 190


@dataclass(frozen=True, slots=True)
class Line:
    """One group over time: nano-dollars by point. `colour` is a number of the style sheet's palette.

    Where no call of the group has a price, what it cost is unknown and not zero: `priced` is False.
    """

    name: str
    amounts: tuple[int, ...]
    colour: int
    priced: bool

    @property
    def total(self) -> int:
        return sum(self.amounts)


@dataclass(frozen=True, slots=True)
class Series:
    """Spend of several groups over the points of a span, the largest group first."""

    grain: Dimension
    points: tuple[str, ...]
    labels: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def empty(self) -> bool:
        return not any(line.total for line in self.lines)

    def chart(self) -> dict[str, Any]:
        """What charts.js draws: amounts to place things by, and their text as it is to be read."""
        return {
            "labels": self.labels,
            "lines": [
                {
                    "name": line.name,
                    "colour": line.colour,
                    "values": [amount / _NS for amount in line.amounts],
                    "texts": [money(amount) for amount in line.amounts],
                }
                for line in self.lines
            ],
            "totals": [money(sum(column)) for column in self._columns()],
        }

    def legend(self) -> list[tuple[Line, str]]:
        """Each line with its sum."""
        return [(line, money(line.total if line.priced else None)) for line in self.lines]

    def table(self) -> list[tuple[str, list[str], str]]:
        """Rows of (label, cell by line, total) with the latest point first; all cells line up."""
        columns = self._columns()
        known = [line.priced for line in self.lines]
        flat = money_column(
            amount
            for column in columns
            for amount in (*(a if k else None for a, k in zip(column, known, strict=True)), sum(column))
        )
        width = len(self.lines) + 1
        rows = [
            (label, flat[at * width : (at + 1) * width - 1], flat[(at + 1) * width - 1])
            for at, label in enumerate(self.labels)
        ]
        return rows[::-1]

    def _columns(self) -> list[tuple[int, ...]]:
        return list(zip(*(line.amounts for line in self.lines), strict=True))


def grain_of(view: View) -> Dimension:
    """Hours for a day or two, days for months, months for years."""
    if view.days <= _HOURLY_DAYS:
        return "hour"
    return "day" if view.days <= _MONTHLY_DAYS else "month"


def over_time(rows: list[CostRow], view: View, unnamed: str) -> Series:
    """The series of rows that are grouped by (grain_of(view), group); `unnamed` names the group ""."""
    grain = grain_of(view)
    points = _points(view, grain)
    place = {point: at for at, point in enumerate(points)}
    totals: dict[str, int] = {}
    priced = {row.group[1] for row in rows if row.cost_nano_usd is not None}
    for row in rows:
        totals[row.group[1]] = totals.get(row.group[1], 0) + row.priced_nano_usd
    ranked = sorted(totals, key=lambda name: (-totals[name], name))
    shown = ranked if len(ranked) <= MOST_GROUPS + 1 else ranked[:MOST_GROUPS]
    amounts = {name: [0] * len(points) for name in shown}
    others = [0] * len(points)
    for row in rows:
        at = place.get(row.group[0])
        if at is not None:
            amounts.get(row.group[1], others)[at] += row.priced_nano_usd
    # What belongs to nobody in particular is grey, so that the named groups have the colours.
    colours = iter(range(1, MOST_GROUPS + 2))
    lines = [
        Line(name or unnamed, tuple(amounts[name]), next(colours) if name else _UNNAMED, name in priced)
        for name in shown
    ]
    if len(ranked) > len(shown):
        known = not priced.isdisjoint(ranked[len(shown) :])
        lines.append(Line(f"{OTHERS} ({len(ranked) - len(shown)})", tuple(others), _OTHERS, known))
    return Series(grain, points, tuple(_label(point, grain) for point in points), tuple(lines))


def _points(view: View, grain: Dimension) -> tuple[str, ...]:
    """Every point of the span, so that a day without calls shows as one and is not left out."""
    at = datetime.fromtimestamp(view.span.from_unix_ns // _NS, UTC)
    end = datetime.fromtimestamp(view.span.to_unix_ns // _NS, UTC)
    points = []
    while at < end:
        match grain:
            case "hour":
                points.append(at.strftime("%Y-%m-%dT%H:00:00Z"))
                at += timedelta(hours=1)
            case "day":
                points.append(at.strftime("%Y-%m-%d"))
                at += timedelta(days=1)
            case _:
                points.append(at.strftime("%Y-%m"))
                at = (at.replace(day=1) + timedelta(days=32)).replace(day=1)
    return tuple(points)


def _label(point: str, grain: Dimension) -> str:
    match grain:
        case "hour":
            return datetime.strptime(point, "%Y-%m-%dT%H:%M:%SZ").strftime("%-d %b %H:00")
        case "day":
            return datetime.strptime(point, "%Y-%m-%d").strftime("%-d %b")
        case _:
            return datetime.strptime(point, "%Y-%m").strftime("%b %Y")
