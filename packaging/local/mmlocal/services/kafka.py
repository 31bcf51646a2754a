"""A broker of Apache Kafka on this machine: one node in KRaft mode, in a folder, on loopback ports.

Everything that it stores is below its folder, so a broker that was stopped or killed goes on where it was,
on the same ports. It is small (a heap of 384 MiB, few threads) and quick to come back after a kill: for tests
and for trying things, not for keeping data that matters.

The jars come from packaging/kafka/pom.xml (`make setup-distributed`).
"""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmlocal.process import ServiceFailed
from mmlocal.services.ports import LoopbackPort

JARS = Path(__file__).resolve().parents[4] / ".setup" / "kafka"
STARTED = b"Kafka Server started"
LAST_LINES = 12
# It must not outlive the tests or the supervisor, however these end.
WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")

# One node: every inner topic has one replica. Waits that help a large cluster only cost time here.
SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "250",
    "broker.session.timeout.ms": "2000",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "background.threads": "2",
    "log.index.size.max.bytes": "1048576",
    "log.cleaner.dedupe.buffer.size": "8388608",
}
LOGGING = """\
status = warn
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = info
rootLogger.appenderRef.out.ref = out
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = warn
"""


class Kafka:
    """`start`, `stop`, `kill`, and `start` again: same ports, same data. Raises ServiceFailed.

    `listeners`: security protocols, each on a port of its own (`addresses`); the first is what the broker
    itself uses and `address` names. `settings` are the broker's own and win over what stands here. `quick`
    compiles little: a start takes two thirds of the time, and a broker under full load does less.
    `close` gives the ports back.
    """

    def __init__(
        self,
        folder: Path,
        *,
        listeners: Sequence[str] = ("PLAINTEXT",),
        settings: Mapping[str, str] | None = None,
        heap_mb: int = 384,
        quick: bool = True,
        jars: Path = JARS,
    ) -> None:
        self.folder = folder
        self.log = folder / "broker.log"
        self._listeners = tuple(listeners)
        self._settings = dict(settings or {})
        self._heap_mb = heap_mb
        self._quick = quick
        self._jars = jars
        self._ports = {name: LoopbackPort() for name in (*self._listeners, "CONTROLLER")}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """host:port, as clients name a broker."""
        return self.addresses[self._listeners[0]]

    @property
    def addresses(self) -> dict[str, str]:
        """host:port of each listener, by its security protocol."""
        return {name: f"127.0.0.1:{self._ports[name].number}" for name in self._listeners}

    @property
    def pid(self) -> int:
        """Its process. Raises ServiceFailed where there is none."""
        if self._process is None:
            raise ServiceFailed("kafka does not run")
        return self._process.pid

    def start(self, timeout_s: float = 90.0) -> None:
        """Returns when it takes requests. The thread that calls must live as long as the broker shall."""
        if not any(self._jars.glob("kafka_*.jar")):
            raise ServiceFailed(f"no Kafka in {self._jars}: make setup-distributed")
        configuration = self._configure()
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*WITH_PARENT, *self._java("kafka.Kafka", str(configuration))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout_s
        while STARTED not in self._said(before):
            if self._process.poll() is not None:
                code, self._process = self._process.returncode, None
                raise ServiceFailed(f"kafka ended with {code} (log: {self.log}){self._last_words()}")
            if time.monotonic() > deadline:
                self.kill()
                raise ServiceFailed(f"kafka is not ready after {timeout_s:.0f} s; its log: {self.log}")
            time.sleep(0.05)

    def stop(self, patience_s: float = 20.0) -> None:
        """Asks it to end, and kills it where it does not. Safe to call when it does not run."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def kill(self) -> None:
        """kill -9. Safe to call when it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def pause(self) -> None:
        """Stops it in mid-work (SIGSTOP): connections stay open and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """`stop`, and the ports are no longer held."""
        self.stop()
        for port in self._ports.values():
            port.close()

    def _configure(self) -> Path:
        """Writes its files, and formats its storage the first time."""
        self.folder.mkdir(parents=True, exist_ok=True)
        controller = f"127.0.0.1:{self._ports['CONTROLLER'].number}"
        open_to_clients = ",".join(f"{name}://{address}" for name, address in self.addresses.items())
        settings = {
            **SETTINGS,
            "controller.quorum.voters": f"1@{controller}",
            "listeners": f"{open_to_clients},CONTROLLER://{controller}",
            "advertised.listeners": open_to_clients,
            "inter.broker.listener.name": self._listeners[0],
            "listener.security.protocol.map": ",".join(
                [*(f"{name}:{name}" for name in self._listeners), "CONTROLLER:PLAINTEXT"]
            ),
            "log.dirs": str(self.folder / "data"),
            **self._settings,
        }
        configuration = self.folder / "server.properties"
        configuration.touch(mode=0o600)
        configuration.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        (self.folder / "log4j2.properties").write_text(LOGGING)
        if not (self.folder / "data" / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            done = subprocess.run(
                self._java(
                    "kafka.tools.StorageTool", "format", f"--cluster-id={cluster}", "-c", str(configuration)
                ),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                words = (done.stderr or done.stdout).strip()
                raise ServiceFailed(f"kafka's storage in {self.folder} cannot be made: {words}")
        return configuration

    def _java(self, main: str, *arguments: str) -> list[str]:
        return [
            "java",
            f"-Xmx{self._heap_mb}m",
            f"-Xms{min(self._heap_mb, 128)}m",
            "-XX:+UseSerialGC",
            *(["-XX:TieredStopAtLevel=1"] if self._quick else []),
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.properties'}",
            "-cp",
            f"{self._jars}/*",
            main,
            *arguments,
        ]

    def _said(self, offset: int) -> bytes:
        with self.log.open("rb") as log:
            log.seek(offset)
            return log.read()

    def _last_words(self) -> str:
        lines = self._said(0).decode("utf-8", "replace").splitlines()[-LAST_LINES:]
        return "".join(f"\n    {line}" for line in lines)
