"""Sets and shows budgets, and records the thresholds they cross.

Counters are kept by ingest, in the transaction that writes the ledger. A budget that is created or
changed in the middle of a period starts from what the ledger already holds for its scope, and thresholds
that this spend has reached are crossed at once.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence

from mmpipeline.budgets.model import (
    DEFAULT_THRESHOLDS,
    SCOPE_KEYS,
    Action,
    Budget,
    BudgetStatus,
    Crossing,
    Threshold,
)
from mmpipeline.budgets.periods import Period, bounds
from mmpipeline.store.control import budgets as rows
from mmpipeline.store.control.store import ControlStore
from mmproto.callform import format_time
from mmproto.rating import usd

_log = logging.getLogger(__name__)

DEFAULT_TENANT = "default"

# 64 bits of nano-dollars hold nine billion dollars; a limit stays well below, so that sums never overflow.
MAX_LIMIT_NANO_USD = 10**18
# Texts of calls are cut at this length, so that a longer one would never match.
MAX_SCOPE_TEXT = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class BudgetError(ValueError):
    """A budget cannot be set so; str() says what is wrong and what is expected."""


class UnknownBudget(BudgetError):
    """There is no budget of that name."""


class BudgetService:
    """Budgets of one control store. `clock` gives now in unix nanoseconds."""

    def __init__(self, store: ControlStore, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock

    def list(self, tenant: str | None = None, at_unix_ns: int | None = None) -> list[BudgetStatus]:
        """Every budget with its spend in the period around `at_unix_ns` (default now)."""
        chosen = [b for b in rows.budgets(self._store) if tenant is None or b.tenant == tenant]
        return rows.statuses(self._store, chosen, self._clock() if at_unix_ns is None else at_unix_ns)

    def get(self, name: str, tenant: str = DEFAULT_TENANT) -> BudgetStatus:
        """One budget by name. Raises UnknownBudget."""
        return rows.statuses(self._store, [self._find(name, tenant)], self._clock())[0]

    def set(
        self,
        name: str,
        *,
        limit_nano_usd: int,
        period: Period = Period.MONTH,
        tenant: str = DEFAULT_TENANT,
        scope: Mapping[str, str] | None = None,
        thresholds: Sequence[Threshold] = DEFAULT_THRESHOLDS,
    ) -> BudgetStatus:
        """Create the budget `name` of a tenant, or change it. Raises BudgetError."""
        scope = dict(scope or {})
        _validate(name, tenant, limit_nano_usd, scope, thresholds)
        with self._store.write() as connection:
            # Looked up inside the transaction: nobody else can create or remove the budget meanwhile.
            before = next(
                (b for b in rows.budgets(self._store) if (b.tenant, b.name) == (tenant, name)), None
            )
            now = self._clock()
            budget = Budget(
                id=before.id if before else str(uuid.uuid4()),
                name=name,
                tenant=tenant,
                scope=scope,
                period=period,
                limit_nano_usd=limit_nano_usd,
                thresholds=tuple(sorted(thresholds, key=lambda t: (t.percent, t.action))),
                created_at_unix_ns=before.created_at_unix_ns if before else now,
            )
            rows.put(connection, budget)
            if before is None or (before.scope, before.period) != (budget.scope, budget.period):
                rows.recount(connection, budget)
            start = bounds(period, now)[0]
            rows.withdraw_crossings(connection, budget, start)
            record_crossings(connection, [(budget, start)], now)
        return rows.statuses(self._store, [budget], now)[0]

    def delete(self, name: str, tenant: str = DEFAULT_TENANT) -> None:
        """Remove a budget. Raises UnknownBudget."""
        budget = self._find(name, tenant)
        with self._store.write() as connection:
            rows.delete(connection, budget.id)

    def alerts(self, limit: int = 50) -> Sequence[rows.AlertRow]:
        """The newest alerts first."""
        return rows.alerts(self._store, limit)

    def _find(self, name: str, tenant: str) -> Budget:
        of_tenant = [b for b in rows.budgets(self._store) if b.tenant == tenant]
        budget = next((b for b in of_tenant if b.name == name), None)
        if budget is None:
            names = ", ".join(b.name for b in of_tenant) or "none"
            raise UnknownBudget(f"there is no budget '{name}' of tenant '{tenant}'; there are: {names}")
        return budget


def record_crossings(
    connection: sqlite3.Connection, touched: Iterable[tuple[Budget, int]], now_unix_ns: int
) -> None:
    """Record the thresholds that the spend of (budget, period start) has reached, each once a period."""
    for budget, period_start in touched:
        spent = rows.spent(connection, budget.id, period_start)
        for threshold in budget.thresholds:
            if spent * 100 < budget.limit_nano_usd * threshold.percent:
                continue
            crossing = Crossing(threshold.percent, threshold.action, spent, now_unix_ns)
            if rows.cross(connection, budget.id, period_start, crossing):
                _announce(connection, budget, period_start, crossing)


def _announce(connection: sqlite3.Connection, budget: Budget, period_start: int, crossing: Crossing) -> None:
    day = format_time(period_start)[:10]
    consequence = ""
    if crossing.action is Action.BLOCK:
        end = format_time(bounds(budget.period, period_start)[1])
        consequence = f"; calls in its scope are refused until {end}"
    summary = (
        f"budget {budget.name} reached {crossing.percent} % in the {budget.period.value} from {day}: "
        f"{usd(crossing.spent_nano_usd)} of {usd(budget.limit_nano_usd)} USD{consequence}"
    )
    rows.alert(
        connection,
        rows.AlertRow(
            dedup_key=f"budget/{budget.id}/{period_start}/{crossing.percent}/{budget.limit_nano_usd}",
            kind="budget_threshold",
            tenant=budget.tenant,
            summary=summary,
            at_unix_ns=crossing.at_unix_ns,
        ),
    )
    _log.warning("%s", summary)


def _validate(
    name: str,
    tenant: str,
    limit_nano_usd: int,
    scope: Mapping[str, str],
    thresholds: Sequence[Threshold],
) -> None:
    if not _NAME.fullmatch(name):
        raise BudgetError(f"'{name}' is no budget name: letters, digits, '.', '_' and '-' are expected")
    if not tenant:
        raise BudgetError("a budget belongs to a tenant")
    if not 0 <= limit_nano_usd <= MAX_LIMIT_NANO_USD:
        raise BudgetError(f"the amount must be between 0 and {usd(MAX_LIMIT_NANO_USD)} USD")
    for key in scope:
        if key not in SCOPE_KEYS:
            raise BudgetError(f"unknown scope '{key}'; known are {', '.join(SCOPE_KEYS)}")
    for key, value in scope.items():
        if len(value) > MAX_SCOPE_TEXT:
            raise BudgetError(f"the {key} of a scope has at most {MAX_SCOPE_TEXT} characters, as calls have")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise BudgetError(f"the {key} of a scope is not valid Unicode text")
    percents = [threshold.percent for threshold in thresholds]
    if any(not 1 <= percent <= 1000 for percent in percents):
        raise BudgetError("thresholds are whole percents from 1 to 1000")
    if len(set(percents)) != len(percents):
        raise BudgetError("each threshold percent can be given once")
