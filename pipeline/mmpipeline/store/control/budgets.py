"""Budgets, their spend by period, the thresholds they crossed, and alerts.

Functions take the connection of a running transaction and name the tenant, whatever the engine does of its
own. Whoever adds to the spend takes part in `counting` first, whoever changes a budget does so alone
(locks.py); `version` says whether what was read of the budgets earlier still holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import gcd
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Connection,
    Row,
    Text,
    and_,
    cast,
    delete,
    func,
    or_,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from mmpipeline.budgets.model import Action, Amount, Budget, BudgetStatus, Crossing, Threshold
from mmpipeline.budgets.periods import Period, starts
from mmpipeline.store.control.charged import DAY_NS, SUMS, Sums, kept_from
from mmpipeline.store.control.locks import keeping
from mmpipeline.store.control.tables import (
    alerts,
    budget_amounts,
    budget_crossings,
    budget_spend,
    budgets,
    charges,
    meta,
)

# Budgets asked for by one statement: engines have a limit of parameters.
_AT_ONCE = 1_000

_VERSION = "budgets_version"

# A budget's scope key and the columns of the charges it is held against.
_SCOPE_COLUMNS = {
    "team": (charges.c.team,),
    "application": (charges.c.application,),
    "user": (charges.c.user,),
    "model": (charges.c.request_model, charges.c.response_model),
    "key": (charges.c.virtual_key_id,),
}


class SpendDelta(NamedTuple):
    """What one transaction adds to a budget in one period."""

    budget_id: str
    period_start_unix_ns: int
    nano_usd: int
    calls: int
    unpriced_calls: int


@dataclass(frozen=True, slots=True)
class AlertRow:
    """Something a person should know; `dedup_key` says once for a tenant."""

    dedup_key: str
    kind: str
    tenant: str
    summary: str
    at_unix_ns: int


def tenants(connection: Connection) -> list[str]:
    """Who has budgets: of all tenants that this role may see."""
    rows = connection.execute(select(budgets.c.tenant_id).distinct().order_by(budgets.c.tenant_id))
    return list(rows.scalars())


def all_of(connection: Connection, tenant: str) -> list[Budget]:
    """All budgets of a tenant by name."""
    amounts: dict[str, list[Amount]] = {}
    for budget_id, from_unix_ns, limit in connection.execute(
        select(budget_amounts.c.budget_id, budget_amounts.c.from_unix_ns, budget_amounts.c.limit_nano_usd)
        .where(budget_amounts.c.tenant_id == tenant)
        .order_by(budget_amounts.c.budget_id, budget_amounts.c.from_unix_ns)
    ):
        amounts.setdefault(budget_id, []).append(Amount(from_unix_ns, limit))
    rows = connection.execute(
        select(budgets).where(budgets.c.tenant_id == tenant).order_by(budgets.c.name)
    ).all()
    return [_budget(row, amounts.get(row.id, ())) for row in rows]


def put(connection: Connection, budget: Budget) -> None:
    """Write a budget; one of the same id is replaced and keeps its spend and crossings."""
    row = {
        "scope": dict(sorted(budget.scope.items())),
        "period": budget.period.value,
        "time_zone": budget.time_zone,
        "thresholds": [{"percent": t.percent, "action": t.action.value} for t in budget.thresholds],
    }
    insert = _insert(connection, budgets).values(
        id=budget.id,
        tenant_id=budget.tenant,
        name=budget.name,
        created_at_unix_ns=budget.created_at_unix_ns,
        **row,
    )
    connection.execute(insert.on_conflict_do_update(index_elements=["id"], set_=row))
    connection.execute(
        delete(budget_amounts).where(
            budget_amounts.c.tenant_id == budget.tenant, budget_amounts.c.budget_id == budget.id
        )
    )
    if budget.amounts:
        connection.execute(
            budget_amounts.insert(),
            [
                {
                    "budget_id": budget.id,
                    "tenant_id": budget.tenant,
                    "from_unix_ns": amount.from_unix_ns,
                    "limit_nano_usd": amount.limit_nano_usd,
                }
                for amount in budget.amounts
            ],
        )


def remove(connection: Connection, tenant: str, budget_id: str) -> None:
    """Remove a budget with its spend and crossings; the ledger keeps what was charged."""
    connection.execute(delete(budgets).where(budgets.c.tenant_id == tenant, budgets.c.id == budget_id))


def changed(connection: Connection) -> None:
    """Say that budgets were set or removed: the last statement of whoever did, since others wait for it."""
    insert = _insert(connection, meta).values(key=_VERSION, value="1")
    following = cast(cast(meta.c.value, BigInteger) + 1, Text)
    connection.execute(insert.on_conflict_do_update(index_elements=["key"], set_={"value": following}))


def version(connection: Connection) -> int:
    """A number that grows whenever a budget of anybody is set or removed, by this process or another."""
    found = connection.execute(select(meta.c.value).where(meta.c.key == _VERSION)).scalar()
    return 0 if found is None else int(found)


def count(connection: Connection, budget: Budget, since_unix_ns: int) -> dict[int, Sums]:
    """What the charges say was spent of a budget, by start of the period, of calls from `since` on."""
    where = [charges.c.tenant_id == budget.tenant, charges.c.started_at_unix_ns >= since_unix_ns]
    if since_unix_ns:
        where.append(charges.c.day >= since_unix_ns // DAY_NS - 1)  # leaves partitions out
    for key, name in budget.scope.items():
        where.append(or_(*(column == name for column in _SCOPE_COLUMNS[key])))
    at = charges.c.started_at_unix_ns
    first, last = connection.execute(select(func.min(at), func.max(at)).where(*where)).one()
    if first is None:
        return {}
    # No engine knows these calendars. What it can do is group by spans of one length: the longest that
    # every period's start is a multiple of, so that no span lies in two periods.
    begins = starts(budget.period, first, last, budget.time_zone)
    span = gcd(*(begin - begins[0] for begin in begins)) or 2**62
    place = ((at - begins[0]) // span).label("place")
    found: dict[int, Sums] = {}
    current = 0
    rows = connection.execute(select(place, *SUMS).where(*where).group_by(place).order_by(place))
    for number, *sums in rows:
        moment = begins[0] + number * span
        while current + 1 < len(begins) and begins[current + 1] <= moment:
            current += 1
        found[begins[current]] = found.get(begins[current], Sums()).plus(Sums(*map(int, sums)))
    return found


def recount(connection: Connection, budget: Budget, now_unix_ns: int) -> None:
    """Set a budget's spend from the charges, in all periods whose calls are all kept.

    Of older periods the numbers stay; but the period that runs is always counted, by what is kept of it.
    Crossings in periods that are counted anew are gone: they are to be judged again.
    """
    keeping(connection)
    kept = kept_from(connection)
    running = budget.bounds(now_unix_ns)[0]
    for table in (budget_spend, budget_crossings):
        begin = table.c.period_start_unix_ns
        own = and_(table.c.tenant_id == budget.tenant, table.c.budget_id == budget.id)
        connection.execute(delete(table).where(own, or_(begin >= kept, begin == running)))
    counted = count(connection, budget, kept)
    add_spend(
        connection,
        budget.tenant,
        [
            SpendDelta(budget.id, start, *sums)
            for start, sums in counted.items()
            if start >= kept or start == running
        ],
    )


def add_spend(connection: Connection, tenant: str, deltas: Iterable[SpendDelta]) -> None:
    """Add to the spend of budgets: in one order for all, so that no two workers wait for each other."""
    rows = [
        {
            "budget_id": delta.budget_id,
            "tenant_id": tenant,
            "period_start_unix_ns": delta.period_start_unix_ns,
            "spent_nano_usd": delta.nano_usd,
            "calls": delta.calls,
            "unpriced_calls": delta.unpriced_calls,
        }
        for delta in sorted(deltas)
    ]
    if not rows:
        return
    insert = _insert(connection, budget_spend)
    added = {
        name: budget_spend.c[name] + insert.excluded[name]
        for name in ("spent_nano_usd", "calls", "unpriced_calls")
    }
    connection.execute(
        insert.on_conflict_do_update(index_elements=["budget_id", "period_start_unix_ns"], set_=added), rows
    )


def spends(
    connection: Connection, tenant: str, wanted: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], Sums]:
    """The spend by (budget id, period start), as this transaction sees it; nothing spent has no entry."""
    found: dict[tuple[str, int], Sums] = {}
    table = budget_spend.c
    for ids, begins in _chunks(wanted):
        for budget_id, start, *sums in connection.execute(
            select(
                table.budget_id,
                table.period_start_unix_ns,
                table.spent_nano_usd,
                table.calls,
                table.unpriced_calls,
            ).where(
                table.tenant_id == tenant, table.budget_id.in_(ids), table.period_start_unix_ns.in_(begins)
            )
        ):
            found[budget_id, start] = Sums(*sums)
    return found


def spend_of(connection: Connection, tenant: str, budget_id: str) -> dict[int, Sums]:
    """The spend of a budget in every period of which some is kept, by its start."""
    table = budget_spend.c
    found = connection.execute(
        select(table.period_start_unix_ns, table.spent_nano_usd, table.calls, table.unpriced_calls).where(
            table.tenant_id == tenant, table.budget_id == budget_id
        )
    )
    return {start: Sums(*sums) for start, *sums in found}


def crossings(
    connection: Connection, tenant: str, wanted: Iterable[tuple[str, int]]
) -> dict[tuple[str, int], list[Crossing]]:
    """The crossings on record by (budget id, period start), lowest first."""
    found: dict[tuple[str, int], list[Crossing]] = {}
    table = budget_crossings.c
    for ids, begins in _chunks(wanted):
        for budget_id, start, percent, action, spent, at in connection.execute(
            select(
                table.budget_id,
                table.period_start_unix_ns,
                table.percent,
                table.action,
                table.spent_nano_usd,
                table.at_unix_ns,
            )
            .where(
                table.tenant_id == tenant, table.budget_id.in_(ids), table.period_start_unix_ns.in_(begins)
            )
            .order_by(table.percent)
        ):
            found.setdefault((budget_id, start), []).append(Crossing(percent, Action(action), spent, at))
    return found


def cross(
    connection: Connection, tenant: str, budget_id: str, period_start_unix_ns: int, crossing: Crossing
) -> bool:
    """Record that a threshold is reached; False where that is on record for the period already."""
    insert = _insert(connection, budget_crossings).values(
        budget_id=budget_id,
        tenant_id=tenant,
        period_start_unix_ns=period_start_unix_ns,
        percent=crossing.percent,
        action=crossing.action.value,
        spent_nano_usd=crossing.spent_nano_usd,
        at_unix_ns=crossing.at_unix_ns,
    )
    return connection.execute(insert.on_conflict_do_nothing()).rowcount == 1


def withdraw(
    connection: Connection, tenant: str, budget_id: str, period_start_unix_ns: int, percent: int
) -> None:
    """Forget a crossing that no longer holds."""
    table = budget_crossings.c
    connection.execute(
        delete(budget_crossings).where(
            table.tenant_id == tenant,
            table.budget_id == budget_id,
            table.period_start_unix_ns == period_start_unix_ns,
            table.percent == percent,
        )
    )


def alert(connection: Connection, row: AlertRow) -> None:
    """Record an alert; one of the tenant with the same key is left as it is."""
    insert = _insert(connection, alerts).values(
        tenant_id=row.tenant,
        dedup_key=row.dedup_key,
        kind=row.kind,
        summary=row.summary,
        at_unix_ns=row.at_unix_ns,
    )
    connection.execute(insert.on_conflict_do_nothing(index_elements=["tenant_id", "dedup_key"]))


def newest_alerts(connection: Connection, tenant: str, limit: int) -> list[AlertRow]:
    """The newest alerts of a tenant first."""
    rows = connection.execute(
        select(alerts.c.dedup_key, alerts.c.kind, alerts.c.tenant_id, alerts.c.summary, alerts.c.at_unix_ns)
        .where(alerts.c.tenant_id == tenant)
        .order_by(alerts.c.seq.desc())
        .limit(limit)
    )
    return [AlertRow(*row) for row in rows]


def statuses(
    connection: Connection, tenant: str, chosen: Sequence[Budget], at_unix_ns: int
) -> list[BudgetStatus]:
    """What was spent of each budget of a tenant in its period around `at_unix_ns`."""
    periods = {budget.id: budget.bounds(at_unix_ns) for budget in chosen}
    keys = [(budget_id, start) for budget_id, (start, _) in periods.items()]
    spent, crossed = spends(connection, tenant, keys), crossings(connection, tenant, keys)
    found = []
    for budget in chosen:
        start, end = periods[budget.id]
        sums = spent.get((budget.id, start), Sums())
        found.append(
            BudgetStatus(
                budget=budget,
                at_unix_ns=at_unix_ns,
                period_start_unix_ns=start,
                resets_at_unix_ns=end,
                limit_nano_usd=budget.limit_in((start, end), at_unix_ns),
                spent_nano_usd=sums.nano_usd,
                calls=sums.calls,
                unpriced_calls=sums.unpriced_calls,
                crossings=tuple(crossed.get((budget.id, start), ())),
            )
        )
    return found


def _chunks(wanted: Iterable[tuple[str, int]]) -> Iterable[tuple[list[str], list[int]]]:
    keys = list(wanted)
    for first in range(0, len(keys), _AT_ONCE):
        chunk = keys[first : first + _AT_ONCE]
        yield sorted({budget_id for budget_id, _ in chunk}), sorted({start for _, start in chunk})


def _insert(connection: Connection, table: Any) -> Any:
    """An insert that may say what to do on conflict: both engines do, each by a class of its own."""
    return (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)


def _budget(row: Row[Any], amounts: Iterable[Amount]) -> Budget:
    thresholds: list[Mapping[str, Any]] = row.thresholds
    return Budget(
        id=row.id,
        name=row.name,
        tenant=row.tenant_id,
        scope=row.scope,
        period=Period(row.period),
        amounts=tuple(amounts),
        time_zone=row.time_zone,
        thresholds=tuple(Threshold(t["percent"], Action(t["action"])) for t in thresholds),
        created_at_unix_ns=row.created_at_unix_ns,
    )
