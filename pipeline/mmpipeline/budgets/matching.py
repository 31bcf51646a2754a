"""Which budgets a call counts against: every budget whose scope it fits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from mmpipeline.budgets.model import Budget
from mmpipeline.budgets.periods import Calendar, Period


class CallScope(NamedTuple):
    """What of a call budgets look at; "" is unallocated."""

    tenant: str
    team: str
    application: str
    user: str
    request_model: str
    response_model: str
    virtual_key_id: str


class BudgetMatcher:
    """Answers from a cache: a node makes few distinct kinds of calls and many of each."""

    def __init__(self, budgets: Sequence[Budget]) -> None:
        self.budgets = {budget.id: budget for budget in budgets}
        self._all = tuple(budgets)
        self._matching: dict[CallScope, tuple[Budget, ...]] = {}
        self._calendars: dict[tuple[Period, str], Calendar] = {}

    def matching(self, scope: CallScope) -> tuple[Budget, ...]:
        """The budgets that a call of this scope counts against."""
        found = self._matching.get(scope)
        if found is None:
            if len(self._matching) > 100_000:  # users come from outside: never let them fill the memory
                self._matching.clear()
            found = self._matching[scope] = tuple(b for b in self._all if fits(b, scope))
        return found

    def period_start(self, budget: Budget, at_unix_ns: int) -> int:
        """Start of the budget's period around a moment."""
        key = (budget.period, budget.time_zone)
        calendar = self._calendars.get(key)
        if calendar is None:
            calendar = self._calendars[key] = Calendar(*key)
        return calendar.start(at_unix_ns)


def fits(budget: Budget, scope: CallScope) -> bool:
    """Whether a call of this scope counts against `budget`: all that the budget names must be its own.

    A model is meant by the name in the request or the name in the response: people write `gpt-4o`, the
    provider answers `gpt-4o-2024-08-06`.
    """
    if budget.tenant != scope.tenant:
        return False
    for key, name in budget.scope.items():
        match key:
            case "team":
                same = scope.team == name
            case "application":
                same = scope.application == name
            case "user":
                same = scope.user == name
            case "model":
                same = name in (scope.request_model, scope.response_model)
            case _:
                same = scope.virtual_key_id == name
        if not same:
            return False
    return True
