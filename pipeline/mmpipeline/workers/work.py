"""`mmpipeline work`: charges what is on the calls topic, and carries it on.

    loop         reads the partitions that the group gives us, charges them            (loop, charger)
    relay        publishes sealed batches of our lanes for the warehouse               (ingest/writer, rated)
    actions      tells routers how far budgets are spent                               (actions/publisher)

The loop is the main thread; the others are woken after each transaction. The worker that has partition 0
also relays what did not come by a partition.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from confluent_kafka import Consumer, Producer

from mmpipeline.actions.publisher import ActionsPublisher
from mmpipeline.budgets.service import BudgetService
from mmpipeline.budgets.watch import AmountWatch
from mmpipeline.config import PipelineSettings
from mmpipeline.ingest.ledgering import Ledgering
from mmpipeline.ingest.writer import WarehouseWriter
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import outbox, positions
from mmpipeline.store.control.database import Database, DatabaseAway, DatabaseError, StoreBusy
from mmpipeline.store.control.outbox import HTTP_LANE
from mmpipeline.workers.charger import Charger
from mmpipeline.workers.clients import consumer_properties, producer_properties
from mmpipeline.workers.deadletters import DeadLetters
from mmpipeline.workers.deadlimit import DeadLetterLimit
from mmpipeline.workers.loop import Loop
from mmpipeline.workers.process import (
    DRAIN_S,
    CannotWork,
    Process,
    TopicsAway,
    partitions_of,
    run_process,
)
from mmpipeline.workers.rated import RatedTopic
from mmpipeline.workers.reader import Away, Reader
from mmproto.kafka.connection import settings_taken
from mmproto.kafka.topics import CALLS, DEADLETTER, RATED

GROUP = "modelmeter.work"


def work(settings: PipelineSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises CannotWork, ConfigurationError."""
    run_process("work", settings, _run)


def _run(process: Process, closing: ExitStack) -> None:
    settings, progress = process.settings, process.progress
    with settings_taken(settings.kafka):
        for_letters, for_relay = (
            Producer(producer_properties(settings.kafka, process.heard)) for _ in range(2)
        )
    topics = process.until(
        "kafka", lambda: partitions_of(settings.kafka, (CALLS, RATED, DEADLETTER)), TopicsAway
    )
    if topics[CALLS] != topics[RATED]:
        raise CannotWork(
            f"{CALLS} has {topics[CALLS]} partitions and {RATED} {topics[RATED]}: rows go by the partition "
            "of their calls, so give both as many with `mmpipeline topics apply`"
        )
    database = process.until("store", lambda: _open(settings), DatabaseAway)
    closing.callback(database.close)
    rating = process.until(
        "store", lambda: RatingService.stored(database, settings.rating.overrides, time.time_ns()), StoreBusy
    )

    def positions_of(partitions: Sequence[int]) -> dict[int, int]:
        try:
            with database.read() as connection:
                return positions.of(connection, CALLS, partitions)
        except StoreBusy as error:
            raise Away(str(error)) from error

    with settings_taken(settings.kafka):
        consumer = Consumer(consumer_properties(settings.kafka, GROUP, process.heard))
    reader = Reader(consumer, CALLS, positions_of)
    relayed = RatedTopic(for_relay)
    relay = WarehouseWriter(
        database,
        relayed.lane,
        settings.warehouse.gather,
        settings.warehouse.batch_rows,
        lambda: _lanes(waking.owned),
    )
    actions = ActionsPublisher(database, rating, settings.kafka)
    waking = _Waking(reader, relay, actions)
    progress.more = lambda: _more(database, relay, relayed, actions)
    charger = Charger(
        ledgering=Ledgering(database, rating),
        letters=DeadLetters(for_letters),
        limit=DeadLetterLimit(database, settings.worker.dead_letters),
        progress=progress,
        clock=time.time_ns,
        committed=waking.committed,
    )
    relay.start()
    closing.callback(relay.stop)
    actions.start()
    closing.callback(actions.stop, DRAIN_S)
    watch = AmountWatch(BudgetService(database, time.time_ns))
    watch.start()
    closing.callback(watch.stop)
    # First of all the group is left: others go on while we deliver what waits.
    closing.callback(reader.close)
    _calm_collector()

    def beat() -> None:
        process.beat()
        waking.look()

    process.announce()
    Loop(reader, settings.worker.batch_calls, charger, progress, process.stopping, beat).run()


class _Waking:
    """Tells the other threads what happened."""

    def __init__(self, reader: Reader, relay: WarehouseWriter, actions: ActionsPublisher) -> None:
        self._reader = reader
        self._relay = relay
        self._actions = actions
        # As the loop last saw them: what is ours to deliver at the end too, when the group is left already.
        self.owned: frozenset[int] = frozenset()

    def committed(self, tenants: set[str]) -> None:
        """Calls of these tenants were charged."""
        self._actions.touched(tenants)
        self._relay.wake()

    def look(self) -> None:
        """Partitions may have come: what their last worker left undelivered is ours."""
        before, self.owned = self.owned, self._reader.owned
        if self.owned - before:
            self._actions.assigned()
            self._relay.wake()


def _open(settings: PipelineSettings) -> Database:
    try:
        return Database.open(settings.control_url, "worker")
    except DatabaseAway:
        raise
    except DatabaseError as error:
        raise CannotWork(str(error)) from error


def _lanes(owned: frozenset[int]) -> list[int]:
    return [HTTP_LANE, *sorted(owned)] if 0 in owned else sorted(owned)


def _more(
    database: Database, relay: WarehouseWriter, relayed: RatedTopic, actions: ActionsPublisher
) -> dict[str, Any]:
    """What the worker's page shows beside its progress."""
    told = actions.statistics()
    form: dict[str, Any] = {
        "relay": {"published": relayed.published, "last_error": relay.last_error},
        "actions": {
            "published": told.states + told.tombstones + told.books,
            "waiting": told.waiting,
            "failures": dict(told.failures),
            "last_error": told.last_error,
        },
    }
    try:
        with database.read() as connection:
            state = outbox.state(connection)
    except StoreBusy:
        return form
    oldest_s = 0.0 if state.oldest_unix_ns is None else (time.time_ns() - state.oldest_unix_ns) / 1e9
    return form | {"outbox": {"rows": state.rows, "oldest_s": max(0.0, oldest_s)}}


def _calm_collector() -> None:
    """Spare the collector what lives until the end, and batches of calls: they have no cycles to find."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
