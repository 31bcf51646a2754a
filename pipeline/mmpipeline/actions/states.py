"""The state of a tenant's budgets as one reading of the store sees it, and its message.

What a state says holds because of the order in which it is read. First the moment, by the store's own
clock, at which the reading began: whatever was committed before it is in the numbers. So of two states the
one with the later moment has all that the other has, whichever worker read them, and a router keeps the
later one. Then the positions, then the spends: every call below a position is in the spends.

A tenant without budgets has a tombstone, which carries its moment in a header: compaction forgets the
tenant, and until then it is in the order like any state. The heartbeat is a state of no tenant: it says
that whoever publishes is alive and has nothing older left to say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import Connection, text

from mmpipeline.budgets.model import BudgetStatus
from mmpipeline.store.control import budgets, positions
from mmpipeline.store.control.database import Database, use_tenant
from mmproto.kafka.topics import CALLS
from mmproto.v1.budget_pb2 import BudgetState, BudgetStates

#: The tenant of a heartbeat: no budget can belong to it.
NO_TENANT = ""

_NEVER = 1 << 63


@dataclass(frozen=True, slots=True)
class TenantState:
    """What holds of one tenant. `value` None: it has no budgets.

    `changes_at_unix_ns`: when it holds no more by itself, since a period ends or another amount begins.
    """

    tenant: str
    as_of_unix_ns: int
    value: bytes | None
    changes_at_unix_ns: int = _NEVER


class States:
    """Reads one control store. `clock` gives unix nanoseconds, and is asked where the store has none."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    def version(self) -> int:
        """Grows whenever a budget is set, changed or deleted, by whomever. Raises StoreBusy."""
        with self._database.read() as connection:
            return budgets.version(connection)

    def tenants(self) -> set[str]:
        """Who has budgets. Raises StoreBusy."""
        with self._database.read() as connection:
            return set(budgets.tenants(connection))

    def read(self, tenants: Iterable[str]) -> list[TenantState]:
        """The states of `tenants` and a heartbeat, all of one moment. Raises StoreBusy."""
        with self._database.read() as connection:
            as_of = self._now(connection)
            heartbeat = BudgetStates(
                tenant=NO_TENANT, as_of_unix_ns=as_of, positions=positions.all_of(connection, CALLS)
            )
            found = [self._read(connection, tenant, heartbeat) for tenant in tenants]
        return [*found, TenantState(NO_TENANT, as_of, heartbeat.SerializeToString())]

    def _read(self, connection: Connection, tenant: str, heartbeat: BudgetStates) -> TenantState:
        use_tenant(connection, tenant)
        as_of = heartbeat.as_of_unix_ns
        statuses = budgets.statuses(connection, tenant, budgets.all_of(connection, tenant), as_of)
        if not statuses:
            return TenantState(tenant, as_of, None)
        message = BudgetStates(
            tenant=tenant,
            as_of_unix_ns=as_of,
            # Before its first amount a budget limits nothing.
            budgets=[_budget_state(status) for status in statuses if status.limit_nano_usd is not None],
            positions=heartbeat.positions,
        )
        changes_at = min(status.changes_at_unix_ns for status in statuses)
        return TenantState(tenant, as_of, message.SerializeToString(), changes_at)

    def _now(self, connection: Connection) -> int:
        """When this transaction began: before its snapshot was taken."""
        if self._database.dialect == "sqlite":
            # One machine, so one clock; read before the transaction's first statement takes its snapshot.
            return self._clock()
        micros = connection.execute(text("SELECT (extract(epoch FROM now()) * 1000000)::bigint")).scalar_one()
        return int(micros) * 1_000


def _budget_state(status: BudgetStatus) -> BudgetState:
    budget, limit = status.budget, status.limit_nano_usd
    return BudgetState(
        budget_id=budget.id,
        name=budget.name,
        scope=budget.scope,
        period=budget.period.value,
        period_start_unix_ns=status.period_start_unix_ns,
        period_end_unix_ns=status.resets_at_unix_ns,
        limit_nano_usd=limit or 0,
        spent_nano_usd=status.spent_nano_usd,
        unpriced_calls=status.unpriced_calls,
        # Without an amount in force nothing is limited.
        block_at_percent=None if limit is None else budget.block_at_percent,
    )
