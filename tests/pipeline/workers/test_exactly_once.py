"""Workers are killed, join and leave, and messages come twice: every call is charged once, in every store."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest

from mmpipeline.budgets.periods import Period, bounds
from mmpipeline.store.control import ledger
from mmpipeline.store.warehouse.shapes import Span
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmproto.kafka.topics import CALLS, DEADLETTER, RATED
from tests.distributed import wait_for
from tests.pipeline.calls import COST
from tests.pipeline.workers.ground import Ground, expected, some_calls, with_doubles
from tests.services.kafka import topic_length

CALLS_SENT = 1_200
ROUNDS = 4


@pytest.mark.timeout(400)
def test_workers_and_sinks_killed_joining_and_leaving(ground: Ground) -> None:
    rng = random.Random(7)
    ground.settings["MODELMETER_WORKER_BATCH_CALLS"] = "100"
    at = time.time_ns()
    calls = some_calls(rng, CALLS_SENT, at)
    messages = with_doubles(rng, calls)
    workers = [ground.worker(f"work-{number}") for number in range(3)]
    sink = ground.sink().start()
    workers[0].start()
    for part in range(ROUNDS):
        ground.send(messages[part::ROUNDS])
        one = workers[part % 3]
        if not one.command.running:
            one.start()
        time.sleep(rng.random())  # to be somewhere in a batch, a rebalance, a delivery
        if part % 2:
            one.kill()
            sink.kill()
            sink.start()
        else:
            workers[(part + 1) % 3].start() if not workers[(part + 1) % 3].command.running else None
            assert one.stop() == 0
    for worker in workers:
        if not worker.command.running:
            worker.start()
    ground.wait_until_worked()
    wait_for("an empty outbox", lambda: ground.waiting_rows() == 0)
    for worker in workers:
        assert worker.stop() == 0
    batches = topic_length(ground.brokers, RATED)
    wait_for(
        "all rows in the warehouse",
        lambda: all(place["lag"] == 0 for place in sink.snapshot()["partitions"].values()),
    )
    assert sink.stop() == 0

    assert topic_length(ground.brokers, CALLS) == len(messages)
    assert topic_length(ground.brokers, DEADLETTER) == 0
    assert ground.totals() == expected(CALLS_SENT)
    database = ground.database()
    with database.read("default") as connection:
        assert ledger.summed(connection, "default") == expected(CALLS_SENT)
    database.close()
    counters = ground.counters()
    assert counters["accepted"] + counters["duplicates"] == len(messages)
    assert batches >= 1
    day, end = bounds(Period.DAY, at)
    with Warehouse.open(ground.folder / "state" / "pipeline" / "warehouse") as warehouse:
        (total,) = warehouse.spend("default", Span(day, end))
        assert (total.calls, total.cost_nano_usd) == (CALLS_SENT, CALLS_SENT * COST)
        raw = warehouse.calls("default", Span(day, end), limit=5_000)
        assert len({stored.call.id for stored in raw.calls}) == len(raw.calls) == CALLS_SENT


@pytest.mark.timeout(300)
@pytest.mark.parametrize("control_url", ["postgresql"], indirect=True)
def test_a_worker_that_was_frozen_goes_on_with_the_others(ground: Ground) -> None:
    """It is stopped until the group has given it up, while others charge what was its own.

    Not on SQLite: a process that is stopped while it writes keeps the file from all others. What it does with
    a batch that it had in hand is held in test_charger.py.
    """
    rng = random.Random(8)
    calls = some_calls(rng, 300, time.time_ns())
    frozen = ground.worker("frozen").start()
    ground.send(calls[:50])
    ground.wait_until_worked()
    os.kill(frozen.pid, signal.SIGSTOP)
    ground.send(calls[50:200])
    other = ground.worker("other").start()
    ground.wait_until_worked(within_s=150)
    os.kill(frozen.pid, signal.SIGCONT)
    ground.send(calls[200:])
    ground.wait_until_worked()
    # It has found out, and works with the other.
    wait_for(
        "both have partitions",
        lambda: all(0 < len(worker.snapshot()["partitions"]) < 4 for worker in (frozen, other)),
    )
    assert frozen.stop() == other.stop() == 0
    assert ground.totals() == expected(300)
    assert ground.counters().get("duplicates", 0) == 0


@pytest.mark.timeout(200)
def test_sigterm_finishes_the_batch_and_delivers_what_waits(ground: Ground) -> None:
    ground.settings["MODELMETER_WORKER_BATCH_CALLS"] = "200"
    ground.send(some_calls(random.Random(9), 2_000, time.time_ns()))
    worker = ground.worker().start()
    wait_for("some work", lambda: ground.worked() > 0)
    assert worker.stop() == 0
    worked = ground.worked()
    assert ground.totals() == expected(worked)
    assert ground.waiting_rows() == 0
    assert "Traceback" not in worker.command.last_words()
