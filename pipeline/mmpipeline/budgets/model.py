"""What a budget is: a scope, a period, amounts over time, and what happens at each share of them.

Money is integer nano-dollars. Percentages are whole percents of the limit. A budget without a scope
beyond its tenant covers the whole tenant.

An amount holds from a moment on until the next one does. A period is judged by the amount that is in force:
now, where the period runs, and at its last moment where it is over. Before its first amount a budget counts
and limits nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mmpipeline.budgets.periods import DEFAULT_TIME_ZONE, Period, bounds

# What a budget can be narrowed to, each by exact name; "" means calls that no rule allocated.
SCOPE_KEYS = ("team", "application", "user", "model", "key")


class Action(StrEnum):
    """What happens when spend reaches a threshold."""

    ALERT = "alert"
    BLOCK = "block"


@dataclass(frozen=True, slots=True)
class Threshold:
    """`percent` of the limit and what happens once it is reached."""

    percent: int
    action: Action


DEFAULT_THRESHOLDS = (
    Threshold(50, Action.ALERT),
    Threshold(80, Action.ALERT),
    Threshold(100, Action.ALERT),
)


@dataclass(frozen=True, slots=True)
class Amount:
    """What a budget is worth in each period, from a moment on."""

    from_unix_ns: int
    limit_nano_usd: int


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget as it was set. `name` is unique within its tenant; `scope` maps SCOPE_KEYS to names.

    `amounts` are in the order of their moments. `time_zone` is an IANA name: where the period's days begin.
    """

    id: str
    name: str
    tenant: str
    scope: Mapping[str, str]
    period: Period
    amounts: tuple[Amount, ...] = ()
    time_zone: str = DEFAULT_TIME_ZONE
    thresholds: tuple[Threshold, ...] = DEFAULT_THRESHOLDS
    created_at_unix_ns: int = 0

    @property
    def block_at_percent(self) -> int | None:
        """The lowest share at which calls are refused; None where the budget only alerts."""
        return min((t.percent for t in self.thresholds if t.action is Action.BLOCK), default=None)

    def bounds(self, at_unix_ns: int) -> tuple[int, int]:
        """Start and end of the budget's period around a moment."""
        return bounds(self.period, at_unix_ns, self.time_zone)

    def amount_at(self, at_unix_ns: int) -> Amount | None:
        """The amount in force at a moment; None before the first one."""
        return next((a for a in reversed(self.amounts) if a.from_unix_ns <= at_unix_ns), None)

    def limit_in(self, period: tuple[int, int], now_unix_ns: int) -> int | None:
        """The limit by which a period (start, end) is judged now; None where none is in force."""
        start, end = period
        amount = self.amount_at(min(max(now_unix_ns, start), end - 1))
        return None if amount is None else amount.limit_nano_usd


def reached(limit_nano_usd: int | None, spent_nano_usd: int, percent: int) -> bool:
    """Whether a spend is at `percent` of a limit or beyond. A limit of 0 is reached from the start."""
    return limit_nano_usd is not None and spent_nano_usd * 100 >= limit_nano_usd * percent


@dataclass(frozen=True, slots=True)
class Crossing:
    """A threshold that is reached in a period: with what spend, and when that was first seen."""

    percent: int
    action: Action
    spent_nano_usd: int
    at_unix_ns: int


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A budget with what was spent of it in one period, judged at `at_unix_ns`.

    `limit_nano_usd` is the amount in force, None before the first one. `unpriced_calls` counts calls in
    scope whose price is not known: the spend is at least `spent_nano_usd`, and more by what those cost.
    """

    budget: Budget
    at_unix_ns: int
    period_start_unix_ns: int
    resets_at_unix_ns: int
    limit_nano_usd: int | None
    spent_nano_usd: int
    calls: int
    unpriced_calls: int
    crossings: tuple[Crossing, ...] = field(default=())

    @property
    def percent(self) -> float | None:
        """Share of the limit that is spent, in percent; None without a limit, 100 of a limit of 0."""
        if self.limit_nano_usd is None:
            return None
        return 100.0 if self.limit_nano_usd == 0 else self.spent_nano_usd * 100 / self.limit_nano_usd

    @property
    def blocked(self) -> bool:
        """Whether calls in scope are refused until `resets_at_unix_ns`."""
        at = self.budget.block_at_percent
        return at is not None and reached(self.limit_nano_usd, self.spent_nano_usd, at)

    @property
    def changes_at_unix_ns(self) -> int:
        """When this is no longer so, whatever is spent: the period ends, or another amount holds."""
        following = self.next_amount
        return min(self.resets_at_unix_ns, following.from_unix_ns if following else self.resets_at_unix_ns)

    @property
    def next_amount(self) -> Amount | None:
        """The amount that follows the one in force."""
        return next((a for a in self.budget.amounts if a.from_unix_ns > self.at_unix_ns), None)
