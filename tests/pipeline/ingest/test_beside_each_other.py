"""Several processes charge at once on PostgreSQL, late and replayed events, days and tenants that meet."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import func, select, text

from mmpipeline.budgets.model import BudgetStatus
from mmpipeline.budgets.service import BudgetService
from mmpipeline.ingest.ledgering import DEAD_LETTERS, Ledgering, PositionMoved
from mmpipeline.ingest.posts import IngestResult, Lane, Post
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import ledger, outbox, positions, tables
from mmpipeline.store.control.database import Database, StoreBusy
from mmpipeline.store.control.ledger import DAY_NS, LedgerTotals
from mmproto.v1.call_pb2 import OBSERVER_ROUTER, OBSERVER_SENSOR, Call
from mmproto.v1.usage_pb2 import QUALITY_ESTIMATED, QUALITY_EXACT
from tests.pipeline.calls import COST, NOW, batch, call_id, make_call
from tests.pipeline.stores import MakeStores, Stores

RATING = RatingService.open()
TOPIC = "modelmeter.calls.v1"
IDS = [call_id(random.Random(number)) for number in range(20)]
MIDNIGHT = NOW // DAY_NS * DAY_NS


def _write(database: Database, *calls: Call, now: int = NOW) -> IngestResult:
    post = Post(batch(calls))
    Ledgering(database, RATING).write([post], now)
    return post.result


def _summed(database: Database, tenant: str = "default") -> LedgerTotals:
    with database.read(tenant) as connection:
        return ledger.summed(connection, tenant)


def test_workers_that_charge_overlapping_batches_charge_each_call_once(stores: Stores) -> None:
    """Four workers, the same calls by two observers in other orders, around midnight, of two tenants."""
    rng = random.Random(7)
    services = {name: BudgetService(stores.app, lambda: NOW) for name in ("a", "b")}
    for tenant, service in services.items():
        service.set("all", tenant=tenant, limit_nano_usd=10**12)
        service.set("team", tenant=tenant, limit_nano_usd=100 * COST, scope={"team": "x"})
    calls = []
    tokens = {}
    for _ in range(300):
        identity = call_id(rng)
        tokens[identity] = rng.randrange(1, 10**6)
        at = MIDNIGHT + rng.randrange(-5, 5) * 10**9 if rng.random() < 0.5 else NOW
        common = {"tokens": {"input": tokens[identity]}, "team": rng.choice("xy"), "tenant": rng.choice("ab")}
        calls.append(make_call(identity, at=at, **common))  # type: ignore[arg-type]
        if rng.random() < 0.5:  # the router's clock says another second, and at times another day
            shifted = at + rng.randrange(-8, 8) * 10**9
            routed = make_call(identity, at=shifted, observer=OBSERVER_ROUTER, **common)  # type: ignore[arg-type]
            calls.append(routed)
    shares = []
    for _ in range(4):
        mine = calls * 1
        rng.shuffle(mine)
        shares.append([mine[start : start + 40] for start in range(0, len(mine), 40)])
    ready = threading.Barrier(4)

    def work(share: Sequence[Sequence[Call]]) -> int:
        ledgering = Ledgering(stores.worker, RATING)
        ready.wait()
        for part in share:
            for _ in range(50):
                try:
                    ledgering.write([Post(batch([_copy(call) for call in part]))], NOW)
                    break
                except StoreBusy:
                    continue
            else:
                raise AssertionError("the store was busy fifty times")
        return len(share)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, shares))
    cost = sum(n * 2500 for n in tokens.values())
    by_tenant = [_summed(stores.worker, tenant) for tenant in "ab"]
    assert sum(sums.calls for sums in by_tenant) == 300
    assert sum(sums.cost_nano_usd for sums in by_tenant) == cost
    with stores.worker.read() as connection:
        assert ledger.totals(connection) == LedgerTotals(300, cost, 0)
        holding = select(func.count(), func.count(tables.call_ids.c.id.distinct()))
        assert tuple(connection.execute(holding.where(tables.call_ids.c.seq > 0)).one()) == (300, 300)
    spent = sum(_in_both_days(services[tenant], tenant, "all") for tenant in "ab")
    assert spent == cost


def _in_both_days(service: BudgetService, tenant: str, name: str) -> int:
    statuses: list[BudgetStatus] = service.list(tenant)
    return next(status.spent_nano_usd for status in statuses if status.budget.name == name)


def _copy(call: Call) -> Call:
    copy = Call()
    copy.CopyFrom(call)
    return copy


@pytest.mark.parametrize("first", [-1, 1])
def test_the_same_call_on_two_days_is_one(stores: Stores, first: int) -> None:
    times = [MIDNIGHT + first * 10**9, MIDNIGHT - first * 10**9]
    assert _write(stores.worker, make_call(IDS[0], at=times[0])).accepted == 1
    assert _write(stores.worker, make_call(IDS[0], at=times[1])).duplicates == 1
    routed = make_call(IDS[0], at=times[1], observer=OBSERVER_ROUTER)
    assert _write(stores.worker, routed).accepted == 1
    assert _summed(stores.worker) == LedgerTotals(1, COST, 0)


def test_two_workers_that_claim_a_call_on_two_days_at_once_charge_it_once(stores: Stores) -> None:
    for identity in IDS[:8]:
        ready = threading.Barrier(2)

        def write(at: int, identity: str = identity, ready: threading.Barrier = ready) -> IngestResult:
            ready.wait()
            return _write(stores.worker, make_call(identity, at=at))

        with ThreadPoolExecutor(2) as threads:
            results = list(threads.map(write, (MIDNIGHT - 1, MIDNIGHT + 1)))
        assert sorted(result.accepted for result in results) == [0, 1]
    assert _summed(stores.worker) == LedgerTotals(8, 8 * COST, 0)


def test_a_replayed_call_whose_clock_is_wrong_is_one(stores: Stores) -> None:
    for days in (0, 1, 5, 30):
        _write(stores.worker, make_call(IDS[0], at=5), now=NOW - (30 - days) * DAY_NS)
    assert _summed(stores.worker) == LedgerTotals(1, COST, 0)


def test_late_events_count_in_the_day_they_are_of(stores: Stores) -> None:
    service = BudgetService(stores.app, lambda: NOW)
    service.set("all", limit_nano_usd=10**12)
    _write(stores.worker, make_call(IDS[0], at=NOW - 40 * DAY_NS), make_call(IDS[1]))
    assert service.get("all").spent_nano_usd == COST
    (then,) = service.list("default", NOW - 40 * DAY_NS)
    assert then.spent_nano_usd == COST


def test_a_better_report_moves_a_call_to_another_tenant(stores: Stores) -> None:
    """With all that was counted for the first."""
    service = BudgetService(stores.app, lambda: NOW)
    for tenant in ("a", "b"):
        service.set("all", tenant=tenant, limit_nano_usd=10**12)
    guess = {"input": 500}
    _write(stores.worker, make_call(IDS[0], tenant="b", tokens=guess, quality=QUALITY_ESTIMATED))
    both = [
        make_call(IDS[0], tenant="a", observer=OBSERVER_ROUTER, quality=QUALITY_EXACT),
        make_call(IDS[1], tenant="a", observer=OBSERVER_SENSOR),
    ]
    assert _write(stores.worker, *both).accepted == 2
    assert _summed(stores.worker, "a") == LedgerTotals(2, 2 * COST, 0)
    assert _summed(stores.worker, "b") == LedgerTotals(0, 0, 0)
    assert [service.get("all", tenant).spent_nano_usd for tenant in ("a", "b")] == [2 * COST, 0]
    assert _write(stores.worker, *both).duplicates == 2


def test_calls_from_before_the_horizon_are_refused_by_name(stores: Stores) -> None:
    _write(stores.worker, make_call(IDS[0], at=NOW - 3 * DAY_NS))
    horizon = NOW // DAY_NS - 2
    _owner_sets_horizon(stores, horizon)
    result = _write(
        stores.worker,
        make_call(IDS[0], at=NOW - 3 * DAY_NS),  # a duplicate that is known still
        make_call(IDS[1], at=NOW - 2 * DAY_NS),
        make_call(IDS[2], at=NOW - DAY_NS),
    )
    assert (result.accepted, result.duplicates) == (1, 1)
    assert [(r.id, r.reason) for r in result.rejected] == [(IDS[1], "too_late")]
    with stores.app.read() as connection:
        assert ledger.counters(connection)["rejected:too_late"] == 1


def _owner_sets_horizon(stores: Stores, day: int) -> None:
    made = text("INSERT INTO meta VALUES ('ids_from_day', :day)")
    if stores.owner is None:
        with stores.worker.write() as connection:
            connection.execute(made, {"day": str(day)})
        return
    with stores.owner.begin() as connection:
        connection.execute(text("SET LOCAL ROLE modelmeter_owner"))
        connection.execute(made, {"day": str(day)})


def test_texts_with_nul_are_corrected_not_refused(stores: Stores) -> None:
    call = make_call(IDS[0], team="a\0b", request_model="gpt\x004o")
    assert _write(stores.worker, call, make_call(IDS[1])).accepted == 2
    with stores.worker.read("default") as connection:
        assert ledger.counters(connection)["adjusted:text"] == 1
        teams = connection.execute(select(tables.charges.c.team)).scalars().all()
    assert sorted(teams) == ["", "a\ufffdb"]


def test_odd_texts_come_back_as_they_went(stores: Stores) -> None:
    odd = ['"', "\\", "{a,b}", "NULL", "%s", "'; --", "\u00fc\U0001f600", " ", ",", "None"]
    calls = [make_call(str(uuid.uuid4()), team=text_) for text_ in odd]
    _write(stores.worker, *calls)
    with stores.worker.read("default") as connection:
        teams = connection.execute(select(tables.charges.c.team)).scalars().all()
    assert sorted(teams) == sorted(odd)


def test_a_position_moves_with_the_charges_and_only_from_where_it_was(stores: Stores) -> None:
    ledgering = Ledgering(stores.worker, RATING)
    posts = [Post(batch([make_call(IDS[n])]), lane=n % 2, offset=10 + n) for n in range(4)]
    ledgering.write(posts, NOW, [Lane(TOPIC, 0, 10, 14), Lane(TOPIC, 1, 11, 14)])
    with stores.app.read() as connection:
        assert positions.all_of(connection, TOPIC) == {0: 14, 1: 14}
    # Somebody who was asleep, with an old idea of where partition 1 is.
    late = [Post(batch([make_call(IDS[5])]), lane=0, offset=14)]
    with pytest.raises(PositionMoved) as moved:
        ledgering.write(late, NOW, [Lane(TOPIC, 0, 14, 15), Lane(TOPIC, 1, 11, 14)])
    assert moved.value.lane.partition == 1
    with stores.app.read() as connection:
        assert positions.all_of(connection, TOPIC) == {0: 14, 1: 14}
    assert _summed(stores.worker).calls == 4
    with stores.worker.write() as connection:
        for lane in (0, 1):
            sealed = outbox.seal(connection, stores.worker.store_id, lane, 100)
            assert sealed is not None
            assert sealed.rows == 2
            assert sealed.token.startswith(f"{stores.worker.store_id}-{lane}-{10 + lane}-{12 + lane}-")


def test_two_workers_with_one_partition_charge_it_once(stores: Stores) -> None:
    ready = threading.Barrier(2)

    def write(number: int) -> bool:
        ready.wait()
        post = Post(batch([make_call(IDS[number])]), lane=3, offset=0)
        try:
            Ledgering(stores.worker, RATING).write([post], NOW, [Lane(TOPIC, 3, 0, 1)])
        except PositionMoved:
            return False
        return True

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(write, (0, 1))) == [False, True]
    assert _summed(stores.worker).calls == 1


def test_what_is_put_aside_is_counted_or_ends_the_transaction(stores: Stores) -> None:
    ledgering = Ledgering(stores.worker, RATING)
    good, bad = Post(batch([make_call(IDS[0])])), Post(batch([make_call("no-uuid")]))
    aside: list[tuple[Post, str]] = []

    def put_aside(refused: Sequence[tuple[Post, str]]) -> int:
        aside.extend(refused)
        return len(refused)

    def full(refused: Sequence[tuple[Post, str]]) -> int:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        ledgering.write([good, bad], NOW, put_aside=full)
    assert _summed(stores.worker).calls == 0
    ledgering.write([good, bad], NOW, put_aside=put_aside)
    assert [(post is bad, reason) for post, reason in aside] == [(True, "bad_id")]
    with stores.app.read() as connection:
        assert ledger.counters(connection)[DEAD_LETTERS] == 1


def test_stores_of_their_own_share_nothing(make_stores: MakeStores) -> None:
    one, other = make_stores(), make_stores()
    _write(one.worker, make_call(IDS[0]))
    assert _summed(other.worker).calls == 0
