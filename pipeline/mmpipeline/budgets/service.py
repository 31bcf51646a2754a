"""Sets and shows budgets, and records the thresholds they cross.

Counters are kept by ingest, in the transaction that writes the ledger. A budget that is created or whose
scope, period or time zone changes is counted anew from the charges, while nobody else charges calls of its
tenant (store/control/locks.py). Thresholds are judged by the amount in force: whatever changes the amount
or the spend records those that are reached now and withdraws those that are no longer.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from mmpipeline.budgets.model import (
    DEFAULT_THRESHOLDS,
    SCOPE_KEYS,
    Action,
    Amount,
    Budget,
    BudgetStatus,
    Crossing,
    Threshold,
    reached,
)
from mmpipeline.budgets.periods import DEFAULT_TIME_ZONE, Period, UnknownZone, check_zone, local_day
from mmpipeline.store.control import budgets as rows
from mmpipeline.store.control.database import Database, use_tenant
from mmpipeline.store.control.locks import counting, recounting
from mmproto.callform import format_time
from mmproto.rating import usd

_log = logging.getLogger(__name__)

DEFAULT_TENANT = "default"

# 64 bits of nano-dollars hold nine billion dollars; a limit stays well below, so that sums never overflow.
MAX_LIMIT_NANO_USD = 10**18
MAX_FROM_UNIX_NS = 7_258_118_400 * 10**9
# Texts of calls are cut at this length, so that a longer one would never match.
MAX_SCOPE_TEXT = 1024
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class BudgetError(ValueError):
    """A budget cannot be set so; str() says what is wrong and what is expected."""


class UnknownBudget(BudgetError):
    """There is no budget of that name."""


class BudgetService:
    """Budgets of one control store. `clock` gives now in unix nanoseconds."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def list(self, tenant: str | None = None, at_unix_ns: int | None = None) -> list[BudgetStatus]:
        """Every budget with its spend in the period around `at_unix_ns` (default now).

        Without a tenant those of all whose budgets the login role may see: on PostgreSQL a worker sees
        which tenants have some, and the API's role does not.
        """
        at = self._clock() if at_unix_ns is None else at_unix_ns
        found: list[BudgetStatus] = []
        with self._database.read(tenant) as connection:
            for name in [tenant] if tenant is not None else rows.tenants(connection):
                use_tenant(connection, name)
                found += rows.statuses(connection, name, rows.all_of(connection, name), at)
        return found

    def get(self, name: str, tenant: str = DEFAULT_TENANT) -> BudgetStatus:
        """One budget by name. Raises UnknownBudget."""
        with self._database.read(tenant) as connection:
            budget = _find(rows.all_of(connection, tenant), name, tenant)
            return rows.statuses(connection, tenant, [budget], self._clock())[0]

    def set(
        self,
        name: str,
        *,
        limit_nano_usd: int | None = None,
        from_unix_ns: int | None = None,
        period: Period = Period.MONTH,
        time_zone: str = DEFAULT_TIME_ZONE,
        tenant: str = DEFAULT_TENANT,
        scope: Mapping[str, str] | None = None,
        thresholds: Sequence[Threshold] = DEFAULT_THRESHOLDS,
    ) -> BudgetStatus:
        """Create the budget `name` of a tenant, or change it. Raises BudgetError.

        The amount holds from `from_unix_ns`: by default from now, and that of a new budget for the whole
        period that runs. Amounts before and after it stay; without an amount all stay as they are.
        """
        scope = dict(scope or {})
        _validate(name, tenant, scope, thresholds)
        _validate_amount(limit_nano_usd, from_unix_ns, time_zone)
        with self._database.write(tenant) as connection:
            recounting(connection, tenant)
            of_tenant = rows.all_of(connection, tenant)
            before = next((b for b in of_tenant if b.name == name), None)
            if before is None and limit_nano_usd is None:
                raise BudgetError(f"'{name}' is a new budget of tenant '{tenant}': it needs an amount")
            now = self._clock()
            budget = Budget(
                id=before.id if before else str(uuid.uuid4()),
                name=name,
                tenant=tenant,
                scope=scope,
                period=period,
                time_zone=time_zone,
                thresholds=tuple(sorted(thresholds, key=lambda t: (t.percent, t.action))),
                created_at_unix_ns=before.created_at_unix_ns if before else now,
            )
            start = budget.bounds(now)[0]
            amounts = before.amounts if before else ()
            if limit_nano_usd is not None:
                since = from_unix_ns if from_unix_ns is not None else now if before else start
                amounts = _with_amount(amounts, Amount(since, limit_nano_usd))
            budget = replace(budget, amounts=amounts)
            rows.put(connection, budget)
            if before is None or _coverage(before) != _coverage(budget):
                rows.recount(connection, budget, now)
            record_crossings(connection, tenant, [(budget, start)], now)
            status = rows.statuses(connection, tenant, [budget], now)[0]
            rows.changed(connection)
        return status

    def delete(self, name: str, tenant: str = DEFAULT_TENANT) -> None:
        """Remove a budget. Raises UnknownBudget."""
        with self._database.write(tenant) as connection:
            recounting(connection, tenant)
            budget = _find(rows.all_of(connection, tenant), name, tenant)
            rows.remove(connection, tenant, budget.id)
            rows.changed(connection)

    def judge(self, since_unix_ns: int) -> int:
        """Judge the budgets whose amount has changed since a moment because its day has come.

        What spend does to a budget is judged with the spend; an amount that was set for later needs
        somebody to look. Returns the moment up to which all were judged.
        """
        now = self._clock()
        due: list[str] = []
        with self._database.read() as connection:
            for tenant in rows.tenants(connection):
                use_tenant(connection, tenant)
                if any(_is_due(b, since_unix_ns, now) for b in rows.all_of(connection, tenant)):
                    due.append(tenant)
        for tenant in due:
            with self._database.write(tenant) as connection:
                counting(connection, tenant)
                # Asked again: it may have been changed since.
                current = [b for b in rows.all_of(connection, tenant) if _is_due(b, since_unix_ns, now)]
                record_crossings(connection, tenant, [(b, b.bounds(now)[0]) for b in current], now)
        return now

    def alerts(self, tenant: str = DEFAULT_TENANT, limit: int = 50) -> Sequence[rows.AlertRow]:
        """The newest alerts of a tenant first."""
        with self._database.read(tenant) as connection:
            return rows.newest_alerts(connection, tenant, limit)


def record_crossings(
    connection: Connection, tenant: str, touched: Iterable[tuple[Budget, int]], now_unix_ns: int
) -> None:
    """Judge the spend of (budget, period start) by the amounts in force.

    Thresholds that are reached and not on record are recorded and announced; those on record that are not
    reached, because the amount was raised or spend was taken back, are withdrawn.
    """
    judged = {(budget.id, start): budget for budget, start in touched}
    spent = rows.spends(connection, tenant, judged)
    recorded = rows.crossings(connection, tenant, judged)
    for (budget_id, start), budget in sorted(judged.items(), key=lambda item: item[0]):
        period = budget.bounds(start)
        limit = budget.limit_in(period, now_unix_ns)
        nano_usd = spent[budget_id, start].nano_usd if (budget_id, start) in spent else 0
        holding = {
            t.percent: Crossing(t.percent, t.action, nano_usd, now_unix_ns)
            for t in budget.thresholds
            if reached(limit, nano_usd, t.percent)
        }
        for crossing in recorded.get((budget_id, start), ()):
            held = holding.get(crossing.percent)
            if held is not None and held.action is crossing.action:
                del holding[crossing.percent]
            else:
                rows.withdraw(connection, tenant, budget_id, start, crossing.percent)
        for crossing in holding.values():
            if limit is not None and rows.cross(connection, tenant, budget_id, start, crossing):
                _announce(connection, budget, period, limit, crossing)


def _announce(
    connection: Connection, budget: Budget, period: tuple[int, int], limit: int, crossing: Crossing
) -> None:
    start, end = period
    day = local_day(start, budget.time_zone)
    consequence = ""
    if crossing.action is Action.BLOCK and crossing.at_unix_ns < end:
        consequence = f"; calls in its scope are refused until {format_time(end)}"
    summary = (
        f"budget {budget.name} of tenant {budget.tenant} reached {crossing.percent} % in the "
        f"{budget.period.value} from {day}: {usd(crossing.spent_nano_usd)} of {usd(limit)} USD{consequence}"
    )
    rows.alert(
        connection,
        rows.AlertRow(
            dedup_key=f"budget/{budget.id}/{start}/{crossing.percent}/{limit}",
            kind="budget_threshold",
            tenant=budget.tenant,
            summary=summary,
            at_unix_ns=crossing.at_unix_ns,
        ),
    )
    _log.warning("%s", summary)


def _find(of_tenant: Sequence[Budget], name: str, tenant: str) -> Budget:
    budget = next((b for b in of_tenant if b.name == name), None)
    if budget is None:
        names = ", ".join(b.name for b in of_tenant) or "none"
        raise UnknownBudget(f"there is no budget '{name}' of tenant '{tenant}'; there are: {names}")
    return budget


def _coverage(budget: Budget) -> tuple[object, ...]:
    """What decides which calls a budget counts, and in which period."""
    return budget.scope, budget.period, budget.time_zone


def _with_amount(amounts: tuple[Amount, ...], new: Amount) -> tuple[Amount, ...]:
    """Amounts with one more; one of the same moment is replaced, one that changes nothing is left out."""
    others = [amount for amount in amounts if amount.from_unix_ns != new.from_unix_ns]
    before = max((a for a in others if a.from_unix_ns < new.from_unix_ns), default=None, key=_moment)
    if before is not None and before.limit_nano_usd == new.limit_nano_usd:
        return tuple(others)
    return tuple(sorted([*others, new], key=_moment))


def _moment(amount: Amount) -> int:
    return amount.from_unix_ns


def _is_due(budget: Budget, since_unix_ns: int, now_unix_ns: int) -> bool:
    return any(since_unix_ns < amount.from_unix_ns <= now_unix_ns for amount in budget.amounts)


def _validate(name: str, tenant: str, scope: Mapping[str, str], thresholds: Sequence[Threshold]) -> None:
    if not _NAME.fullmatch(name):
        raise BudgetError(f"'{name}' is no budget name: letters, digits, '.', '_' and '-' are expected")
    if not tenant:
        raise BudgetError("a budget belongs to a tenant")
    for key in scope:
        if key not in SCOPE_KEYS:
            raise BudgetError(f"unknown scope '{key}'; known are {', '.join(SCOPE_KEYS)}")
    for key, value in scope.items():
        if len(value) > MAX_SCOPE_TEXT:
            raise BudgetError(f"the {key} of a scope has at most {MAX_SCOPE_TEXT} characters, as calls have")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise BudgetError(f"the {key} of a scope is not valid Unicode text")
        if "\0" in value:
            raise BudgetError(f"the {key} of a scope holds a NUL character")
    percents = [threshold.percent for threshold in thresholds]
    if any(not 1 <= percent <= 1000 for percent in percents):
        raise BudgetError("thresholds are whole percents from 1 to 1000")
    if len(set(percents)) != len(percents):
        raise BudgetError("each threshold percent can be given once")


def _validate_amount(limit_nano_usd: int | None, from_unix_ns: int | None, time_zone: str) -> None:
    if limit_nano_usd is not None and not 0 <= limit_nano_usd <= MAX_LIMIT_NANO_USD:
        raise BudgetError(f"the amount must be between 0 and {usd(MAX_LIMIT_NANO_USD)} USD")
    if from_unix_ns is not None and limit_nano_usd is None:
        raise BudgetError("a moment from which on needs the amount that holds from then")
    if from_unix_ns is not None and not 0 <= from_unix_ns <= MAX_FROM_UNIX_NS:
        raise BudgetError("an amount holds from a moment between 1970 and 2200")
    try:
        check_zone(time_zone)
    except UnknownZone as error:
        raise BudgetError(str(error)) from error
