"""Old ids and charges go, by day; what was spent stays, and what may be a duplicate is refused."""

from __future__ import annotations

import random
from pathlib import Path

from click.testing import CliRunner
from sqlalchemy import select, text

from mmlocal.services.postgresql import PostgreSQL
from mmpipeline.budgets.service import BudgetService
from mmpipeline.cli import cli
from mmpipeline.ingest.ledgering import Ledgering
from mmpipeline.ingest.posts import IngestResult, Post
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import pruning, tables
from mmpipeline.store.control.database import Database
from mmpipeline.store.control.ledger import DAY_NS, totals
from tests.pipeline.calls import COST, NOW, batch, call_id, make_call
from tests.pipeline.stores import Stores

RATING = RatingService.open()
TODAY = NOW // DAY_NS


def _prune(stores: Stores, keep_ids: int, keep_charges: int, now: int = NOW) -> pruning.Pruned:
    if stores.owner is None:
        return pruning.prune_sqlite(stores.worker, now, keep_ids, keep_charges)
    return pruning.prune_postgresql(stores.owner, now, keep_ids, keep_charges)


def _charge(stores: Stores, ages: range) -> IngestResult:
    """One call for each age in days, always the same."""
    calls = [make_call(f"{age:08x}-0000-4000-8000-000000000000", at=NOW - age * DAY_NS) for age in ages]
    post = Post(batch(calls))
    Ledgering(stores.worker, RATING).write([post], NOW)
    return post.result


def _days(stores: Stores, table: str) -> list[int]:
    """Ages of the days that are left."""
    column = tables.metadata.tables[table].c.day
    with stores.worker.read("default") as connection:
        return sorted(TODAY - day for day in connection.execute(select(column).distinct()).scalars())


def test_what_is_older_than_it_is_kept_is_dropped(stores: Stores) -> None:
    budgets = BudgetService(stores.app, lambda: NOW)
    budgets.set("all", limit_nano_usd=10**12)
    assert _charge(stores, range(10)).accepted == 10
    pruned = _prune(stores, keep_ids=4, keep_charges=6)
    assert (pruned.ids, pruned.charges) == (TODAY - 4, TODAY - 6)
    assert _days(stores, "call_ids") == [0, 1, 2, 3]
    assert _days(stores, "charges") == [0, 1, 2, 3, 4, 5]
    with stores.app.read() as connection:
        assert totals(connection).cost_nano_usd == 10 * COST
    assert budgets.get("all").spent_nano_usd == 10 * COST
    again = _charge(stores, range(10))
    assert (again.accepted, again.duplicates, len(again.rejected)) == (0, 4, 6)
    assert {rejection.reason for rejection in again.rejected} == {"too_late"}
    assert _prune(stores, 4, 6).dropped == 0


def test_charges_are_kept_as_long_as_their_ids(stores: Stores) -> None:
    _charge(stores, range(6))
    pruned = _prune(stores, keep_ids=4, keep_charges=2)
    assert pruned.charges == pruned.ids == TODAY - 4
    assert _days(stores, "charges") == [0, 1, 2, 3]


def test_the_horizon_moves_forwards_only(stores: Stores) -> None:
    _charge(stores, range(6))
    _prune(stores, 3, 3)
    assert _prune(stores, 5, 5).ids == TODAY - 3
    assert len(_charge(stores, range(6)).rejected) == 3


def test_migrate_and_prune_by_command(postgresql: PostgreSQL, tmp_path: Path) -> None:
    postgresql.make_database("by_command")
    url = {
        "MODELMETER_CONTROL_URL": postgresql.url("worker", "by_command"),
        "MODELMETER_STATE_DIR": str(tmp_path),
    }
    owner = {"MODELMETER_CONTROL_OWNER_URL": postgresql.url("owner", "by_command")}
    try:
        run = CliRunner()
        refused = run.invoke(cli, ["ledger", "migrate"], env=url)
        assert (refused.exit_code, "control.owner_url is not set" in refused.output) == (2, True)
        for _ in range(2):
            done = run.invoke(cli, ["ledger", "migrate"], env=url | owner)
            assert (done.exit_code, done.output) == (0, "the control store has schema 0001\n")
        worker = Database.open(postgresql.url("worker", "by_command"), "worker")
        post = Post(batch([make_call(call_id(random.Random(1)), at=NOW - 100 * DAY_NS)]))
        Ledgering(worker, RATING).write([post], NOW)
        done = run.invoke(cli, ["ledger", "prune"], env=url | owner)
        assert done.exit_code == 0
        assert done.output.startswith("1 days dropped; ids are kept from ")
        with worker.read("default") as connection:
            assert connection.execute(text("SELECT count(*) FROM call_ids")).scalar() == 0
            assert connection.execute(text("SELECT count(*) FROM charges")).scalar() == 1
        worker.close()
    finally:
        postgresql.drop_database("by_command")


def test_sqlite_is_migrated_and_pruned_by_command_too(tmp_path: Path) -> None:
    environment = {"MODELMETER_STATE_DIR": str(tmp_path)}
    run = CliRunner()
    assert run.invoke(cli, ["ledger", "migrate"], env=environment).exit_code == 0
    done = run.invoke(cli, ["ledger", "prune"], env=environment)
    assert (done.exit_code, done.output[:14]) == (0, "0 rows dropped")
