"""What the tests of the workers stand on: topics, a store, processes that are started, hurt and asked."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import httpx
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from sqlalchemy import Connection

from mmpipeline.store.control import ledger, outbox, positions
from mmpipeline.store.control.database import Database, StoreBusy
from mmpipeline.store.control.ledger import LedgerTotals
from mmpipeline.workers.decoding import RECORD_HEADERS
from mmpipeline.workers.work import GROUP
from mmproto.delivery.records import call_record
from mmproto.kafka.topics import CALLS, TOPICS
from mmproto.v1.call_pb2 import OBSERVER_ROUTER, Call
from tests.distributed import Command, wait_for
from tests.pipeline.calls import COST, call_id, make_call
from tests.services.kafka import create_topic, topic_length

T = TypeVar("T")

PARTITIONS = 4
BIN = Path(sys.executable).parent
Header = tuple[str, str | bytes | None]
HEADERS: list[Header] = [*RECORD_HEADERS]


class Worker:
    """One process of ours."""

    def __init__(self, command: Command) -> None:
        self.command = command
        self.url = ""

    def start(self, within_s: float = 60.0) -> Worker:
        """Returns when it has begun to work."""
        before = self._said().count("listening on ")
        self.command.start()
        wait_for(
            f"{self.command.name} listens",
            lambda: self._said().count("listening on ") > before or not self.command.running,
            within_s,
        )
        assert self.command.running, self.command.last_words()
        self.url = self._said().rpartition("listening on ")[2].split()[0]
        return self

    @property
    def pid(self) -> int:
        assert self.command.process is not None
        return self.command.process.pid

    def snapshot(self) -> dict[str, Any]:
        answer: dict[str, Any] = httpx.get(f"{self.url}/status", timeout=30).json()
        return answer

    def page(self, path: str) -> tuple[int, str]:
        answer = httpx.get(self.url + path, timeout=30)
        return answer.status_code, answer.text

    def kill(self) -> None:
        self.command.end(signal.SIGKILL)

    def stop(self) -> int:
        """Asked to end; its exit code."""
        return self.command.end(signal.SIGTERM)

    def _said(self) -> str:
        return self.command.log.read_text(errors="replace") if self.command.log.exists() else ""


class Ground:
    """`with`: leaving it ends every process."""

    def __init__(self, folder: Path, brokers: str, control_url: str) -> None:
        self.folder = folder
        self.brokers = brokers
        self.control_url = control_url
        self.settings: dict[str, str] = {}
        self._commands: list[Command] = []
        config = folder / "pipeline.yaml"
        # A worker that is killed is missed soon.
        config.write_text(
            "kafka:\n  properties: {session.timeout.ms: '3000', heartbeat.interval.ms: '300'}\n"
            "warehouse:\n  gather: 100ms\n",
            encoding="utf-8",
        )
        self._config = config

    def __enter__(self) -> Ground:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for command in self._commands:
            if command.running:
                command.end(signal.SIGKILL)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELMETER_")}
        return kept | {
            "MODELMETER_STATE_DIR": str(self.folder / "state"),
            "MODELMETER_KAFKA_BROKERS": self.brokers,
            "MODELMETER_CONTROL_URL": self.control_url,
            "MODELMETER_WORKER_METRICS_LISTEN": "127.0.0.1:0",
            **self.settings,
        }

    def worker(self, name: str = "work") -> Worker:
        return self._process(name, "work")

    def sink(self, name: str = "sink") -> Worker:
        return self._process(name, "sink")

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command of ours, to its end."""
        command = [str(BIN / "mmpipeline"), *argv, "--config", str(self._config)]
        return subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )

    def send(self, calls: Iterable[Call]) -> int:
        """Calls as messages, each by its team; how many."""
        return self.send_raw((call_record(call), call.team.encode(), HEADERS) for call in calls)

    def send_raw(self, messages: Iterable[tuple[bytes, bytes | None, list[Header]]]) -> int:
        producer = Producer({"bootstrap.servers": self.brokers, "linger.ms": 5})
        sent = 0
        for value, key, headers in messages:
            producer.produce(CALLS, value, key, headers=headers)
            sent += 1
        assert producer.flush(60) == 0
        return sent

    def database(self) -> Database:
        return Database.open(self.control_url)

    def totals(self) -> LedgerTotals:
        """Sums as they are kept."""
        return self._asked(ledger.totals)

    def counters(self) -> dict[str, int]:
        return self._asked(ledger.counters)

    def waiting_rows(self) -> int:
        return int(self._asked(outbox.state).rows)

    def worked(self) -> int:
        """How many messages the positions are behind."""
        return sum(self._asked(lambda connection: positions.all_of(connection, CALLS)).values())

    def wait_until_worked(self, within_s: float = 90.0) -> None:
        """Until every message of the topic is worked."""
        ends = topic_length(self.brokers, CALLS)
        wait_for(f"{ends} messages worked", lambda: self.worked() == ends, within_s)

    def _asked(self, question: Callable[[Connection], T]) -> T:
        """The store may be a server that is being hurt, or a file that is locked: asked until it answers."""
        until = time.monotonic() + 60
        while True:
            try:
                database = self.database()
                try:
                    with database.read() as connection:
                        return question(connection)
                finally:
                    database.close()
            except StoreBusy:
                assert time.monotonic() < until
                time.sleep(0.1)

    def _process(self, name: str, what: str) -> Worker:
        argv = [str(BIN / "mmpipeline"), what, "--config", str(self._config)]
        command = Command(name, argv, self.environment, self.folder / f"{name}.log")
        self._commands.append(command)
        return Worker(command)


def renew_topics(brokers: str, partitions: int) -> None:
    """The product's topics, empty, and nobody's offsets in them."""
    admin = AdminClient({"bootstrap.servers": brokers})
    there = admin.list_topics(timeout=30).topics
    for gone in admin.delete_topics([t.name for t in TOPICS if t.name in there] or ["none"]).values():
        _settle(gone)
    for done in admin.delete_consumer_groups([GROUP, "modelmeter.sink"]).values():
        _settle(done)
    for topic in TOPICS:
        _until_created(brokers, topic.name, partitions if topic.partitioned else 1, topic.settings)


def _settle(future: Any) -> None:
    with suppress(KafkaException):  # there was none
        future.result()


def _until_created(brokers: str, name: str, partitions: int, settings: Any) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            create_topic(brokers, name, partitions, settings)
        except KafkaException:  # the one of this name is still being deleted
            assert time.monotonic() < until
            time.sleep(0.1)
        else:
            return


def some_calls(rng: random.Random, count: int, at: int) -> list[Call]:
    """Distinct calls of four teams."""
    return [make_call(call_id(rng), at=at, team=f"team-{rng.randrange(4)}") for _ in range(count)]


def with_doubles(rng: random.Random, calls: Sequence[Call]) -> list[Call]:
    """The same calls among resent ones, and some that the router saw as well; in another order."""
    doubled = list(calls)
    for call in rng.sample(list(calls), len(calls) // 5):
        again = Call()
        again.CopyFrom(call)
        if rng.random() < 0.5:
            again.observer = OBSERVER_ROUTER
        doubled.append(again)
    rng.shuffle(doubled)
    return doubled


def expected(calls: int) -> LedgerTotals:
    """What the ledger sums up to."""
    return LedgerTotals(calls, calls * COST, 0)


def letters_of(ground: Ground, *options: str) -> list[dict[str, Any]]:
    """`deadletter list` as JSON."""
    done = ground.run("deadletter", "list", "-o", "json", *options)
    assert done.returncode == 0, done.stderr
    forms: list[dict[str, Any]] = json.loads(done.stdout)
    return forms
