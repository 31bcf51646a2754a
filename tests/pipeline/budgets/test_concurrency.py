"""Budgets are created, changed and removed while workers charge calls: no call is missed or doubled."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

from mmpipeline.budgets.model import Action, Threshold
from mmpipeline.budgets.periods import Period
from mmpipeline.budgets.service import BudgetService
from mmpipeline.ingest.ledgering import Ledgering
from mmpipeline.ingest.posts import Post
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control.database import StoreBusy
from mmpipeline.verify.run import verify
from mmproto.v1.call_pb2 import OBSERVER_ROUTER, Call
from tests.pipeline.calls import COST, NOW, batch, call_id, make_call
from tests.pipeline.stores import Stores

WORKERS = 3
BATCHES = 25
CALLS = 12
TENANTS = ("default", "other")
TEAMS = ("a", "b", "c")
ZONES = ("UTC", "Asia/Kathmandu", "America/Santiago")
_DAY_NS = 86_400 * 10**9


def _calls(seed: int) -> list[list[Call]]:
    """Batches of calls of the last three days, some of them better reports of what the others send."""
    rng, shared = random.Random(seed), random.Random(7)
    ids = [call_id(shared) for _ in range(60)]
    batches = []
    for _ in range(BATCHES):
        calls = []
        for _ in range(CALLS):
            again = rng.random() < 0.2
            key = rng.choice(ids) if again else call_id(rng)
            observed = {"observer": OBSERVER_ROUTER} if rng.random() < 0.5 else {}
            # All reports of a call say the same moment: it stands in its id here.
            at = NOW - int(key[:8], 16) % 3 * _DAY_NS - int(key[9:13], 16) * 10**9
            fields = {
                "tenant": rng.choice(TENANTS),
                "team": rng.choice(TEAMS),
                "user": f"u{rng.randrange(3)}",
            }
            if rng.random() < 0.1:
                fields["request_model"] = "gpt-99"
            calls.append(make_call(key, at=at, **observed, **fields))  # type: ignore[arg-type]
        batches.append(calls)
    return batches


def _charge(stores: Stores, seed: int, start: threading.Barrier) -> int:
    ledgering = Ledgering(stores.worker, RatingService.open())
    busy = 0
    start.wait(60)
    for calls in _calls(seed):
        while True:
            try:
                ledgering.write([Post(batch(calls))], NOW)
            except StoreBusy:
                busy += 1
                assert busy < 1000
            else:
                break
    return busy


def _change(stores: Stores, seed: int, start: threading.Barrier, done: threading.Event) -> int:
    """Changes budgets until the calls are charged; how often."""
    rng = random.Random(seed)
    service = BudgetService(stores.app, lambda: NOW)
    changes = 0
    start.wait(60)
    while not done.is_set():
        tenant, name = rng.choice(TENANTS), f"budget-{rng.randrange(6)}"
        there = {status.budget.name for status in service.list(tenant)}
        try:
            if name in there and rng.random() < 0.3:
                service.delete(name, tenant)
            else:
                service.set(
                    name,
                    tenant=tenant,
                    limit_nano_usd=rng.randrange(1, 400) * COST,
                    scope={} if rng.random() < 0.3 else {"team": rng.choice(TEAMS)},
                    period=rng.choice((Period.DAY, Period.WEEK, Period.MONTH)),
                    time_zone=rng.choice(ZONES),
                    thresholds=(Threshold(50, Action.ALERT), Threshold(100, Action.BLOCK)),
                )
        except StoreBusy:
            continue
        changes += 1
    return changes


def test_a_budget_that_changes_while_calls_are_charged_counts_each_once(stores: Stores) -> None:
    """Two more budgets are there all along, so that each tenant has some to hold against at the end."""
    service = BudgetService(stores.app, lambda: NOW)
    for tenant in TENANTS:
        service.set("steady", tenant=tenant, limit_nano_usd=100 * COST)
    start, done = threading.Barrier(WORKERS + 1), threading.Event()
    with ThreadPoolExecutor(WORKERS + 1) as pool:
        changing = pool.submit(_change, stores, 1, start, done)
        charging = [pool.submit(_charge, stores, 100 + worker, start) for worker in range(WORKERS)]
        try:
            for worker in charging:
                worker.result()
        finally:
            done.set()
        assert changing.result() > 5
    for tenant in TENANTS:
        service.set("at-the-end", tenant=tenant, limit_nano_usd=10**12, period=Period.YEAR)
    findings = verify(stores.worker, None, (), NOW)
    assert findings.differences == []
    assert findings.tenants == TENANTS
    assert findings.compared["budget"] > 10
    counted = sum(service.get("at-the-end", tenant).calls for tenant in TENANTS)
    assert counted == len(
        {call.id for worker in range(WORKERS) for calls in _calls(100 + worker) for call in calls}
    )
