"""What a budget is: a scope, a period, an amount, and what happens at each share of it.

Money is integer nano-dollars. Percentages are whole percents of the limit. A budget without a scope
beyond its tenant covers the whole tenant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from mmpipeline.budgets.periods import Period

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
class Budget:
    """A budget as it was set. `name` is unique within its tenant; `scope` maps SCOPE_KEYS to names."""

    id: str
    name: str
    tenant: str
    scope: Mapping[str, str]
    period: Period
    limit_nano_usd: int
    thresholds: tuple[Threshold, ...] = DEFAULT_THRESHOLDS
    created_at_unix_ns: int = 0

    @property
    def block_at_percent(self) -> int | None:
        """The lowest share at which calls are refused; None where the budget only alerts."""
        return min((t.percent for t in self.thresholds if t.action is Action.BLOCK), default=None)


@dataclass(frozen=True, slots=True)
class Crossing:
    """A threshold that was reached: recorded once per period, when the spend first reached it."""

    percent: int
    action: Action
    spent_nano_usd: int
    at_unix_ns: int


@dataclass(frozen=True, slots=True)
class BudgetStatus:
    """A budget with what was spent of it in one period.

    `unpriced_calls` counts calls in scope whose price is not known: the spend is at least
    `spent_nano_usd`, and more by what those cost.
    """

    budget: Budget
    period_start_unix_ns: int
    resets_at_unix_ns: int
    spent_nano_usd: int
    calls: int
    unpriced_calls: int
    crossings: tuple[Crossing, ...] = field(default=())

    @property
    def percent(self) -> float:
        """Share of the limit that is spent, in percent; a limit of 0 is spent from the start."""
        limit = self.budget.limit_nano_usd
        return 100.0 if limit == 0 else self.spent_nano_usd * 100 / limit

    @property
    def blocked(self) -> bool:
        """Whether calls in scope are refused until `resets_at_unix_ns`."""
        at = self.budget.block_at_percent
        return at is not None and self.spent_nano_usd * 100 >= self.budget.limit_nano_usd * at
