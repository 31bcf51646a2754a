"""How long single calls are kept, by tenant. Sums stay."""

from __future__ import annotations

import time

import pytest

from mmpipeline.config import Warehouse as WarehouseSettings
from mmpipeline.store.warehouse.migrations import time_to_live
from mmpipeline.store.warehouse.shapes import DAY_NS, Span
from mmpipeline.store.warehouse.warehouse import Warehouse
from tests.pipeline.warehouse.conftest import OpenWarehouse
from tests.pipeline.warehouse.ledger import rated

TODAY = time.time_ns() // DAY_NS * DAY_NS
ALWAYS = Span(0, TODAY + DAY_NS)


def kept(warehouse: Warehouse) -> dict[str, tuple[int, int]]:
    """By tenant: calls that are there one by one, and calls in the sums."""
    # What the engine does by itself within hours.
    warehouse._engine.command(f"OPTIMIZE TABLE {warehouse._engine.layout.local('calls')} FINAL")
    tenants = ("short", "long", "other")
    return {
        tenant: (len(warehouse.calls(tenant, ALWAYS).calls), warehouse.total(tenant, ALWAYS).calls)
        for tenant in tenants
    }


@pytest.mark.every_layout
def test_old_calls_of_one_tenant_go_and_everything_else_stays(open_warehouse: OpenWarehouse) -> None:
    warehouse = open_warehouse(WarehouseSettings())
    ages = (1, 20, 60, 400)
    for tenant in ("short", "long", "other"):
        rows = [rated(f"{age}", tenant=tenant, at_ns=TODAY - age * DAY_NS) for age in ages]
        warehouse.insert(rows, tenant)
    assert set(kept(warehouse).values()) == {(4, 4)}

    warehouse = open_warehouse(WarehouseSettings(keep_days_by_tenant={"short": 10, "long": 100}))
    assert kept(warehouse) == {"short": (1, 4), "long": (3, 4), "other": (4, 4)}

    warehouse = open_warehouse(WarehouseSettings(keep_days=30, keep_days_by_tenant={"long": 0}))
    assert kept(warehouse) == {"short": (1, 4), "long": (3, 4), "other": (2, 4)}

    # A call that comes late but not too late, a correction of one that is gone, and no time at all again.
    warehouse = open_warehouse(WarehouseSettings())
    old = rated("400", tenant="short", at_ns=TODAY - 400 * DAY_NS)
    late = rated("late", tenant="short", at_ns=TODAY - 500 * DAY_NS)
    warehouse.insert([old.reversed(), late], "corrections")
    assert kept(warehouse)["short"] == (2, 4)
    assert warehouse.relation("short", "ai_requests", 0, TODAY).rows[0][0] == late.call.id


def test_the_time_is_changed_only_where_it_differs(
    open_warehouse: OpenWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = WarehouseSettings(keep_days=90, keep_days_by_tenant={"it's": 7, "b": 7, "c": 0})
    warehouse = open_warehouse(settings)
    commands: list[str] = []
    kind = type(warehouse._engine)
    command = kind.command

    def seen(engine: object, statement: str) -> None:
        commands.append(statement)
        command(engine, statement)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "command", seen)
    open_warehouse(settings)
    assert not [statement for statement in commands if "TTL" in statement]
    open_warehouse(WarehouseSettings(keep_days=91))
    open_warehouse(WarehouseSettings())
    open_warehouse(WarehouseSettings())
    assert [statement.rpartition("TTL")[0][-7:] for statement in commands if "TTL" in statement] == [
        "MODIFY ",
        "REMOVE ",
    ]


def test_tenants_with_one_time_are_one_rule() -> None:
    rule = time_to_live(30, {"a": 7, "b": 7, "c'": 0})
    assert rule == (
        "toDateTime(started_at) + toIntervalDay(7) DELETE WHERE tenant_id IN ('a', 'b'), "
        "toDateTime(started_at) + toIntervalDay(30) DELETE WHERE tenant_id NOT IN ('a', 'b', 'c\\'')"
    )
    assert time_to_live(0, {}) == time_to_live(0, {"a": 0}) == ""
