"""Every call is charged once: resends, better observers, better usage, concurrent posts, bad neighbours."""

from __future__ import annotations

import random
import sqlite3
import uuid
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from mmpipeline.budgets.model import Action, Threshold
from mmpipeline.budgets.service import BudgetService
from mmpipeline.ingest.posts import IngestResult
from mmpipeline.ingest.service import IngestService, Overloaded, Undecodable
from mmpipeline.ingest.statistics import IngestStatistics, ingest_statistics
from mmpipeline.ingest.writer import WarehouseWriter
from mmpipeline.rating.rated import RatedCall
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import ledger, outbox, tables
from mmpipeline.store.control.database import Database, StoreBusy, file_url
from mmpipeline.store.control.ledger import LedgerTotals
from mmproto.v1.call_pb2 import OBSERVER_ROUTER, OBSERVER_SDK, OBSERVER_SENSOR, Call, Observer
from mmproto.v1.ingest_pb2 import IngestBatch
from mmproto.v1.routing_pb2 import RoutingDecision
from mmproto.v1.usage_pb2 import QUALITY_ESTIMATED, QUALITY_EXACT, QUALITY_PARTIAL, QUALITY_UNKNOWN, Quality
from tests.pipeline.blocks import rows_in
from tests.pipeline.calls import COST, NOW, batch, call_id, make_call
from tests.pipeline.stores import Stores

RATING = RatingService.open()
IDS = [call_id(random.Random(number)) for number in range(20)]


@dataclass
class MemorySink:
    """What the warehouse promises: a token that is inserted again changes nothing."""

    batches: dict[str, list[RatedCall]] = field(default_factory=dict)

    def insert_blocks(self, blocks: Sequence[bytes], token: str) -> None:
        self.batches.setdefault(token, rows_in(blocks))

    def rows(self) -> list[RatedCall]:
        return [row for rows in self.batches.values() for row in rows]


@dataclass
class Pipeline:
    """Ingest with all behind it, over a store of its own."""

    store: Database
    ingest: IngestService
    budgets: BudgetService
    sink: MemorySink
    writer: WarehouseWriter
    # What the store held before.
    before: LedgerTotals

    def post(self, *calls: Call) -> IngestResult:
        return self.ingest.ingest(batch(calls))

    def check(self, calls: int, cost: int, unpriced: int = 0) -> None:
        """Ledger, kept sums, outbox and budgets all say the same, besides what was there before."""
        before = self.before
        expected = LedgerTotals(
            before.calls + calls, before.cost_nano_usd + cost, before.unpriced_calls + unpriced
        )
        with self.store.read("default") as connection:
            assert ledger.summed(connection) == expected
            assert ledger.totals(connection) == expected
        self.writer.drain()
        rows = self.sink.rows()
        assert sum(row.sign for row in rows) == calls
        assert sum(row.sign * (row.cost_nano_usd or 0) for row in rows) == cost
        assert sum(row.sign for row in rows if row.cost_nano_usd is None) == unpriced
        for status in self.budgets.list("default", at_unix_ns=NOW):
            if not status.budget.scope:
                assert LedgerTotals(status.calls, status.spent_nano_usd, status.unpriced_calls) == expected

    @property
    def statistics(self) -> IngestStatistics:
        return ingest_statistics(self.store, "default")


@contextmanager
def pipeline(stores: Stores) -> Iterator[Pipeline]:
    store = stores.worker
    budgets = BudgetService(stores.app, lambda: NOW)
    budgets.set("everything", limit_nano_usd=10**12)
    ingest = IngestService(store, RATING, lambda: NOW)
    sink = MemorySink()
    writer = WarehouseWriter(store, lambda _: sink, max_rows=7)
    with store.read("default") as connection:
        before = ledger.summed(connection)
    ingest.start()
    try:
        yield Pipeline(store, ingest, budgets, sink, writer, before)
    finally:
        ingest.stop()


@pytest.fixture
def running(stores: Stores) -> Iterator[Pipeline]:
    with pipeline(stores) as made:
        yield made


def test_a_resent_batch_changes_nothing(running: Pipeline) -> None:
    calls = [make_call(identity) for identity in IDS[:5]]
    assert running.post(*calls).accepted == 5
    assert running.post(*calls).duplicates == 5
    again = running.post(calls[2], calls[2], make_call(IDS[6]))
    assert (again.accepted, again.duplicates) == (1, 2)
    running.check(6, 6 * COST)


def test_a_better_observer_takes_the_call_over(running: Pipeline) -> None:
    running.post(make_call(IDS[0], team="guessed", observer=OBSERVER_SENSOR))
    running.post(make_call(IDS[0], team="known", observer=OBSERVER_ROUTER))
    running.post(make_call(IDS[0], team="guessed", observer=OBSERVER_SENSOR))
    running.check(1, COST)
    rows = running.sink.rows()
    assert [(row.sign, row.call.team) for row in rows] == [(1, "guessed"), (-1, "guessed"), (1, "known")]


def test_a_router_that_lost_the_usage_keeps_the_attribution_only(running: Pipeline) -> None:
    seen = make_call(IDS[0], response_model="gpt-4o-2024-08-06")
    routed = make_call(IDS[0], team="known", observer=OBSERVER_ROUTER, quality=QUALITY_UNKNOWN, tokens={})
    for order, identity in enumerate(IDS[1:3]):
        pair = [_copy(seen, identity), _copy(routed, identity)]
        for call in pair if order else reversed(pair):
            running.post(call)
    running.check(2, 2 * COST)
    live = [r for r in running.sink.rows() if r.sign == 1 and r.cost_nano_usd is not None and r.call.team]
    assert [r.call.response_model for r in live] == ["gpt-4o-2024-08-06"] * 2


reports = st.tuples(
    st.sampled_from(IDS[:3]),
    st.sampled_from([OBSERVER_SENSOR, OBSERVER_SDK, OBSERVER_ROUTER]),
    st.sampled_from([QUALITY_UNKNOWN, QUALITY_ESTIMATED, QUALITY_PARTIAL, QUALITY_EXACT]),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(reports, min_size=1, max_size=10), st.randoms(use_true_random=False), st.integers(1, 4))
def test_the_outcome_does_not_depend_on_order_or_pieces(
    stores: Stores,
    given_reports: list[tuple[str, Observer, Quality]],
    rng: random.Random,
    pieces: int,
) -> None:
    # What a report says is a function of who made it and how good it is, as with real observers.
    calls = [
        make_call(
            identity,
            observer=observer,
            quality=quality,
            team=f"by-{observer}",
            tokens={} if quality == QUALITY_UNKNOWN else {"input": 1000 * quality},
        )
        for identity, observer, quality in given_reports
    ]
    outcomes = []
    for _ in range(2):
        rng.shuffle(calls)
        fresh: defaultdict[str, str] = defaultdict(lambda: str(uuid.uuid4()))
        with pipeline(stores) as made:
            renamed = [_copy(call, fresh[call.id]) for call in calls]
            for start in range(0, len(calls), pieces):
                made.post(*renamed[start : start + pieces])
            made.writer.drain()
            names = {new: old for old, new in fresh.items()}
            kept: dict[tuple[str, str, int | None], int] = {}
            for row in made.sink.rows():
                key = (names[row.call.id], row.call.team, row.cost_nano_usd)
                kept[key] = kept.get(key, 0) + row.sign
            outcomes.append({key for key, sign in kept.items() if sign})
            assert all(sign in (0, 1) for sign in kept.values())
            held = [cost for (_, _, cost), sign in kept.items() if sign]
            assert len(held) == len({call.id for call in calls})
            made.check(len(held), sum(cost or 0 for cost in held), held.count(None))
    assert outcomes[0] == outcomes[1]


def _copy(call: Call, identity: str) -> Call:
    copy = Call()
    copy.CopyFrom(call)
    copy.id = identity
    return copy


def test_concurrent_posts_of_the_same_calls(running: Pipeline) -> None:
    calls = [make_call(call_id(random.Random(n)), team=f"t{n % 3}") for n in range(200)]
    rng = random.Random(5)
    shares = [rng.sample(calls, 60) for _ in range(12)] + [calls]
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(lambda share: running.post(*share), shares))
    assert sum(result.accepted for result in results) == 200
    running.check(200, 200 * COST)


BAD = {
    "bad_id": make_call("not-a-uuid"),
    "negative_count": make_call(IDS[10], tokens={"input": -1}),
    "absurd_count": make_call(IDS[11], tokens={"input": 10**12}),
    "too_many_buckets": make_call(IDS[12], tokens={f"b{n}": 1 for n in range(100)}),
}
BAD["not_a_number"] = make_call(IDS[13])
BAD["not_a_number"].usage.units["web_searches"] = float("nan")


@pytest.mark.parametrize("reason", sorted(BAD))
def test_a_bad_call_is_rejected_by_name_and_its_neighbours_are_not(running: Pipeline, reason: str) -> None:
    result = running.post(make_call(IDS[0]), BAD[reason], make_call(IDS[1]))
    assert [(r.id, r.reason) for r in result.rejected] == [(BAD[reason].id, reason)]
    assert result.accepted == 2
    assert running.statistics.counters[f"rejected:{reason}"] == 1
    running.check(2, 2 * COST)


def test_a_bad_report_replaces_nothing(running: Pipeline) -> None:
    running.post(make_call(IDS[0]))
    worse = make_call(IDS[0], observer=OBSERVER_ROUTER, tokens={"input": -5})
    assert [r.reason for r in running.post(worse).rejected] == ["negative_count"]
    running.check(1, COST)


def test_a_clock_that_cannot_be_right_is_replaced_and_counted(running: Pipeline) -> None:
    days = 86_400 * 10**9
    running.post(make_call(IDS[0], at=NOW + 400 * days), make_call(IDS[1], at=0), make_call(IDS[2], at=-5))
    assert running.statistics.counters["adjusted:clock"] == 3
    running.check(3, 3 * COST)  # all of them in the budget's current month


def test_absurd_texts_and_durations_are_cut_and_counted(running: Pipeline) -> None:
    call = make_call(IDS[0], team="x" * 100_000)
    call.duration_s = float("nan")
    call.time_to_first_token_s = -1
    running.post(call)
    running.check(1, COST)
    kept = running.sink.rows()[0].call
    assert len(kept.team) == 1024
    assert not kept.HasField("duration_s")
    assert not kept.HasField("time_to_first_token_s")
    counters = running.statistics.counters
    assert (counters["adjusted:text"], counters["adjusted:duration"]) == (1, 2)


def test_calls_without_a_price_are_counted_and_alerted_once(running: Pipeline) -> None:
    for identity in IDS[:4]:
        running.post(make_call(identity, request_model="gpt-99"))
    running.check(4, 0, unpriced=4)
    unpriced = running.statistics.unpriced
    assert [(u.provider, u.model, u.reason, u.calls) for u in unpriced] == [
        ("openai", "gpt-99", "unknown_model", 4)
    ]
    assert [a.kind for a in running.budgets.alerts()] == ["unpriced_model"]


def test_an_undecodable_post_is_answered_and_counted(running: Pipeline) -> None:
    with pytest.raises(Undecodable):
        running.ingest.submit(b"\xff\xff\xff").result(10)
    running.post(make_call(IDS[0]))
    assert running.statistics.counters["undecodable"] == 1


def test_a_client_that_went_away_ends_nothing(tmp_path: Path) -> None:
    store = Database.open(file_url(tmp_path / "control.sqlite"))
    ingest = IngestService(store, RATING, lambda: NOW)
    bodies = [b"\xff\xff", batch([make_call(IDS[0])]).SerializeToString()]
    for future in [ingest.submit(body) for body in bodies]:
        assert future.cancel()
    ingest.start()
    assert ingest.ingest(batch([make_call(IDS[0]), make_call(IDS[1])])).accepted == 1
    ingest.stop()
    store.close()


def test_a_store_that_cannot_write_is_said_and_tried_again(tmp_path: Path) -> None:
    file = tmp_path / "control.sqlite"
    store = Database.open(file_url(file))
    ingest = IngestService(store, RATING, lambda: NOW)
    ingest.start()
    with sqlite3.connect(file, isolation_level=None) as other:
        other.execute("ALTER TABLE charges RENAME TO elsewhere")
        with pytest.raises(StoreBusy, match="charges"):
            ingest.submit(batch([make_call(IDS[0])]).SerializeToString()).result(10)
        other.execute("ALTER TABLE elsewhere RENAME TO charges")
    other.close()
    assert ingest.ingest(batch([make_call(IDS[0])])).accepted == 1
    ingest.stop()
    store.close()


def test_too_much_waiting_is_refused_not_kept(tmp_path: Path) -> None:
    store = Database.open(file_url(tmp_path / "control.sqlite"))
    idle = IngestService(store, RATING, lambda: NOW, max_waiting_bytes=100)  # never started
    idle.submit(b"x" * 90)
    with pytest.raises(Overloaded):
        idle.submit(b"x" * 20)
    store.close()


def test_routing_decisions_are_recorded_once(running: Pipeline) -> None:
    decision = RoutingDecision(
        id=IDS[0], outcome=RoutingDecision.OUTCOME_BUDGET_BLOCKED, budget_id="b", decided_at_unix_ns=NOW
    )
    for _ in range(2):
        running.ingest.ingest(IngestBatch(routing_decisions=[decision]))
    with running.store.read("default") as connection:
        assert connection.execute(select(func.count()).select_from(tables.routing_decisions)).scalar() == 1


def test_thresholds_are_crossed_once_each(running: Pipeline) -> None:
    running.budgets.set(
        "team-a",
        limit_nano_usd=4 * COST,
        scope={"team": "a"},
        thresholds=(Threshold(50, Action.ALERT), Threshold(80, Action.ALERT), Threshold(100, Action.BLOCK)),
    )
    seen = []
    for identity in IDS[:5]:
        running.post(make_call(identity, team="a"))
        status = running.budgets.get("team-a")
        seen.append(([c.percent for c in status.crossings], status.blocked))
    assert seen == [
        ([], False),
        ([50], False),
        ([50], False),
        ([50, 80, 100], True),
        ([50, 80, 100], True),
    ]
    assert [c.spent_nano_usd for c in running.budgets.get("team-a").crossings] == [
        2 * COST,
        4 * COST,
        4 * COST,
    ]
    assert len([a for a in running.budgets.alerts() if a.kind == "budget_threshold"]) == 3


def test_batches_are_sealed_once_and_repeated_as_they_were(running: Pipeline) -> None:
    for start in range(0, 20, 4):
        running.post(*(make_call(identity) for identity in IDS[start : start + 4]))
    first = _seal(running.store, 7)
    running.post(make_call(call_id(random.Random(99))))
    assert first is not None
    assert _seal(running.store, 1000) == first
    tokens, rows = [], 0
    while (sealed := _seal(running.store, 7)) is not None:
        tokens.append(sealed.token)
        rows += sealed.rows
        with running.store.write() as connection:
            outbox.delivered(connection, sealed)
    assert len(set(tokens)) == len(tokens) == 5
    assert all(token.startswith(f"{running.store.store_id}--1-") for token in tokens)
    assert rows == 21


def _seal(store: Database, max_rows: int) -> outbox.Batch | None:
    with store.write() as connection:
        return outbox.seal(connection, store.store_id, outbox.HTTP_LANE, max_rows)
