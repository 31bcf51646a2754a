"""The broker is gone for minutes while calls go on being measured: the spool takes them, and nothing is lost.

The sender, its spool and its Kafka client are those of the sensor and the router, in this process. Calls are
appended at a steady rate as a daemon appends them, in batches that are durable when `append` returns. The
broker is killed with kill -9, stays away, and comes back; then the topic must hold every call that the spool
has accepted, and every one that it refused must have been counted.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mmlocal.services.kafka import Kafka
from mmproto.delivery import Sender, Spool, SpoolFull
from mmproto.kafka import topics
from mmproto.kafka.producer import KafkaClient
from mmproto.kafka.settings import KafkaSettings
from mmproto.v1.ingest_pb2 import IngestBatch
from tests.distributed import Away, wait_for
from tests.faults.reports import scenario
from tests.services.kafka import create_topic, read_topic, topic_length

Say = Callable[[str], None]

_BATCH = 100
PARTITIONS = 6


@dataclass(frozen=True, slots=True)
class AwayPlan:
    """`rate` calls a second; the broker is there for `before_s`, away for `away_s`, and there again."""

    rate: int
    before_s: float
    away_s: float
    after_s: float
    max_bytes: int = 512 << 20
    seed: int = 1

    @property
    def calls(self) -> int:
        return int(self.rate * (self.before_s + self.away_s + self.after_s))


@dataclass(slots=True)
class AwayOutcome:
    plan: AwayPlan
    accepted: int = 0
    refused: int = 0
    most_spooled: int = 0
    most_spooled_bytes: int = 0
    drained_s: float = 0.0
    messages: int = 0
    distinct: int = 0
    missing: int = 0
    strange: int = 0
    retries: int = 0

    def lines(self) -> Iterator[str]:
        plan = self.plan
        yield (
            f"{self.accepted} calls accepted at {plan.rate} a second, {self.refused} refused and counted; "
            f"broker away {plan.away_s:.0f} s"
        )
        yield f"at most {self.most_spooled} in the spool ({self.most_spooled_bytes / 1e6:.0f} MB)"
        yield f"drained {self.drained_s:.1f} s after the last call; {self.retries} failed posts"
        yield (
            f"{self.messages} messages, {self.distinct} distinct calls, {self.missing} missing, "
            f"{self.messages - self.distinct} twice, {self.strange} that nobody sent"
        )


class _Daemon(NamedTuple):
    spool: Spool
    sender: Sender
    # The kernel ends a broker with the thread that started it: this one lasts as long as the run.
    starting: ThreadPoolExecutor


def run(plan: AwayPlan, folder: Path, say: Say) -> AwayOutcome:
    """Raises Away where the spool does not drain."""
    outcome = AwayOutcome(plan)
    truth = scenario(plan.calls, plan.seed, time.time_ns()).truth
    records = [(call, report.record) for call, report in truth.items()]
    broker = Kafka(folder / "kafka")
    spool = Spool(folder / "spool.sqlite", plan.max_bytes)
    settings = KafkaSettings(brokers=broker.address)
    starting = ThreadPoolExecutor(1)
    try:
        broker.start()
        create_topic(broker.address, topics.CALLS, PARTITIONS)
        sender = Sender(spool, KafkaClient(settings, "away"), backoff_max_s=5.0)
        sender.start()
        accepted = _send(broker, _Daemon(spool, sender, starting), records, outcome, say)
        began = time.monotonic()
        wait_for("the spool drained", lambda: len(spool) == 0, within_s=600)
        outcome.drained_s = time.monotonic() - began
        outcome.retries = sum(sender.statistics().retries.values())
        sender.stop(5.0)
        found = Counter(_ids(broker))
        outcome.messages, outcome.distinct = sum(found.values()), len(found)
        outcome.missing = len(accepted - found.keys())
        outcome.strange = len(found.keys() - accepted)
    finally:
        starting.shutdown()
        broker.close()
        spool.close()
    return outcome


def _send(
    broker: Kafka,
    daemon: _Daemon,
    records: list[tuple[str, bytes]],
    outcome: AwayOutcome,
    say: Say,
) -> set[str]:
    """Append everything at the plan's rate; the ids that the spool has accepted."""
    plan, spool, sender = outcome.plan, daemon.spool, daemon.sender
    accepted: set[str] = set()
    began = time.monotonic()
    killed = back = False
    for first in range(0, len(records), _BATCH):
        batch = records[first : first + _BATCH]
        now = time.monotonic() - began
        if not killed and now >= plan.before_s:
            killed = True
            broker.kill()
            say(f"{now:.0f} s: the broker is killed")
        if killed and not back and now >= plan.before_s + plan.away_s:
            back = True
            # Calls go on while it comes up.
            starting = daemon.starting.submit(broker.start)
            starting.add_done_callback(lambda _: say(f"{time.monotonic() - began:.0f} s: the broker is back"))
        try:
            spool.append([record for _, record in batch])
            taken = len(batch)
        except SpoolFull as full:
            taken = full.accepted
            outcome.refused += len(batch) - taken
        accepted.update(call for call, _ in batch[:taken])
        sender.wake()
        statistics = spool.statistics()
        if statistics.records > outcome.most_spooled:
            outcome.most_spooled = statistics.records
            outcome.most_spooled_bytes = statistics.payload_bytes
        due = began + (first + _BATCH) / plan.rate
        time.sleep(max(0.0, due - time.monotonic()))
    if not back:
        raise Away("the calls were over before the broker was to come back")
    outcome.accepted = len(accepted)
    return accepted


def _ids(broker: Kafka) -> Iterator[str]:
    length = topic_length(broker.address, topics.CALLS)
    for message in read_topic(broker.address, topics.CALLS, length, within_s=300):
        for call in IngestBatch.FromString(message.value() or b"").calls:
            yield call.id
