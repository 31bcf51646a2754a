"""Budgets, their spend by period, the thresholds they crossed, and alerts.

Functions take the connection of a running `ControlStore.write()`; those that only read take the store.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mmpipeline.budgets.model import Action, Budget, BudgetStatus, Crossing, Threshold
from mmpipeline.budgets.periods import Period, bounds
from mmpipeline.store.control.store import ControlStore

_COLUMNS = "id, tenant, name, scope, period, limit_nano_usd, thresholds, created_at_unix_ns"

# A budget's scope key and the ledger columns it is held against.
_SCOPE_COLUMNS = {
    "team": ("team",),
    "application": ("application",),
    "user": ("user",),
    "model": ("request_model", "response_model"),
    "key": ("virtual_key_id",),
}


@dataclass(frozen=True, slots=True)
class SpendDelta:
    """What one transaction adds to a budget in one period."""

    budget_id: str
    period_start_unix_ns: int
    nano_usd: int
    calls: int
    unpriced_calls: int


@dataclass(frozen=True, slots=True)
class AlertRow:
    """Something a person should know; `dedup_key` says once."""

    dedup_key: str
    kind: str
    tenant: str
    summary: str
    at_unix_ns: int


def budgets(store: ControlStore) -> list[Budget]:
    """All budgets by tenant and name."""
    rows = store.read(f"SELECT {_COLUMNS} FROM budgets ORDER BY tenant, name")  # noqa: S608
    return [_budget(row) for row in rows]


def put(connection: sqlite3.Connection, budget: Budget) -> None:
    """Write a budget; one of the same id is replaced and keeps its spend and crossings."""
    connection.execute(
        f"INSERT INTO budgets ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "  # noqa: S608
        "ON CONFLICT (id) DO UPDATE SET scope = excluded.scope, period = excluded.period, "
        "limit_nano_usd = excluded.limit_nano_usd, thresholds = excluded.thresholds",
        (
            budget.id,
            budget.tenant,
            budget.name,
            json.dumps(dict(budget.scope), sort_keys=True),
            budget.period.value,
            budget.limit_nano_usd,
            json.dumps([{"percent": t.percent, "action": t.action.value} for t in budget.thresholds]),
            budget.created_at_unix_ns,
        ),
    )
    _changed(connection)


def delete(connection: sqlite3.Connection, budget_id: str) -> None:
    """Remove a budget with its spend and crossings; the ledger keeps what was charged."""
    connection.execute("DELETE FROM budgets WHERE id = ?", (budget_id,))
    _changed(connection)


def version(connection: sqlite3.Connection) -> int:
    """A number that grows whenever a budget is set or removed, by this process or another."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'budgets_version'").fetchone()
    return 0 if row is None else int(row[0])


def _changed(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO meta VALUES ('budgets_version', ?)", (str(version(connection) + 1),)
    )


def recount(connection: sqlite3.Connection, budget: Budget) -> None:
    """Set a budget's spend in every period from the ledger: after its scope or period changed."""
    connection.execute("DELETE FROM budget_spend WHERE budget_id = ?", (budget.id,))
    where, parameters = "tenant = ?", [budget.tenant]
    for key, name in budget.scope.items():
        columns = _SCOPE_COLUMNS[key]
        where += " AND (" + " OR ".join(f"{column} = ?" for column in columns) + ")"
        parameters += [name] * len(columns)
    days = connection.execute(
        "SELECT started_at_unix_ns / 86400000000000 AS day, "  # noqa: S608
        "coalesce(sum(cost_nano_usd * sign), 0), sum(sign), "
        "coalesce(sum(sign) FILTER (WHERE cost_nano_usd IS NULL), 0) "
        f"FROM ledger WHERE {where} GROUP BY day",
        parameters,
    ).fetchall()
    deltas = [
        SpendDelta(budget.id, bounds(budget.period, day * 86_400_000_000_000)[0], spent, calls, unpriced)
        for day, spent, calls, unpriced in days
    ]
    add_spend(connection, deltas)


def add_spend(connection: sqlite3.Connection, deltas: Iterable[SpendDelta]) -> None:
    """Add to the spend of budgets."""
    connection.executemany(
        "INSERT INTO budget_spend VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
        "spent_nano_usd = spent_nano_usd + excluded.spent_nano_usd, calls = calls + excluded.calls, "
        "unpriced_calls = unpriced_calls + excluded.unpriced_calls",
        [(d.budget_id, d.period_start_unix_ns, d.nano_usd, d.calls, d.unpriced_calls) for d in deltas],
    )


def spent(connection: sqlite3.Connection, budget_id: str, period_start_unix_ns: int) -> int:
    """Nano-dollars of a budget in a period, as this transaction sees it."""
    row = connection.execute(
        "SELECT spent_nano_usd FROM budget_spend WHERE budget_id = ? AND period_start_unix_ns = ?",
        (budget_id, period_start_unix_ns),
    ).fetchone()
    return 0 if row is None else int(row[0])


def cross(
    connection: sqlite3.Connection, budget_id: str, period_start_unix_ns: int, crossing: Crossing
) -> bool:
    """Record that a threshold was reached; False where that is on record for the period already."""
    cursor = connection.execute(
        "INSERT OR IGNORE INTO budget_crossings VALUES (?, ?, ?, ?, ?, ?)",
        (
            budget_id,
            period_start_unix_ns,
            crossing.percent,
            crossing.action.value,
            crossing.spent_nano_usd,
            crossing.at_unix_ns,
        ),
    )
    return cursor.rowcount == 1


def withdraw_crossings(connection: sqlite3.Connection, budget: Budget, period_start_unix_ns: int) -> None:
    """Forget crossings that no longer hold, because the limit was raised or the threshold is gone."""
    holding = spent(connection, budget.id, period_start_unix_ns) * 100
    for percent, action in connection.execute(
        "SELECT percent, action FROM budget_crossings WHERE budget_id = ? AND period_start_unix_ns = ?",
        (budget.id, period_start_unix_ns),
    ).fetchall():
        kept = Threshold(percent, Action(action)) in budget.thresholds
        if not kept or holding < budget.limit_nano_usd * percent:
            connection.execute(
                "DELETE FROM budget_crossings "
                "WHERE budget_id = ? AND period_start_unix_ns = ? AND percent = ?",
                (budget.id, period_start_unix_ns, percent),
            )


def alert(connection: sqlite3.Connection, row: AlertRow) -> None:
    """Record an alert; one with the same key is left as it is."""
    connection.execute(
        "INSERT OR IGNORE INTO alerts (dedup_key, kind, tenant, summary, at_unix_ns) VALUES (?, ?, ?, ?, ?)",
        (row.dedup_key, row.kind, row.tenant, row.summary, row.at_unix_ns),
    )


def alerts(store: ControlStore, limit: int) -> list[AlertRow]:
    """The newest alerts first."""
    rows = store.read(
        "SELECT dedup_key, kind, tenant, summary, at_unix_ns FROM alerts ORDER BY seq DESC LIMIT ?", (limit,)
    )
    return [AlertRow(*row) for row in rows]


def statuses(store: ControlStore, chosen: Sequence[Budget], at_unix_ns: int) -> list[BudgetStatus]:
    """What was spent of each budget in its period around `at_unix_ns`."""
    found = []
    for budget in chosen:
        start, end = bounds(budget.period, at_unix_ns)
        key = (budget.id, start)
        row = store.read(
            "SELECT spent_nano_usd, calls, unpriced_calls FROM budget_spend "
            "WHERE budget_id = ? AND period_start_unix_ns = ?",
            key,
        )
        spent_nano_usd, calls, unpriced = row[0] if row else (0, 0, 0)
        crossings = store.read(
            "SELECT percent, action, spent_nano_usd, at_unix_ns FROM budget_crossings "
            "WHERE budget_id = ? AND period_start_unix_ns = ? ORDER BY percent",
            key,
        )
        found.append(
            BudgetStatus(
                budget=budget,
                period_start_unix_ns=start,
                resets_at_unix_ns=end,
                spent_nano_usd=spent_nano_usd,
                calls=calls,
                unpriced_calls=unpriced,
                crossings=tuple(Crossing(p, Action(a), s, at) for p, a, s, at in crossings),
            )
        )
    return found


def _budget(row: tuple[Any, ...]) -> Budget:
    identity, tenant, name, scope, period, limit, thresholds, created = row
    return Budget(
        id=identity,
        name=name,
        tenant=tenant,
        scope=json.loads(scope),
        period=Period(period),
        limit_nano_usd=limit,
        thresholds=tuple(Threshold(t["percent"], Action(t["action"])) for t in json.loads(thresholds)),
        created_at_unix_ns=created,
    )
