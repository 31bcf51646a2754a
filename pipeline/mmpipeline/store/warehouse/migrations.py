"""The numbered steps that make the warehouse's tables, and how long rows stay in them.

Steps are applied once, in order. Every statement can be repeated, so a step that was cut off by a crash, or
that two processes begin at the same time, is simply run again.
"""

# ruff: noqa: S608

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from mmpipeline.store.warehouse.engine import Engine
from mmpipeline.store.warehouse.errors import WarehouseFailed, WarehouseTooNew
from mmpipeline.store.warehouse.layouts import Layout, quoted
from mmpipeline.store.warehouse.relations import RELATIONS, REPORTED, VIEWS
from mmpipeline.store.warehouse.schema import CALLS, ROLL_UPS


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step; never changed after it was released."""

    version: int
    statements: Callable[[Layout], tuple[str, ...]]


def _first(layout: Layout) -> tuple[str, ...]:
    everything = (CALLS, *ROLL_UPS, *REPORTED, *VIEWS)
    return tuple(statement for each in everything for statement in each.statements(layout))


# 1 was the layout of folders that no release ever wrote.
MIGRATIONS: Final = (Migration(2, _first),)

ROLL_UP_TABLES: Final = tuple(roll_up.table.name for roll_up in ROLL_UPS)

# Everything with a tenant's rows: each query is confined to one tenant on all of them.
TENANT_TABLES: Final = (CALLS.name, *ROLL_UP_TABLES, *RELATIONS)


def versions_table(layout: Layout) -> str:
    """The table of the steps that were applied."""
    return (
        f"CREATE TABLE IF NOT EXISTS schema_versions{layout.everywhere} "
        "(version UInt32, applied_at DateTime('UTC')) "
        f"ENGINE = {layout.engines['versions']} ORDER BY version"
    )


def migrate(engine: Engine) -> None:
    """Bring the schema up to date. Raises WarehouseTooNew, WarehouseAway, WarehouseFailed."""
    engine.command(versions_table(engine.layout))
    done = {row[0] for row in engine.read_meta("SELECT version FROM schema_versions")}
    newest = MIGRATIONS[-1].version
    if done and max(done) > newest:
        raise WarehouseTooNew(
            f"the warehouse has schema {max(done)}, this ModelMeter knows {newest}",
            "install the version that wrote it, or a newer one",
        )
    if 1 in done:
        raise WarehouseFailed(
            "the warehouse was written before the first release, in a layout that is no more",
            "move its folder away; calls that the ledger still has can be had from there",
        )
    for migration in MIGRATIONS:
        if migration.version in done:
            continue
        for statement in migration.statements(engine.layout):
            engine.command(statement)
        engine.command(f"INSERT INTO schema_versions VALUES ({migration.version}, now())")


def time_to_live(keep_days: int, by_tenant: Mapping[str, int]) -> str:
    """The TTL of single calls; "" where all are kept for ever. 0 days is for ever.

    Tenants without a time of their own have the general one. Roll-ups have none: they are what a company
    compares its years by, and small.
    """
    rules: dict[int, list[str]] = {}
    for tenant, days in sorted(by_tenant.items()):
        rules.setdefault(days, []).append(quoted(tenant))
    named = ", ".join(quoted(tenant) for tenant in sorted(by_tenant))
    clauses = [
        f"toDateTime(started_at) + toIntervalDay({days}) DELETE WHERE tenant_id IN ({', '.join(tenants)})"
        for days, tenants in sorted(rules.items())
        if days
    ]
    if keep_days:
        rest = f" WHERE tenant_id NOT IN ({named})" if named else ""
        clauses.append(f"toDateTime(started_at) + toIntervalDay({keep_days}) DELETE{rest}")
    return ", ".join(clauses)


def keep(engine: Engine, keep_days: int, by_tenant: Mapping[str, int]) -> bool:
    """Have single calls kept for that long; says whether something was changed.

    A changed time is applied to the rows that are there in the background, which reads every part once.
    """
    layout = engine.layout
    table = layout.local(CALLS.name)
    wanted = time_to_live(keep_days, by_tenant)
    alter = f"ALTER TABLE {table}{layout.everywhere} "
    if _as_the_engine_writes(engine, wanted) == _present(engine, table):
        return False
    engine.command(alter + (f"MODIFY TTL {wanted}" if wanted else "REMOVE TTL"))
    return True


_TTL: Final = re.compile(r" TTL (.*?)(?: SETTINGS .*)?$", re.DOTALL)


def _as_the_engine_writes(engine: Engine, ttl: str) -> str:
    if not ttl:
        return ""
    create = f"CREATE TABLE t (x UInt8) ENGINE = MergeTree ORDER BY x TTL {ttl}"
    rows = engine.read_meta(f"SELECT formatQuerySingleLine({quoted(create)})")
    return _found(rows[0][0])


def _present(engine: Engine, table: str) -> str:
    rows = engine.read_meta(
        "SELECT engine_full FROM system.tables "
        f"WHERE database = {quoted(engine.layout.database)} AND name = {quoted(table)}"
    )
    return _found(rows[0][0]) if rows else ""


def _found(statement: str) -> str:
    found = _TTL.search(statement)
    return found[1] if found else ""
