"""`ledger verify` on the control store: what agrees is silent, and each thing that is put wrong is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, delete, insert, select, update

from mmpipeline.budgets.periods import Period
from mmpipeline.budgets.service import BudgetService
from mmpipeline.ingest.ledgering import Ledgering
from mmpipeline.ingest.posts import Post
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import charged
from mmpipeline.store.control.tables import (
    budget_crossings,
    budget_spend,
    budgets,
    charges,
    counters,
    meta,
)
from mmpipeline.verify.findings import Difference, Findings
from mmpipeline.verify.run import UnknownTenants, verify
from mmproto.callform import parse_time
from tests.pipeline.calls import COST, NOW, batch, call_id, make_call
from tests.pipeline.stores import Stores

RNG = random.Random(11)
_DAY_NS = 86_400 * 10**9
TODAY = NOW // _DAY_NS


def spend(stores: Stores, calls: int, at: int = NOW, **fields: Any) -> None:
    made = [make_call(call_id(RNG), at=at, **fields) for _ in range(calls)]
    Ledgering(stores.worker, RatingService.open()).write([Post(batch(made))], NOW)


def found(stores: Stores, tenants: tuple[str, ...] = ()) -> Findings:
    return verify(stores.worker, None, tenants, NOW)


@pytest.fixture
def filled(stores: Stores) -> Stores:
    """Two tenants with budgets in zones, calls with and without a price, a threshold crossed."""
    service = BudgetService(stores.app, lambda: NOW)
    service.set("team-a", limit_nano_usd=4 * COST, scope={"team": "a"}, time_zone="Asia/Kathmandu")
    service.set("daily", limit_nano_usd=10**12, period=Period.DAY, time_zone="America/Santiago")
    service.set("x", tenant="other", limit_nano_usd=10**12)
    spend(stores, 2, team="a")
    spend(stores, 3, at=NOW - 2 * _DAY_NS, team="b")
    spend(stores, 1, team="a", request_model="gpt-99")
    spend(stores, 5, tenant="other")
    assert found(stores).form() | {"compared": {}} == {
        "as_of": "2026-11-23T10:00:00Z",
        "tenants": ["default", "other"],
        "agrees": True,
        "differences": [],
        "not_compared": ["the warehouse: it was not asked"],
        "compared": {},
    }
    return stores


def _spend_of(connection: Connection, **values: int) -> None:
    team_a = select(budgets.c.id).where(budgets.c.name == "team-a").scalar_subquery()
    connection.execute(update(budget_spend).where(budget_spend.c.budget_id == team_a).values(**values))


def _lost_spend(connection: Connection) -> None:
    connection.execute(delete(budget_spend).where(budget_spend.c.tenant_id == "default"))


def _spend_of_a_period_without_calls(connection: Connection) -> None:
    row = connection.execute(select(budget_spend).where(budget_spend.c.tenant_id == "default")).first()
    assert row is not None
    connection.execute(
        insert(budget_spend).values(
            **(row._asdict() | {"period_start_unix_ns": parse_time("2026-08-31T18:15:00Z"), "calls": 1})
        )
    )


def _crossing(connection: Connection) -> None:
    connection.execute(update(budget_crossings).values(percent=80))


def _no_crossing(connection: Connection) -> None:
    connection.execute(delete(budget_crossings))


def _total(connection: Connection) -> None:
    name = counters.c.name == "ledger.cost_nano_usd"
    connection.execute(update(counters).where(name).values(value=counters.c.value + 1))


def _charged_twice(connection: Connection) -> None:
    row = connection.execute(select(charges).where(charges.c.tenant_id == "default").limit(1)).one()
    connection.execute(insert(charges).values(**(row._asdict() | {"seq": row.seq + 10**6})))


@pytest.mark.parametrize(
    ("put_wrong", "expected"),
    [
        (lambda c: _spend_of(c, spent_nano_usd=1), {("budget", "cost_usd")}),
        (lambda c: _spend_of(c, calls=7), {("budget", "calls")}),
        (lambda c: _spend_of(c, unpriced_calls=0), {("budget", "unpriced_calls")}),
        (
            _lost_spend,
            {("budget", "cost_usd"), ("budget", "calls"), ("budget", "unpriced_calls"), ("crossing", "50 %")},
        ),
        (_spend_of_a_period_without_calls, {("budget", "cost_usd"), ("budget", "calls")}),
        (_crossing, {("crossing", "50 %"), ("crossing", "80 %")}),
        (_no_crossing, {("crossing", "50 %")}),
        (_total, {("totals", "cost_usd")}),
        (
            _charged_twice,
            {
                ("charge", "calls"),
                ("totals", "calls"),
                ("totals", "cost_usd"),
                ("budget", "calls"),
                ("budget", "cost_usd"),
            },
        ),
    ],
    ids=lambda value: getattr(value, "__name__", "") if callable(value) else "",
)
def test_what_is_put_wrong_is_found(
    filled: Stores, put_wrong: Callable[[Connection], None], expected: set[tuple[str, str]]
) -> None:
    with filled.worker.write("default") as connection:
        put_wrong(connection)
    findings = found(filled)
    named = {(difference.what, difference.field) for difference in findings.differences}
    assert expected <= named
    if put_wrong is not _charged_twice:
        # A crossing hangs on its spend; beside that nothing else is accused.
        assert {what for what, _ in named} <= {what for what, _ in expected} | {"crossing"}
    assert all(difference.tenant in ("default", "") for difference in findings.differences)


def test_a_difference_says_both_numbers(filled: Stores) -> None:
    with filled.worker.write("default") as connection:
        _spend_of(connection, spent_nano_usd=COST)
    # 2 of 4 priced calls reach 50 %, one does not: so its crossing is accused with it.
    assert found(filled).differences == [
        Difference("budget", "default", "team-a, month from 2026-11-01", "cost_usd", "0.0025", "0.005"),
        Difference("crossing", "default", "team-a, month from 2026-11-01", "50 %", "reached", "not reached"),
    ]


def test_one_tenant_can_be_asked_for(filled: Stores) -> None:
    with filled.worker.write("default") as connection:
        _lost_spend(connection)
    findings = found(filled, ("other",))
    assert findings.differences == []
    assert findings.tenants == ("other",)
    assert "the ledger's totals: they are of all tenants together" in findings.not_compared


# On PostgreSQL nobody but their owner can drop charges.
@pytest.mark.parametrize("make_stores", ["sqlite"], indirect=True)
def test_what_is_dropped_is_said_and_not_compared(filled: Stores) -> None:
    with filled.worker.write("default") as connection:
        connection.execute(delete(charges).where(charges.c.day <= TODAY - 2))
    assert found(filled).differences != []
    with filled.worker.write() as connection:
        connection.execute(insert(meta).values(key=charged.CHARGES_HORIZON, value=str(TODAY - 2)))
    findings = found(filled)
    assert findings.differences == []
    said = "\n".join(findings.not_compared)
    assert "totals" in said
    assert "2026-11-23" in said
    assert "budget team-a of tenant default in its running month" in said
    # What is not all there any more keeps its number when a budget is counted anew; what is, is counted.
    service = BudgetService(filled.app, lambda: NOW)
    old = service.get("team-a")
    service.set("team-a", scope={"team": "a"}, time_zone="Asia/Kathmandu", limit_nano_usd=COST)
    assert service.get("team-a").spent_nano_usd == old.spent_nano_usd
    moved = service.set("daily", scope={"team": "a"}, period=Period.DAY, time_zone="UTC")
    assert moved.calls == 3
    (before,) = [s for s in service.list("default", NOW - 2 * _DAY_NS) if s.budget.name == "daily"]
    assert before.calls == 0
    assert found(filled).differences == []


def test_a_role_that_sees_no_tenants_says_so(stores: Stores) -> None:
    spend(stores, 1)
    if stores.app.dialect == "sqlite":
        assert verify(stores.app, None, (), NOW).tenants == ("default",)
        return
    with pytest.raises(UnknownTenants, match="--tenant"):
        verify(stores.app, None, (), NOW)
    findings = verify(stores.app, None, ("default",), NOW)
    assert findings.differences == []
