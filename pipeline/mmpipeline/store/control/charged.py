"""Sums over the charges: what every number that is kept beside them is held against.

All of these read single charges, up to all of a tenant's: they are for counting anew and for checking, never
for pages. Functions take the connection of a running transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, case, func, or_, select, text

from mmpipeline.store.control.tables import budgets, call_ids, charges, meta, outbox

DAY_NS = 86_400_000_000_000

# meta: charges of this day and of those before are dropped.
CHARGES_HORIZON = "charges_from_day"

# What the warehouse's 32-bit seconds can hold; it counts calls of other times at the nearest of these.
_LATEST_NS = (2**32 - 1) * 1_000_000_000

_BLOCKS_AT_ONCE = 50


class Sums(NamedTuple):
    """What calls cost, how many they are, and how many of them have no price."""

    nano_usd: int = 0
    calls: int = 0
    unpriced_calls: int = 0

    def plus(self, other: Sums) -> Sums:
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))


_COST, _SIGN = charges.c.cost_nano_usd, charges.c.sign

# The columns of a query over charges that make a `Sums`.
SUMS: tuple[ColumnElement[int], ...] = (
    func.coalesce(func.sum(_COST * _SIGN), 0),
    func.coalesce(func.sum(_SIGN), 0),
    func.coalesce(func.sum(case((_COST.is_(None), _SIGN), else_=0)), 0),
)


def kept_from(connection: Connection) -> int:
    """Since when all charges are kept, in unix nanoseconds; 0 where none was ever dropped.

    Charges are dropped by the day under which a call is filed, and of two reports around a midnight the
    later one may say the other day: so the first day that is kept is left out of it.
    """
    found = connection.execute(select(meta.c.value).where(meta.c.key == CHARGES_HORIZON)).scalar()
    return 0 if found is None else (int(found) + 2) * DAY_NS


def tenants(connection: Connection) -> list[str] | None:
    """All that have budgets or charges; None where this role is not told who they are."""
    sources: list[Select[Any]] = [select(budgets.c.tenant_id)]
    if connection.dialect.name == "sqlite":
        sources.append(select(charges.c.tenant_id))
    elif connection.execute(text("SELECT has_table_privilege('call_ids', 'SELECT')")).scalar_one():
        sources.append(select(call_ids.c.tenant_id))
    else:
        return None
    return sorted({row[0] for source in sources for row in connection.execute(source.distinct())})


def total(connection: Connection, tenant: str) -> Sums:
    """All charges of a tenant."""
    row = connection.execute(select(*SUMS).where(charges.c.tenant_id == tenant)).one()
    return Sums(*map(int, row))


def by_day(connection: Connection, tenant: str, since_unix_ns: int) -> dict[int, Sums]:
    """The charges of a tenant by the day (UTC, since 1970) on which a call started, from a midnight on."""
    at = charges.c.started_at_unix_ns
    counted = case((at < 0, 0), (at > _LATEST_NS, _LATEST_NS), else_=at)
    day = (counted // DAY_NS).label("started_on")
    query = select(day, *SUMS).where(charges.c.tenant_id == tenant, counted >= since_unix_ns).group_by(day)
    return {int(on): Sums(*map(int, sums)) for on, *sums in connection.execute(query)}


def not_once(connection: Connection, tenant: str, since_unix_ns: int, limit: int) -> list[tuple[bytes, int]]:
    """Calls whose charges do not add up to one call or none, with what they add up to."""
    times = func.sum(_SIGN)
    query = (
        select(charges.c.id, times)
        .where(charges.c.tenant_id == tenant, charges.c.day >= since_unix_ns // DAY_NS)
        .group_by(charges.c.id)
        .having(or_(times < 0, times > 1))
        .order_by(charges.c.id)
        .limit(limit)
    )
    return [(bytes(key), int(count)) for key, count in connection.execute(query)]


def waiting(connection: Connection) -> Iterator[bytes] | None:
    """The blocks that wait in the outbox; None where this role may not read them."""
    if (
        connection.dialect.name == "postgresql"
        and not connection.execute(
            text("SELECT has_column_privilege('outbox', 'payload', 'SELECT')")
        ).scalar_one()
    ):
        return None
    return _blocks(connection)


def _blocks(connection: Connection) -> Iterator[bytes]:
    after = -1
    while True:
        rows = connection.execute(
            select(outbox.c.seq, outbox.c.payload)
            .where(outbox.c.seq > after)
            .order_by(outbox.c.seq)
            .limit(_BLOCKS_AT_ONCE)
        ).all()
        if not rows:
            return
        yield from (bytes(payload) for _, payload in rows)
        after = rows[-1][0]
