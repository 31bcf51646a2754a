"""Budgets: what they cover, when they start to count, what changing them does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from mmpipeline.budgets.matching import CallScope, fits
from mmpipeline.budgets.model import Action, Amount, Budget, Threshold
from mmpipeline.budgets.periods import Period
from mmpipeline.budgets.service import BudgetError, BudgetService, UnknownBudget
from mmpipeline.budgets.watch import AmountWatch
from mmpipeline.ingest.service import IngestService
from mmpipeline.rating.service import RatingService
from mmproto.callform import parse_time
from mmproto.v1.call_pb2 import OBSERVER_ROUTER, Call
from tests.pipeline.calls import COST, NOW, batch, call_id, make_call
from tests.pipeline.stores import Stores

RATING = RatingService.open()
RNG = random.Random(3)


class Bench:
    """Ingest by a worker and budgets by the app over one store, with a clock that the test moves."""

    def __init__(self, stores: Stores) -> None:
        self.stores = stores
        self.now = NOW
        self.budgets = BudgetService(stores.app, lambda: self.now)
        self.ingest = IngestService(stores.worker, RATING, lambda: self.now)

    def spend(self, calls: int, **fields: Any) -> None:
        at = fields.pop("at", self.now)
        made = [make_call(call_id(RNG), at=at, **fields) for _ in range(calls)]
        assert self.ingest.ingest(batch(made)).accepted == calls

    def spent(self, name: str) -> int:
        return self.budgets.get(name).spent_nano_usd // COST


@pytest.fixture
def bench(stores: Stores) -> Iterator[Bench]:
    made = Bench(stores)
    made.ingest.start()
    yield made
    made.ingest.stop()


def test_scopes_narrow_what_is_counted(bench: Bench) -> None:
    for name, scope in {
        "all": {},
        "team": {"team": "a"},
        "unallocated": {"team": ""},
        "app": {"team": "a", "application": "web"},
        "user": {"user": "u"},
        "key": {"key": "k"},
        "asked": {"model": "gpt-4o"},
        "served": {"model": "gpt-4o-2024-08-06"},
    }.items():
        bench.budgets.set(name, limit_nano_usd=10**12, scope=scope)
    bench.spend(1, team="a")
    bench.spend(2, team="a", application="web")
    bench.spend(4, team="b", application="web", user="u")
    bench.spend(8, virtual_key_id="k", response_model="gpt-4o-2024-08-06")
    counted = {name: bench.spent(name) for name in ("all", "team", "unallocated", "app", "user", "key")}
    assert counted == {"all": 15, "team": 3, "unallocated": 8, "app": 2, "user": 4, "key": 8}
    assert (bench.spent("asked"), bench.spent("served")) == (15, 8)


def test_tenants_do_not_see_each_other(bench: Bench) -> None:
    bench.budgets.set("x", limit_nano_usd=1, tenant="other")
    bench.budgets.set("x", limit_nano_usd=10**12)
    bench.spend(2, tenant="other")
    bench.spend(1)
    assert bench.spent("x") == 1
    assert bench.budgets.get("x", "other").spent_nano_usd == 2 * COST
    assert [s.budget.tenant for s in bench.budgets.list("other")] == ["other"]


def test_a_budget_starts_from_what_the_period_has_spent(bench: Bench) -> None:
    bench.spend(3, team="a")
    status = bench.budgets.set("late", limit_nano_usd=3 * COST, scope={"team": "a"})
    assert status.spent_nano_usd == 3 * COST
    assert [c.percent for c in status.crossings] == [50, 80, 100]
    bench.spend(1, team="a")
    assert bench.spent("late") == 4


def test_recounting_heeds_what_was_taken_back(bench: Bench) -> None:
    identity = call_id(RNG)
    for call in (
        make_call(identity, team="a"),
        make_call(identity, team="b", observer=OBSERVER_ROUTER),
    ):
        bench.ingest.ingest(batch([call]))
    bench.budgets.set("a", limit_nano_usd=10**12, scope={"team": "a"})
    bench.budgets.set("b", limit_nano_usd=10**12, scope={"team": "b"})
    assert (bench.spent("a"), bench.spent("b")) == (0, 1)
    assert bench.budgets.get("a").calls == 0


def test_moving_a_budget_to_another_scope_or_period_recounts_it(bench: Bench) -> None:
    bench.spend(3, team="a")
    bench.spend(5, team="b")
    bench.budgets.set("x", limit_nano_usd=10**12, scope={"team": "a"})
    assert bench.budgets.set("x", limit_nano_usd=10**12, scope={"team": "b"}).calls == 5
    bench.now = parse_time("2026-11-24T10:00:00Z")
    assert bench.budgets.set("x", limit_nano_usd=1, scope={"team": "b"}, period=Period.DAY).calls == 0
    assert bench.budgets.set("x", limit_nano_usd=1, scope={"team": "b"}, period=Period.YEAR).calls == 5


def test_a_call_counts_in_the_period_in_which_it_started(bench: Bench) -> None:
    bench.budgets.set("daily", limit_nano_usd=10**12, period=Period.DAY)
    late = make_call(call_id(RNG), at=parse_time("2026-11-22T23:59:59.999999999Z"))
    bench.ingest.ingest(batch([late]))
    bench.spend(1)
    assert bench.spent("daily") == 1
    (yesterday,) = bench.budgets.list("default", late.started_at_unix_ns)
    assert yesterday.spent_nano_usd == COST


def test_a_block_ends_with_the_period(bench: Bench) -> None:
    bench.budgets.set(
        "cap", limit_nano_usd=2 * COST, period=Period.DAY, thresholds=(Threshold(100, Action.BLOCK),)
    )
    bench.spend(2)
    assert bench.budgets.get("cap").blocked
    bench.now = bench.budgets.get("cap").resets_at_unix_ns
    status = bench.budgets.get("cap")
    assert not status.blocked
    assert (status.spent_nano_usd, status.crossings) == (0, ())
    bench.spend(2)
    assert [c.percent for c in bench.budgets.get("cap").crossings] == [100]


def test_raising_a_limit_releases_and_crosses_again(bench: Bench) -> None:
    bench.budgets.set("cap", limit_nano_usd=2 * COST, thresholds=(Threshold(100, Action.BLOCK),))
    bench.spend(2)
    raised = bench.budgets.set("cap", limit_nano_usd=4 * COST, thresholds=(Threshold(100, Action.BLOCK),))
    assert (raised.blocked, raised.crossings) == (False, ())
    bench.spend(2)
    assert bench.budgets.get("cap").blocked
    assert len(bench.budgets.alerts()) == 2


def test_a_limit_of_nothing_blocks_at_once(bench: Bench) -> None:
    status = bench.budgets.set("none", limit_nano_usd=0, thresholds=(Threshold(100, Action.BLOCK),))
    assert status.blocked
    assert status.percent == 100.0


def test_calls_without_a_price_stand_beside_the_spend(bench: Bench) -> None:
    bench.budgets.set("x", limit_nano_usd=10**12)
    bench.spend(2, request_model="gpt-99")
    bench.spend(1)
    status = bench.budgets.get("x")
    assert (status.calls, status.unpriced_calls, status.spent_nano_usd) == (3, 2, COST)


def test_deleting_forgets_the_budget_and_not_the_calls(bench: Bench) -> None:
    bench.budgets.set("x", limit_nano_usd=10**12)
    bench.spend(1)
    bench.budgets.delete("x")
    bench.spend(1)
    with pytest.raises(UnknownBudget, match="there are: none"):
        bench.budgets.get("x")
    assert bench.budgets.set("x", limit_nano_usd=10**12).calls == 2


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("", {}),
        ("a b", {}),
        ("../x", {}),
        ("x", {"limit_nano_usd": -1}),
        ("x", {"limit_nano_usd": 10**19}),
        ("x", {"tenant": ""}),
        ("x", {"scope": {"tean": "a"}}),
        ("x", {"thresholds": (Threshold(0, Action.ALERT),)}),
        ("x", {"thresholds": (Threshold(50, Action.ALERT), Threshold(50, Action.BLOCK))}),
    ],
)
def test_what_makes_no_sense_is_refused(bench: Bench, name: str, settings: dict[str, object]) -> None:
    with pytest.raises(BudgetError):
        bench.budgets.set(name, **({"limit_nano_usd": 1} | settings))  # type: ignore[arg-type]
    assert bench.budgets.list("default") == []


def test_matching_needs_all_that_a_budget_names() -> None:
    budget = Budget("id", "x", "t", {"team": "a", "model": "m"}, Period.DAY)
    scope = CallScope("t", "a", "", "", "m", "m-2026", "")
    assert fits(budget, scope)
    assert not fits(budget, scope._replace(team="b"))
    assert not fits(budget, scope._replace(request_model="n"))
    assert not fits(budget, scope._replace(tenant="other"))


def test_a_free_call_is_counted_at_no_cost(bench: Bench) -> None:
    bench.budgets.set("x", limit_nano_usd=1)
    failed = Call()
    failed.CopyFrom(make_call(call_id(RNG)))
    failed.billable = False
    bench.ingest.ingest(batch([failed]))
    status = bench.budgets.get("x")
    assert (status.calls, status.spent_nano_usd, status.unpriced_calls) == (1, 0, 0)


@pytest.mark.parametrize("team", ["\ud800", "x" * 1025])
def test_a_scope_that_no_call_can_have_is_refused(bench: Bench, team: str) -> None:
    with pytest.raises(BudgetError, match="the team of a scope"):
        bench.budgets.set("impossible", limit_nano_usd=1, scope={"team": team})
    assert bench.budgets.list("default") == []


def test_setting_and_removing_one_budget_from_many_threads_never_fails_for_a_race(bench: Bench) -> None:
    def set_it(limit: int) -> int:
        limit_set = bench.budgets.set("contended", limit_nano_usd=limit).limit_nano_usd
        assert limit_set is not None
        return limit_set

    def remove_it(_: int) -> None:
        with suppress(UnknownBudget):
            bench.budgets.delete("contended")

    with ThreadPoolExecutor(6) as pool:
        wishes = [pool.submit(remove_it if n % 3 == 0 else set_it, n) for n in range(90)]
        answers = [wish.result() for wish in wishes]
    assert answers == [None if n % 3 == 0 else n for n in range(90)]
    assert len(bench.budgets.list("default")) <= 1


def test_a_period_begins_where_the_zones_day_does(bench: Bench) -> None:
    # 18:15 UTC is midnight in Kathmandu.
    bench.spend(1, at=parse_time("2026-11-22T18:14:59.999999999Z"))
    bench.spend(2, at=parse_time("2026-11-22T18:15:00Z"))
    status = bench.budgets.set("x", limit_nano_usd=1, period=Period.DAY, time_zone="Asia/Kathmandu")
    assert status.calls == 2
    bench.spend(4, at=parse_time("2026-11-22T18:14:00Z"))
    bench.spend(8, at=parse_time("2026-11-22T23:59:00Z"))
    assert bench.spent("x") == 10
    bench.now = parse_time("2026-11-23T18:15:00Z")
    assert bench.spent("x") == 0
    assert bench.budgets.set("x", period=Period.DAY).spent_nano_usd == 0
    assert [s.calls for s in bench.budgets.list("default", NOW)] == [0]
    (before,) = bench.budgets.list("default", parse_time("2026-11-22T12:00:00Z"))
    assert before.calls == 15, "moved to UTC, all of it is spent on the 22nd"


def test_an_amount_set_for_later_holds_from_then(bench: Bench) -> None:
    block = (Threshold(100, Action.BLOCK),)
    bench.budgets.set("q", limit_nano_usd=2 * COST, period=Period.QUARTER, thresholds=block)
    bench.spend(2)
    later = parse_time("2026-11-24T00:00:00Z")
    planned = bench.budgets.set(
        "q", limit_nano_usd=4 * COST, from_unix_ns=later, period=Period.QUARTER, thresholds=block
    )
    assert (planned.blocked, planned.limit_nano_usd) == (True, 2 * COST)
    assert planned.next_amount == Amount(later, 4 * COST)
    assert planned.changes_at_unix_ns == later
    before, bench.now = bench.now, later - 1
    assert bench.budgets.get("q").blocked
    bench.now = later
    status = bench.budgets.get("q")
    assert (status.blocked, status.limit_nano_usd) == (False, 4 * COST)
    # Its crossing is withdrawn by whoever looks, and not before.
    assert [c.percent for c in status.crossings] == [100]
    assert _judge(bench, before) == later
    assert bench.budgets.get("q").crossings == ()
    bench.spend(2)
    assert bench.budgets.get("q").blocked


def test_a_lower_amount_set_for_later_crosses_on_its_day(bench: Bench) -> None:
    bench.budgets.set("q", limit_nano_usd=10 * COST, period=Period.QUARTER)
    bench.spend(2)
    later = parse_time("2026-11-24T00:00:00Z")
    bench.budgets.set("q", limit_nano_usd=2 * COST, from_unix_ns=later, period=Period.QUARTER)
    assert bench.budgets.alerts() == []
    before, bench.now = bench.now, later
    _judge(bench, before)
    assert [c.percent for c in bench.budgets.get("q").crossings] == [50, 80, 100]
    assert len(bench.budgets.alerts()) == 3
    _judge(bench, before)
    assert len(bench.budgets.alerts()) == 3


def _judge(bench: Bench, since: int) -> int:
    """As a worker does it: it alone sees whose budgets there are."""
    return BudgetService(bench.stores.worker, lambda: bench.now).judge(since)


def test_the_watch_judges_what_nobody_has_looked_at(bench: Bench) -> None:
    bench.budgets.set("q", limit_nano_usd=10 * COST, period=Period.QUARTER)
    bench.spend(2)
    later = bench.now + 1
    bench.budgets.set("q", limit_nano_usd=2 * COST, from_unix_ns=later, period=Period.QUARTER)
    watch = AmountWatch(BudgetService(bench.stores.worker, lambda: bench.now))
    watch.look()
    assert bench.budgets.get("q").crossings == ()
    bench.now = later
    watch.start()
    watch.stop()
    assert [c.percent for c in bench.budgets.get("q").crossings] == [50, 80, 100]


def test_a_lowered_amount_crosses_at_once_and_a_raised_one_releases(bench: Bench) -> None:
    block = (Threshold(50, Action.ALERT), Threshold(100, Action.BLOCK))
    bench.budgets.set("cap", limit_nano_usd=10 * COST, thresholds=block)
    bench.spend(4)
    bench.now += 1
    lowered = bench.budgets.set("cap", limit_nano_usd=4 * COST, thresholds=block)
    assert (lowered.blocked, [c.percent for c in lowered.crossings]) == (True, [50, 100])
    bench.now += 1
    raised = bench.budgets.set("cap", limit_nano_usd=8 * COST, thresholds=block)
    assert (raised.blocked, [c.percent for c in raised.crossings]) == (False, [50])
    assert [a.limit_nano_usd // COST for a in raised.budget.amounts] == [10, 4, 8]
    again = bench.budgets.set("cap", limit_nano_usd=8 * COST, thresholds=block)
    assert len(again.budget.amounts) == 3, "the same amount once more says nothing new"


def test_a_budget_may_begin_later(bench: Bench) -> None:
    block = (Threshold(100, Action.BLOCK),)
    later = parse_time("2026-11-24T00:00:00Z")
    status = bench.budgets.set("next", limit_nano_usd=0, from_unix_ns=later, thresholds=block)
    assert (status.limit_nano_usd, status.percent, status.blocked) == (None, None, False)
    bench.spend(1)
    status = bench.budgets.get("next")
    assert (status.calls, status.crossings) == (1, ())
    bench.now = later
    assert bench.budgets.get("next").blocked


def test_a_period_that_is_over_is_judged_by_its_last_amount(bench: Bench) -> None:
    bench.budgets.set("daily", limit_nano_usd=2 * COST, period=Period.DAY)
    yesterday, bench.now = bench.now, bench.now + 86_400 * 10**9
    bench.budgets.set("daily", limit_nano_usd=COST, period=Period.DAY)
    bench.spend(1, at=yesterday)
    (before,) = bench.budgets.list("default", yesterday)
    assert [c.percent for c in before.crossings] == [50]
    assert bench.budgets.get("daily").crossings == ()
    assert "refused" not in bench.budgets.alerts()[0].summary


def test_spend_that_is_taken_back_withdraws_its_crossing(bench: Bench) -> None:
    bench.budgets.set(
        "a", limit_nano_usd=COST, scope={"team": "a"}, thresholds=(Threshold(100, Action.BLOCK),)
    )
    identity = call_id(RNG)
    bench.ingest.ingest(batch([make_call(identity, team="a")]))
    assert bench.budgets.get("a").blocked
    bench.ingest.ingest(batch([make_call(identity, team="b", observer=OBSERVER_ROUTER)]))
    status = bench.budgets.get("a")
    assert (status.blocked, status.crossings, status.calls) == (False, (), 0)


def test_alerts_are_the_tenants_own(bench: Bench) -> None:
    for tenant in ("default", "other"):
        bench.budgets.set("x", limit_nano_usd=COST, tenant=tenant)
        bench.spend(1, tenant=tenant)
    for tenant in ("default", "other"):
        alerts = bench.budgets.alerts(tenant)
        assert len(alerts) == 3
        assert all(alert.tenant == tenant and f"tenant {tenant}" in alert.summary for alert in alerts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"time_zone": "Europe/Berln"}, "Europe/Berlin"),
        ({"from_unix_ns": 1, "limit_nano_usd": None}, "needs the amount|needs an amount"),
        ({"from_unix_ns": -1}, "between 1970 and 2200"),
        ({"limit_nano_usd": None}, "new budget"),
    ],
)
def test_amounts_and_zones_that_make_no_sense_are_refused(
    bench: Bench, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(BudgetError, match=message):
        bench.budgets.set("x", **({"limit_nano_usd": 1} | settings))
    assert bench.budgets.list("default") == []


def test_all_budgets_are_listed_to_those_who_may_see_them(bench: Bench) -> None:
    for tenant in ("default", "other"):
        bench.budgets.set("x", limit_nano_usd=1, tenant=tenant)
    listed = BudgetService(bench.stores.worker, lambda: NOW).list()
    assert [status.budget.tenant for status in listed] == ["default", "other"]
    if bench.stores.app.dialect == "postgresql":
        assert bench.budgets.list() == []
