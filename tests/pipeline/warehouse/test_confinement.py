"""No public question of the warehouse shows another tenant's rows, whatever it is asked with."""

from __future__ import annotations

import inspect

import pytest

from mmpipeline.store.warehouse.relations import RELATIONS, REPORTED
from mmpipeline.store.warehouse.shapes import Filters, Span
from mmpipeline.store.warehouse.warehouse import Warehouse
from tests.pipeline.warehouse.ledger import HOUR_NS, MONDAY_NS, rated

WEEK = Span(MONDAY_NS, MONDAY_NS + 7 * 24 * HOUR_NS)
THEIRS = "their-secret-name"

# How each question is asked; a new one that is not here fails the test.
ASKED: dict[str, list[tuple[object, ...]]] = {
    "spend": [
        (WEEK, (dimension,))
        for dimension in ("team", "application", "user", "provider", "model", "node", "process", "hour")
    ],
    "costs": [(WEEK, ("team", "day")), (WEEK, ("user",))],
    "total": [(WEEK,), (WEEK, Filters(team=THEIRS))],
    "cost": [(WEEK,), (WEEK, Filters(user=THEIRS))],
    "tokens": [(WEEK,)],
    "qualities": [(WEEK,)],
    "unpriced": [(WEEK,)],
    "errors": [(WEEK,)],
    "observers": [()],
    "facets": [(WEEK,)],
    "calls": [(WEEK,), (WEEK, Filters(team=THEIRS))],
    "call": [(rated("theirs", tenant="them").call.id,)],
    "charged": [(0, 2**62, {}), (0, 2**62, {"team": THEIRS}), (0, 2**62, {"model": THEIRS})],
    "relation": [(name, 0, 2**62) for name in RELATIONS],
}
# These are no questions about tenants' rows.
OTHERS = {"open", "close", "insert", "insert_blocks", "sizes"}


@pytest.mark.every_layout
def test_every_public_question_is_confined(warehouse: Warehouse) -> None:
    questions = {name for name, _ in inspect.getmembers(Warehouse, inspect.isfunction) if name[0] != "_"}
    questions |= {name for name, _ in inspect.getmembers(Warehouse, inspect.ismethod) if name[0] != "_"}
    assert questions == set(ASKED) | OTHERS
    before = {name: answers(warehouse, name) for name in ASKED}
    theirs = rated(
        "theirs",
        tenant="them",
        team=THEIRS,
        application=THEIRS,
        user=THEIRS,
        provider=THEIRS,
        model=THEIRS,
        node=THEIRS,
        process=THEIRS,
        error_type=THEIRS,
    )
    unpriced = rated("theirs too", tenant="them", team=THEIRS, cost_nano_usd=None, unpriced_reason=THEIRS)
    warehouse.insert([theirs, unpriced], "theirs")
    for table in REPORTED:
        warehouse._engine.command(
            f"INSERT INTO {warehouse._engine.layout.local(table.name)} "  # noqa: S608
            f"(tenant_id, timestamp, {table.order[-1]}) VALUES ('them', '2026-11-02', '{THEIRS}')"
        )
    for name in ASKED:
        signature = list(inspect.signature(getattr(Warehouse, name)).parameters)
        assert signature[1] == "tenant", f"{name} must be asked for one tenant"
        assert answers(warehouse, name) == before[name], name
        assert answers(warehouse, name, "them") != before[name], f"{name} does not see their rows at all"
        assert answers(warehouse, name, "' OR 1 OR '") == before[name], name


def answers(warehouse: Warehouse, name: str, tenant: str = "us") -> list[object]:
    return [getattr(warehouse, name)(tenant, *arguments) for arguments in ASKED[name]]
