"""What routers are told, over a real store and a real broker: all of it, soon, and the newest last."""

from __future__ import annotations

import itertools
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from confluent_kafka import Producer

from mmlocal.services.kafka import Kafka
from mmpipeline.actions.publisher import ActionsPublisher
from mmpipeline.budgets.model import Action, Threshold
from mmpipeline.budgets.periods import Period
from mmpipeline.budgets.service import BudgetService
from mmpipeline.ingest.service import IngestService
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import positions
from mmpipeline.store.control.database import Database, file_url
from mmproto.kafka.compacted import CompactedReader
from mmproto.kafka.settings import KafkaSettings
from mmproto.kafka.topics import ACTIONS, AS_OF_HEADER, CALLS, RATES, VERSION_HEADER
from mmproto.rateform import book_from_json
from mmproto.v1.budget_pb2 import BudgetStates
from tests.pipeline.calls import COST, batch, call_id, make_call
from tests.pipeline.stores import Stores
from tests.router.saying import make_topics

BLOCK = (Threshold(100, Action.BLOCK),)
LIMIT = 10 * COST
DAY_NS = 86_400_000_000_000

_NUMBERS = itertools.count()


@pytest.fixture
def tenant() -> str:
    """Nobody else's on the topics that all tests share."""
    return f"actions-{os.getpid()}-{next(_NUMBERS)}"


@pytest.fixture(scope="module")
def rating() -> RatingService:
    return RatingService.open()


class Router:
    """Reads the topics as a router does and keeps all that is said, and the last of each key."""

    def __init__(self, address: str) -> None:
        self._reader = CompactedReader({"bootstrap.servers": address, "log_level": 0}, (ACTIONS, RATES))
        self.states: list[BudgetStates] = []
        self.last: dict[str, BudgetStates | None] = {}
        self.moments: dict[str, list[int]] = {}
        self.books: dict[str, bytes | None] = {}
        self.versions: dict[str, str] = {}
        self.until("the end", lambda: self._reader.caught_up)

    def until(self, what: str, condition: Callable[[], Any], within_s: float = 30.0) -> Any:
        """First truthy result of `condition`, looked at after whatever is read."""
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            for entry in self._reader.poll(0.02):
                key = entry.key.decode()
                if entry.topic == RATES:
                    self.books[key] = entry.value
                    self.versions[key] = entry.headers[VERSION_HEADER].decode()
                    continue
                self.moments.setdefault(key, []).append(int(entry.headers[AS_OF_HEADER]))
                self.last[key] = None if entry.value is None else BudgetStates.FromString(entry.value)
            if result := condition():
                return result
        raise AssertionError(f"{what}: not within {within_s:.0f} s")

    def spent(self, tenant: str) -> int | None:
        """Of the tenant's only budget, None where it has none."""
        state = self.last.get(tenant)
        return None if state is None else state.budgets[0].spent_nano_usd

    def close(self) -> None:
        self._reader.close()


@pytest.fixture
def router(kafka: Kafka) -> Iterator[Router]:
    make_topics(kafka.address)
    made = Router(kafka.address)
    yield made
    made.close()


@contextmanager
def publishing(
    database: Database, rating: RatingService, address: str, clock: Callable[[], int] = time.time_ns
) -> Iterator[ActionsPublisher]:
    publisher = ActionsPublisher(database, rating, KafkaSettings(brokers=address), clock)
    publisher.start()
    yield publisher
    publisher.stop(10.0)


def charge(database: Database, rating: RatingService, tenant: str, calls: int) -> None:
    """Calls of COST each, charged now as a worker does."""
    rng = random.Random()
    now = time.time_ns()
    ingest = IngestService(database, rating, time.time_ns)
    ingest.start()
    try:
        given = [make_call(call_id(rng), at=now, tenant=tenant) for _ in range(calls)]
        assert ingest.ingest(batch(given)).accepted == calls
    finally:
        ingest.stop()


def test_states_follow_the_store(
    stores: Stores, rating: RatingService, router: Router, kafka: Kafka, tenant: str
) -> None:
    budgets = BudgetService(stores.app, time.time_ns)
    budgets.set("all", limit_nano_usd=LIMIT, tenant=tenant, thresholds=BLOCK)
    with stores.worker.write() as connection:
        assert positions.take(connection, CALLS, 2, 41)
        positions.advance(connection, CALLS, 2, 42, 1)
    with publishing(stores.worker, rating, kafka.address) as publisher:
        # At the start, without being asked.
        router.until("the state", lambda: router.spent(tenant) == 0)
        state = router.last[tenant]
        assert state is not None
        assert dict(state.positions) == {2: 42}
        [budget] = state.budgets
        assert (budget.name, budget.limit_nano_usd, budget.block_at_percent) == ("all", LIMIT, 100)
        # After a commit.
        charge(stores.worker, rating, tenant, 3)
        publisher.touched({tenant, "nobody"})
        router.until("the spend", lambda: router.spent(tenant) == 3 * COST)
        # When somebody else changes a budget.
        budgets.set("all", limit_nano_usd=2 * LIMIT, tenant=tenant, thresholds=BLOCK)
        router.until("the amount", lambda: _limits(router, tenant) == [2 * LIMIT])
        budgets.set("all", tenant=tenant, thresholds=(Threshold(100, Action.ALERT),))
        router.until("no block", lambda: not _blocks(router, tenant))
        budgets.delete("all", tenant)
        router.until("the tombstone", lambda: tenant in router.last and router.last[tenant] is None)
        budgets.set("again", limit_nano_usd=LIMIT, tenant=tenant, thresholds=BLOCK)
        router.until("the new one", lambda: router.spent(tenant) == 3 * COST)
        # And all the while it is heard to be alive.
        beats = len(router.moments.get("", ()))
        router.until("heartbeats", lambda: len(router.moments.get("", ())) > beats + 1)
        assert "nobody" not in router.last
        statistics = publisher.statistics()
        assert statistics.failures == {}
        assert statistics.tenants == 1
    assert router.moments[tenant] == sorted(router.moments[tenant])


def test_a_budget_without_an_amount_yet_limits_nothing_until_it_begins(
    tmp_path: Path, rating: RatingService, router: Router, kafka: Kafka, tenant: str
) -> None:
    """And what a period's end or an amount's beginning changes is said at that moment."""
    offset_ns = 0

    def clock() -> int:
        return time.time_ns() + offset_ns

    database = Database.open(file_url(tmp_path / "control.sqlite"))
    budgets = BudgetService(database, clock)
    start = clock()
    budgets.set(
        "all",
        limit_nano_usd=0,
        from_unix_ns=start + DAY_NS,
        tenant=tenant,
        period=Period.DAY,
        thresholds=BLOCK,
    )
    with publishing(database, rating, kafka.address, clock):
        router.until("the state", lambda: router.last.get(tenant))
        assert not _blocks(router, tenant)
        offset_ns = DAY_NS + 1_000_000_000
        router.until("the amount", lambda: _blocks(router, tenant))
        state = router.last[tenant]
        assert state is not None
        before = state.budgets[0].period_end_unix_ns
        offset_ns = before - time.time_ns() + 1_000_000_000
        router.until("the period's end", lambda: _period_end(router, tenant) > before)
    database.close()


def test_what_a_dead_worker_left_is_taken_back(
    tmp_path: Path, rating: RatingService, router: Router, kafka: Kafka, tenant: str
) -> None:
    """A budget deleted while no worker ran, a message out of order, and a tenant that came and went."""
    database = Database.open(file_url(tmp_path / "control.sqlite"))
    budgets = BudgetService(database, time.time_ns)
    budgets.set("all", limit_nano_usd=LIMIT, tenant=tenant, thresholds=BLOCK)
    with publishing(database, rating, kafka.address):
        router.until("the state", lambda: router.last.get(tenant))
    stale = router.last[tenant]
    assert stale is not None
    budgets.delete("all", tenant)
    with publishing(database, rating, kafka.address):
        router.until("the tombstone", lambda: router.last[tenant] is None)
        # A worker that was stopped in mid-work sends what it had read long ago.
        producer = Producer({"bootstrap.servers": kafka.address, "log_level": 0})
        headers: dict[str, str | bytes | None] = {AS_OF_HEADER: str(stale.as_of_unix_ns).encode()}
        producer.produce(ACTIONS, stale.SerializeToString(), tenant.encode(), headers=headers)
        assert producer.flush(30) == 0
        router.until("the stale state", lambda: router.last[tenant] is not None)
        router.until("the tombstone again", lambda: router.last[tenant] is None)
    database.close()


def test_every_book_is_said_once_whoever_starts(
    tmp_path: Path, rating: RatingService, router: Router, kafka: Kafka
) -> None:
    database = Database.open(file_url(tmp_path / "control.sqlite"))
    names = {*rating.book.catalogue, "azure.ai.openai", "gcp.gemini"}

    def all_said() -> bool:
        return all(router.versions.get(name) == rating.version for name in names)

    with publishing(database, rating, kafka.address):
        router.until("all books", all_said, 120)
    for name in ("openai", "azure.ai.openai"):
        form = router.books[name]
        assert form is not None
        book = book_from_json(orjson.loads(form))
        card, _ = book.find(name, ["gpt-4o"], "", time.time_ns())
        assert card is not None
    with publishing(database, rating, kafka.address) as publisher:
        router.until("heartbeats", lambda: publisher.statistics().heartbeats >= 2)
        assert publisher.statistics().books == 0
    database.close()


def test_a_broker_away_is_said_and_what_it_missed_comes_after(
    tmp_path: Path, rating: RatingService, own_kafka: Kafka, tenant: str
) -> None:
    make_topics(own_kafka.address)
    database = Database.open(file_url(tmp_path / "control.sqlite"))
    budgets = BudgetService(database, time.time_ns)
    budgets.set("all", limit_nano_usd=LIMIT, tenant=tenant, thresholds=BLOCK)
    router = Router(own_kafka.address)
    with publishing(database, rating, own_kafka.address) as publisher:
        router.until("the state", lambda: router.last.get(tenant))
        own_kafka.kill()
        budgets.set("all", limit_nano_usd=2 * LIMIT, tenant=tenant, thresholds=BLOCK)
        for _ in range(1000):
            publisher.touched({tenant})
        router.until("the trouble", lambda: publisher.statistics().failures, 60)
        assert publisher.statistics().last_error
        own_kafka.start()
        router.until("the amount", lambda: _limits(router, tenant) == [2 * LIMIT], 60)
        router.until("the end of the trouble", lambda: publisher.statistics().last_error == "")
    router.close()
    database.close()


def test_of_two_workers_the_later_reading_holds(
    stores: Stores, rating: RatingService, router: Router, kafka: Kafka, tenant: str
) -> None:
    """Two publish the same tenant while it is charged. By its moment, no state has less than one before."""
    BudgetService(stores.app, time.time_ns).set("all", limit_nano_usd=LIMIT, tenant=tenant, thresholds=BLOCK)
    said: list[tuple[int, int]] = []

    def look() -> bool:
        state = router.last.get(tenant)
        if state is not None:
            said.append((state.as_of_unix_ns, state.budgets[0].spent_nano_usd))
        return state is not None and state.budgets[0].spent_nano_usd == 20 * COST

    with (
        publishing(stores.worker, rating, kafka.address) as one,
        publishing(stores.worker, rating, kafka.address) as other,
    ):
        for number in range(20):
            charge(stores.worker, rating, tenant, 1)
            (one if number % 2 else other).touched({tenant})
        router.until("all of it", look)
        # What compaction keeps is the latest, whoever was overtaken, and mending it ends.
        router.until("the order", lambda: router.moments[tenant][-1] == max(router.moments[tenant]))
        assert one.statistics().states + other.statistics().states < 200
    spends = [spent for _, spent in sorted(set(said))]
    assert spends == sorted(spends)


def _limits(router: Router, tenant: str) -> list[int]:
    state = router.last.get(tenant)
    return [] if state is None else [budget.limit_nano_usd for budget in state.budgets]


def _blocks(router: Router, tenant: str) -> bool:
    state = router.last.get(tenant)
    return state is not None and any(budget.HasField("block_at_percent") for budget in state.budgets)


def _period_end(router: Router, tenant: str) -> int:
    state = router.last.get(tenant)
    return 0 if state is None else state.budgets[0].period_end_unix_ns
