"""Budgets: what they cover, when they start to count, what changing them does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mmpipeline.budgets.matching import CallScope, fits
from mmpipeline.budgets.model import Action, Budget, Threshold
from mmpipeline.budgets.periods import Period
from mmpipeline.budgets.service import BudgetError, BudgetService, UnknownBudget
from mmpipeline.ingest.service import IngestService
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control.store import ControlStore
from mmproto.callform import parse_time
from mmproto.v1.call_pb2 import OBSERVER_ROUTER, Call
from tests.pipeline.calls import COST, NOW, batch, call_id, make_call

RATING = RatingService.open()
RNG = random.Random(3)


class Bench:
    """Ingest and budgets over one store, with a clock that the test moves."""

    def __init__(self, store: ControlStore) -> None:
        self.store = store
        self.now = NOW
        self.budgets = BudgetService(store, lambda: self.now)
        self.ingest = IngestService(store, RATING, lambda: self.now)

    def spend(self, calls: int, **fields: Any) -> None:
        made = [make_call(call_id(RNG), at=self.now, **fields) for _ in range(calls)]
        assert self.ingest.ingest(batch(made)).accepted == calls

    def spent(self, name: str) -> int:
        return self.budgets.get(name).spent_nano_usd // COST


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    store = ControlStore(tmp_path / "control.sqlite")
    made = Bench(store)
    made.ingest.start()
    yield made
    made.ingest.stop()
    store.close()


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
    (yesterday,) = bench.budgets.list(at_unix_ns=late.started_at_unix_ns)
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
    assert bench.budgets.list() == []


def test_matching_needs_all_that_a_budget_names() -> None:
    budget = Budget("id", "x", "t", {"team": "a", "model": "m"}, Period.DAY, 1)
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
    assert bench.budgets.list() == []


def test_setting_and_removing_one_budget_from_many_threads_never_fails_for_a_race(bench: Bench) -> None:
    def set_it(limit: int) -> int:
        return bench.budgets.set("contended", limit_nano_usd=limit).budget.limit_nano_usd

    def remove_it(_: int) -> None:
        with suppress(UnknownBudget):
            bench.budgets.delete("contended")

    with ThreadPoolExecutor(6) as pool:
        wishes = [pool.submit(remove_it if n % 3 == 0 else set_it, n) for n in range(90)]
        answers = [wish.result() for wish in wishes]
    assert answers == [None if n % 3 == 0 else n for n in range(90)]
    assert len(bench.budgets.list()) <= 1
