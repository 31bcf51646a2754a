"""A reprice: what today's book says otherwise is charged anew, everywhere, to the nano-dollar, and once.

Amounts by hand, 1,000 tokens in and 100 out for a call, USD a million: gpt-4o at 2 / 10 costs 3,000,000
nano-dollars, at 3 / 10 it costs 4,000,000; o3 at 1 / 0 costs 1,000,000, above 900 tokens of input at 4 it
costs 4,000,000.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import func, select, text

from mmpipeline.budgets.model import Action, Threshold
from mmpipeline.budgets.service import BudgetService
from mmpipeline.ingest.ledgering import Ledgering
from mmpipeline.ingest.posts import Post
from mmpipeline.ingest.repricing import Outcome, PricesChanged, Repricing, Selection
from mmpipeline.ingest.writer import WarehouseWriter
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import budgets, ledger, tables
from mmpipeline.store.control.database import postgresql_engine, use_tenant
from mmpipeline.store.control.ledger import DAY_NS, LedgerTotals
from mmpipeline.store.warehouse.shapes import Span
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmpipeline.verify.run import verify
from mmproto.v1.call_pb2 import OBSERVER_ROUTER, Call
from mmproto.v1.usage_pb2 import QUALITY_UNKNOWN
from tests.pipeline.calls import NOW, batch, call_id, make_call
from tests.pipeline.prices.books import book, card, take
from tests.pipeline.stores import Stores

TENANTS = ("default", "acme")
OLD = book("old", card("gpt-4o", "2", "10"), card("o3", "1", cliff=(900, "4")))
NEW = book("new", card("gpt-4o", "3", "10"), card("o3", "1", cliff=(900, "4")), card("gpt-5", "5"))
ALL = Selection(NOW - 30 * DAY_NS, NOW + DAY_NS)


@dataclass
class Shop:
    """A ledger with a warehouse behind it, and how it is charged and charged anew."""

    stores: Stores
    folder: Path
    rng: random.Random

    def charge(self, *calls: Call) -> None:
        rating = RatingService.in_force(self.stores.worker, None)
        post = Post(batch(calls))
        Ledgering(self.stores.worker, rating).write([post], NOW)
        assert post.result.accepted == len(calls)

    def call(
        self, model: str = "gpt-4o", tenant: str = "default", at: int = NOW, team: str = "", tier: str = ""
    ) -> Call:
        identity, tokens = call_id(self.rng), {"input": 1000, "output": 100}
        call = make_call(identity, request_model=model, tenant=tenant, at=at, tokens=tokens)
        call.team, call.service_tier = team, tier
        return call

    def reprice(self, selection: Selection = ALL, *, dry_run: bool = False, batch: int = 3) -> Outcome:
        rating = RatingService.in_force(self.stores.worker, None)
        run = Repricing(self.stores.worker, rating, selection, lambda: NOW + 1, dry_run=dry_run, batch=batch)
        return run.run(TENANTS)

    def budget(self, name: str = "all", tenant: str = "default") -> tuple[int, int, int, list[int]]:
        """Spent, calls, calls without a price, percents crossed."""
        status = BudgetService(self.stores.app, lambda: NOW).get(name, tenant)
        crossed = [crossing.percent for crossing in status.crossings]
        return status.spent_nano_usd, status.calls, status.unpriced_calls, crossed

    def agrees(self) -> None:
        """Budgets, sums and single charges all say the same."""
        found = verify(self.stores.worker, None, (), NOW)
        assert found.form()["differences"] == []
        assert set(found.compared) >= {"budget", "totals"}

    def warehouse_agrees(self) -> None:
        """The same, and the roll-ups as well."""
        with Warehouse.open(self.folder) as warehouse:
            WarehouseWriter(self.stores.worker, lambda _: warehouse).drain()
            found = verify(self.stores.worker, warehouse, (), NOW, lambda _: None)
            kept = warehouse.total("default", Span(ALL.from_unix_ns, ALL.to_unix_ns))
        assert found.form()["differences"] == []
        assert found.not_compared == []
        assert set(found.compared) >= {"budget", "totals", "warehouse usage_daily", "warehouse usage_hourly"}
        assert LedgerTotals(kept.calls, kept.cost_nano_usd or 0, kept.unpriced_calls) == self.totals()

    def charges(self) -> int:
        total = 0
        for tenant in TENANTS:
            with self.stores.worker.read(tenant) as connection:
                c = tables.charges.c
                query = select(func.count()).where(c.tenant_id == tenant)
                total += connection.execute(query).scalar_one()
        return total

    def totals(self, tenant: str = "default") -> LedgerTotals:
        with self.stores.worker.read(tenant) as connection:
            return ledger.summed(connection, tenant)


@pytest.fixture
def shop(stores: Stores, tmp_path: Path) -> Shop:
    take(stores.worker, OLD)
    service = BudgetService(stores.app, lambda: NOW)
    thresholds = (Threshold(50, Action.ALERT), Threshold(100, Action.BLOCK))
    service.set("all", limit_nano_usd=20_000_000, thresholds=thresholds)
    service.set("team", limit_nano_usd=10**9, scope={"team": "red"})
    service.set("acme", tenant="acme", limit_nano_usd=10**9)
    return Shop(stores, tmp_path / "warehouse", random.Random(1))


def test_everything_follows_a_new_price(shop: Shop) -> None:
    red = [shop.call(team="red") for _ in range(4)]
    shop.charge(*red, shop.call(), shop.call("o3"), shop.call("gpt-5"), shop.call(tenant="acme"))
    assert shop.budget() == (5 * 3_000_000 + 4_000_000, 7, 1, [50])
    shop.agrees()
    take(shop.stores.worker, NEW)
    outcome = shop.reprice()
    # Six calls of gpt-4o, and the one of gpt-5 that had no price: 1,000 at 5, output is free.
    assert (outcome.total.calls, outcome.total.changed) == (8, 7)
    assert outcome.total.old_nano_usd == 6 * 3_000_000 + 4_000_000
    assert outcome.total.new_nano_usd == 6 * 4_000_000 + 4_000_000 + 5_000_000
    assert (outcome.total.old_unpriced, outcome.total.new_unpriced) == (1, 0)
    o3 = outcome.models["openai", "o3"]
    assert (o3.calls, o3.changed, o3.old_nano_usd, o3.new_nano_usd) == (1, 0, 4_000_000, 4_000_000)
    assert shop.budget() == (5 * 4_000_000 + 4_000_000 + 5_000_000, 7, 0, [50, 100])
    assert shop.budget("team") == (4 * 4_000_000, 4, 0, [])
    assert shop.budget("acme", "acme") == (4_000_000, 1, 0, [])
    assert shop.totals() == LedgerTotals(7, 29_000_000, 0)
    with shop.stores.worker.read("default") as connection:
        assert ledger.unpriced(connection, "default") == []
        assert ledger.counters(connection)["repriced"] == 7
    shop.warehouse_agrees()


def test_again_changes_nothing_and_back_is_as_it_was(shop: Shop) -> None:
    shop.charge(*(shop.call() for _ in range(7)), shop.call(tenant="acme"))
    before, totals = shop.charges(), shop.totals()
    assert shop.reprice().total.changed == 0
    take(shop.stores.worker, NEW)
    assert shop.reprice(dry_run=True).total.changed == 8
    assert shop.charges() == before
    assert shop.reprice().total.changed == 8
    assert shop.charges() == before + 16
    assert shop.reprice().total.changed == 0
    assert shop.charges() == before + 16
    take(shop.stores.worker, OLD)
    assert shop.reprice().total.changed == 8
    assert shop.totals() == totals
    shop.agrees()


def test_only_what_was_selected(shop: Shop) -> None:
    yesterday = NOW - DAY_NS
    shop.charge(shop.call(at=yesterday), shop.call(), shop.call("gpt-5"), shop.call("o3"))
    take(shop.stores.worker, NEW)
    midnight = NOW // DAY_NS * DAY_NS

    def looked_at(**chosen: object) -> tuple[int, int]:
        selection = Selection(**{"from_unix_ns": midnight - DAY_NS, "to_unix_ns": midnight + DAY_NS} | chosen)  # type: ignore[arg-type]
        total = shop.reprice(selection, dry_run=True).total
        return total.calls, total.changed

    assert looked_at() == (4, 3)
    assert looked_at(to_unix_ns=midnight) == (1, 1)
    assert looked_at(from_unix_ns=midnight) == (3, 2)
    assert looked_at(from_unix_ns=NOW + 1) == (0, 0)
    assert looked_at(model="gpt-4o") == (2, 2)
    assert looked_at(provider="anthropic") == (0, 0)
    assert looked_at(only_unpriced=True) == (1, 1)


def test_a_price_that_is_gone_leaves_calls_unpriced(shop: Shop) -> None:
    shop.charge(shop.call(), shop.call("o3"))
    take(shop.stores.worker, book("less", card("o3", "1", cliff=(900, "4"))))
    assert shop.reprice().total.new_unpriced == 1
    assert shop.budget() == (4_000_000, 2, 1, [])
    with shop.stores.worker.read("default") as connection:
        (missing,) = ledger.unpriced(connection, "default")
        (alert,) = budgets.newest_alerts(connection, "default", 5)
    assert (missing.model, missing.reason, missing.calls) == ("gpt-4o", "unknown_model", 1)
    assert "less does not know the model" in alert.summary
    shop.agrees()


def test_a_call_that_a_better_report_replaced_is_charged_anew_by_that_one(shop: Shop) -> None:
    seen = shop.call()
    unknown = Call()
    unknown.CopyFrom(seen)
    unknown.usage.Clear()
    unknown.usage.quality = QUALITY_UNKNOWN
    moved = Call()
    moved.CopyFrom(seen)
    moved.observer, moved.tenant = OBSERVER_ROUTER, "acme"
    shop.charge(unknown)
    shop.charge(seen)
    shop.charge(moved)
    take(shop.stores.worker, NEW)
    outcome = shop.reprice()
    assert (outcome.total.calls, outcome.total.changed) == (1, 1)
    assert shop.totals("acme") == LedgerTotals(1, 4_000_000, 0)
    assert shop.totals() == LedgerTotals(0, 0, 0)
    shop.agrees()


def test_days_whose_ids_are_dropped_are_charged_anew_once(shop: Shop) -> None:
    old = NOW - 20 * DAY_NS
    shop.charge(*(shop.call(at=old) for _ in range(5)), shop.call())
    horizon = str(NOW // DAY_NS - 10)
    drop(shop.stores, ledger.IDS_HORIZON, horizon)
    take(shop.stores.worker, NEW)
    assert (shop.reprice().total.changed, shop.reprice().total.changed) == (6, 0)
    take(shop.stores.worker, OLD)
    # Two runs beside each other: what one has charged anew the other leaves.
    rating = RatingService.in_force(shop.stores.worker, None)
    inner: list[Outcome] = []

    def beside(_: Outcome) -> None:
        if not inner:
            inner.append(shop.reprice())

    outer = Repricing(shop.stores.worker, rating, ALL, lambda: NOW + 2, batch=2, after_batch=beside).run(
        TENANTS
    )
    assert outer.total.changed + inner[0].total.changed == 6
    assert shop.totals() == LedgerTotals(6, 18_000_000, 0)
    shop.agrees()


def test_days_whose_charges_are_dropped_are_named(shop: Shop) -> None:
    shop.charge(shop.call())
    drop(shop.stores, "charges_from_day", str(ALL.from_unix_ns // DAY_NS + 4))
    first = ALL.from_unix_ns // DAY_NS
    assert shop.reprice().dropped_days == (first, first + 4)
    assert shop.reprice(Selection(NOW - 5 * DAY_NS, NOW + 1)).dropped_days is None


def test_an_import_ends_a_run_that_charges_by_the_book_before(shop: Shop) -> None:
    shop.charge(*(shop.call() for _ in range(6)))
    take(shop.stores.worker, NEW)
    rating = RatingService.in_force(shop.stores.worker, None)

    def imports(_: Outcome) -> None:
        take(shop.stores.worker, OLD)

    run = Repricing(shop.stores.worker, rating, ALL, lambda: NOW, batch=2, after_batch=imports)
    with pytest.raises(PricesChanged):
        run.run(TENANTS)
    assert shop.totals() == LedgerTotals(6, 18_000_000 + 2_000_000, 0)
    shop.agrees()
    assert shop.reprice().total.changed == 2
    shop.agrees()


def test_beside_ingest_every_call_is_charged_once(shop: Shop) -> None:
    """Better reports come while their calls are charged anew: whoever is first, the sum is by one price."""
    calls = [shop.call() for _ in range(60)]
    shop.charge(*calls)
    take(shop.stores.worker, NEW)
    better = []
    for call in calls:
        report = Call()
        report.CopyFrom(call)
        report.observer = OBSERVER_ROUTER
        better.append(report)
    failures: list[BaseException] = []

    def ingest() -> None:
        try:
            for start in range(0, 60, 5):
                shop.charge(*better[start : start + 5])
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=ingest)
    thread.start()
    shop.reprice(batch=4)
    thread.join()
    assert not failures
    shop.reprice()
    assert shop.totals() == LedgerTotals(60, 60 * 4_000_000, 0)
    shop.warehouse_agrees()


KILLED = """
import os, signal, sys
from mmpipeline.ingest.repricing import Repricing, Selection
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control.database import Database

url, batches, since, until = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
database = Database.open(url)
seen = []

def after(outcome):
    seen.append(outcome.total.changed)
    if len(seen) == batches:
        os.kill(os.getpid(), signal.SIGKILL)

rating = RatingService.in_force(database, None)
run = Repricing(database, rating, Selection(since, until), lambda: until, batch=5, after_batch=after)
run.run(["default"])
"""


def test_killed_in_the_middle_it_is_consistent_and_finished_by_another_run(shop: Shop) -> None:
    shop.charge(*(shop.call() for _ in range(20)))
    take(shop.stores.worker, NEW)
    span = (str(ALL.from_unix_ns), str(ALL.to_unix_ns))
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, shop.stores.url, "2", *span], check=False, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL
    assert shop.totals() == LedgerTotals(20, 10 * 4_000_000 + 10 * 3_000_000, 0)
    shop.agrees()
    assert shop.reprice().total.changed == 10
    assert shop.totals() == LedgerTotals(20, 20 * 4_000_000, 0)
    shop.warehouse_agrees()


def drop(stores: Stores, key: str, day: str) -> None:
    """Say in `meta` that days are dropped, and drop ids of such days, as the owner of the tables."""
    ids = tables.call_ids
    if stores.worker.dialect == "sqlite":
        with stores.worker.write() as connection:
            connection.execute(tables.meta.insert(), {"key": key, "value": day})
            if key == ledger.IDS_HORIZON:
                connection.execute(ids.delete().where(ids.c.day <= int(day)))
        return
    engine = postgresql_engine(stores.url.replace("mm_worker", "mm_owner"))
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL ROLE modelmeter_owner"))
        connection.execute(tables.meta.insert(), {"key": key, "value": day})
        for tenant in TENANTS:
            use_tenant(connection, tenant)
            if key == ledger.IDS_HORIZON:
                connection.execute(ids.delete().where(ids.c.day <= int(day)))
    engine.dispose()
