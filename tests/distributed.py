"""The distributed shape as its own processes, for tests and benches that start, kill and measure them.

Everything is real and this installation's own: a broker, a PostgreSQL, the ClickHouse stand-in, and the
products' commands as a person would run them. What they must know they get from the environment alone.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from confluent_kafka import Consumer, Producer, TopicPartition

from mmlocal.services.clickhouse import ClickHouseStandIn
from mmlocal.services.kafka import Kafka
from mmlocal.services.postgresql import PostgreSQL
from mmproto.kafka import topics

BIN = Path(sys.executable).parent
READY_WITHIN_S = 150.0


class Away(Exception):
    """Something did not become true in time; the text says what, and holds the end of the logs."""


def wait_for(what: str, condition: Callable[[], Any], within_s: float = READY_WITHIN_S) -> Any:
    """The first truthy result of `condition`. Raises Away after `within_s` seconds without one."""
    end = time.monotonic() + within_s
    while True:
        if result := condition():
            return result
        if time.monotonic() > end:
            raise Away(f"{what}: not within {within_s:.0f} s")
        time.sleep(0.05)


class Command:
    """One long-running command: started, killed and started again under one name, its output in one log."""

    def __init__(self, name: str, argv: list[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.prefix: list[str] = []
        self._argv = argv
        self._environment = dict(environment)

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        """Start it, and do not wait for anything."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, *self._argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
            )

    def end(self, number: signal.Signals = signal.SIGTERM, patience_s: float = 60.0) -> int:
        """Signal it and wait for its end; its exit code, 0 where it never ran."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise Away(f"{self.name} did not end within {patience_s:.0f} s{self.last_words()}") from None

    def last_words(self) -> str:
        return "\n" + self.log.read_text(errors="replace")[-3000:] if self.log.exists() else ""


class Installation:
    """`with`: leaving it ends everything that was started in it. Raises ServiceFailed, Away."""

    def __init__(
        self, folder: Path, *, partitions: int = 6, settings: Mapping[str, str] | None = None
    ) -> None:
        """`settings`: further variables for all of the products' processes."""
        self.folder = folder
        self.state = folder / "state"
        self.partitions = partitions
        self.kafka = Kafka(folder / "kafka")
        self.postgresql = PostgreSQL(folder / "postgresql")
        self.clickhouse = ClickHouseStandIn(folder / "clickhouse")
        self.commands: dict[str, Command] = {}
        self._settings = dict(settings or {})
        self._leaving = ExitStack()

    def __enter__(self) -> Installation:
        self.state.mkdir(parents=True, exist_ok=True)
        with ExitStack() as leaving:
            leaving.callback(self.kafka.close)
            leaving.callback(self.postgresql.close)
            leaving.callback(self.clickhouse.stop)
            for service in (self.kafka, self.postgresql, self.clickhouse):
                service.start()
            leaving.callback(self._end_commands)
            self.run("mmpipeline", "topics", "apply", "--partitions", str(self.partitions))
            owner = {"MODELMETER_CONTROL_OWNER_URL": self.postgresql.url("owner")}
            self.run("mmpipeline", "ledger", "migrate", environment=owner)
            self.postgresql.grant()
            self._leaving = leaving.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.__exit__(kind, error, trace)

    @property
    def environment(self) -> dict[str, str]:
        """What the products' processes run with: this installation, and no machine-wide settings."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELMETER_")}
        return kept | {
            "MODELMETER_STATE_DIR": str(self.state),
            "MODELMETER_KAFKA_BROKERS": self.kafka.address,
            "MODELMETER_KAFKA_KEY_BY": "team",
            "MODELMETER_CONTROL_URL": self.postgresql.url("app"),
            "MODELMETER_WAREHOUSE_URL": self.clickhouse.url,
            "MODELMETER_WORKER_METRICS_LISTEN": "127.0.0.1:0",
            "MODELMETER_LISTEN_PORT": "0",
            **self._settings,
        }

    @property
    def superuser_url(self) -> str:
        """PostgreSQL as nobody of the product may see it: past every policy."""
        return f"postgresql://postgres@127.0.0.1:{self.postgresql.port}/modelmeter"

    def command(self, name: str, *argv: str, environment: Mapping[str, str] | None = None) -> Command:
        """`argv` as a command of this installation, not started. `name` is what its log is called."""
        made = Command(
            name,
            [str(BIN / argv[0]), *argv[1:]],
            self.environment | dict(environment or {}),
            self.folder / f"{name}.log",
        )
        self.commands[name] = made
        return made

    def worker(self, name: str = "work") -> Command:
        return self.command(name, "mmpipeline", "work", environment=self._as_worker)

    def sink(self, name: str = "sink") -> Command:
        return self.command(name, "mmpipeline", "sink", environment=self._as_worker)

    def verify(self) -> subprocess.CompletedProcess[str]:
        """Every number held against the charges: of all tenants, whom only a worker's login sees."""
        return self.run("mmpipeline", "ledger", "verify", check=False, environment=self._as_worker)

    @property
    def _as_worker(self) -> dict[str, str]:
        return {"MODELMETER_CONTROL_URL": self.postgresql.url("worker")}

    def run(
        self, *argv: str, check: bool = True, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, as a person would at a shell."""
        done = subprocess.run(
            [str(BIN / argv[0]), *argv[1:]],
            env=self.environment | dict(environment or {}),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if check and done.returncode:
            raise Away(f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def producer(self, **settings: str | int) -> Producer:
        """A sender that never gives up: what it was given is in the topic once `flush` returns 0."""
        return Producer(
            {
                "bootstrap.servers": self.kafka.address,
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "zstd",
                "linger.ms": 5,
                "delivery.timeout.ms": 2_147_483_647,
                "message.timeout.ms": 2_147_483_647,
                "queue.buffering.max.messages": 1_000_000,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
                **settings,
            }
        )

    def ends(self, topic: str) -> dict[int, int]:
        """The next offset of each partition."""
        consumer = Consumer({"bootstrap.servers": self.kafka.address, "group.id": "looks", "log_level": 0})
        try:
            partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
            return {
                number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=30)[1]
                for number in partitions
            }
        finally:
            consumer.close()

    def committed(self, topic: str, group: str) -> dict[int, int]:
        """Up to where a group has worked each partition, where Kafka keeps that."""
        consumer = Consumer({"bootstrap.servers": self.kafka.address, "group.id": group, "log_level": 0})
        try:
            partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
            places = consumer.committed([TopicPartition(topic, number) for number in partitions], timeout=30)
            return {place.partition: max(0, place.offset) for place in places}
        finally:
            consumer.close()

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(
            self.run("mmpipeline", "status", "-o", "json", check=False).stdout or "{}"
        )
        return answer

    def _end_commands(self) -> None:
        for command in reversed(self.commands.values()):
            if command.running:
                command.end()


HEADERS: list[tuple[str, str | bytes | None]] = [
    (topics.CONTENT_TYPE_HEADER, "application/x-protobuf"),
    (topics.SCHEMA_HEADER, "modelmeter.v1.IngestBatch"),
    (topics.SCHEMA_VERSION_HEADER, "1"),
]


@contextmanager
def installation(
    folder: Path, *, partitions: int = 6, settings: Mapping[str, str] | None = None
) -> Iterator[Installation]:
    with Installation(folder, partitions=partitions, settings=settings) as running:
        yield running
