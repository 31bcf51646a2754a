"""The two shapes of ModelMeter on one machine: what runs beside sensor and router, and what all must be told.

Embedded: one process, with SQLite and chDB in the state folder. Distributed: Kafka, PostgreSQL and a stand-in
for ClickHouse (chDB behind its HTTP interface) on loopback, and the pipeline as the processes that a company
would spread over machines. Each keeps its data in the state folder, and neither reads the other's.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from mmlocal.daemons import BIN, Ports, daemon, environment
from mmlocal.process import Say, Service
from mmlocal.servers import Server
from mmlocal.services.clickhouse import ClickHouseStandIn
from mmlocal.services.kafka import Kafka
from mmlocal.services.postgresql import PostgreSQL
from mmlocal.supervisor import Supervisor

WORKERS = 2
PARTITIONS = 6
VARIABLES_FILE = "environment"


class Shape(Protocol):
    """`variables` is what every command of this installation runs with, once `start` is done."""

    state: Path
    variables: Mapping[str, str]

    async def start(self, supervisor: Supervisor, config: Path | None, ports: Ports, say: Say) -> None:
        """Start the pipeline and what it stands on. Raises ServiceFailed, Stopped."""
        ...

    def described(self) -> list[str]:
        """Lines for people on what runs in this shape only."""
        ...

    def commands(self) -> str:
        """What a person puts before a command, so that it means this installation."""
        ...


class Embedded:
    """One process: `mmpipeline serve`."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.variables: Mapping[str, str] = environment(state)

    async def start(self, supervisor: Supervisor, config: Path | None, ports: Ports, say: Say) -> None:
        say("starting pipeline, sensor and router ...")
        await supervisor.start([daemon("pipeline", self.variables, config, ports)])

    def described(self) -> list[str]:
        return []

    def commands(self) -> str:
        return f"MODELMETER_STATE_DIR={shlex.quote(str(self.state))} PATH={shlex.quote(show(BIN))}:$PATH"


class Distributed:
    """Kafka, PostgreSQL, the stand-in for ClickHouse, two workers, a sink, and the API for itself."""

    def __init__(self, state: Path) -> None:
        self.state = state
        services = state / "services"
        self._kafka = Kafka(services / "kafka")
        self._postgresql = PostgreSQL(services / "postgresql")
        self._clickhouse = ClickHouseStandIn(services / "clickhouse")
        self.variables: Mapping[str, str] = environment(state)

    async def start(self, supervisor: Supervisor, config: Path | None, ports: Ports, say: Say) -> None:
        say("starting Kafka, PostgreSQL and a stand-in for ClickHouse ...")
        servers: dict[str, Server] = {
            "kafka": self._kafka,
            "postgresql": self._postgresql,
            "clickhouse": self._clickhouse,
        }
        await supervisor.start_servers(servers)
        kafka = {
            "MODELMETER_KAFKA_BROKERS": self._kafka.address,
            "MODELMETER_SENSOR_SINK": "kafka",
            "MODELMETER_TOPICS_PARTITIONS": str(PARTITIONS),
        }
        stores = {"MODELMETER_WAREHOUSE_URL": self._clickhouse.url}
        common = {**environment(self.state), **kafka, **stores}
        app = {**common, "MODELMETER_CONTROL_URL": self._postgresql.url("app")}
        worker = {
            **common,
            "MODELMETER_CONTROL_URL": self._postgresql.url("worker"),
            "MODELMETER_WORKER_METRICS_LISTEN": "127.0.0.1:0",
        }
        owner = {**common, "MODELMETER_CONTROL_OWNER_URL": self._postgresql.url("owner")}
        self.variables = app
        self._write_variables(app)

        say("making topics and tables ...")
        chosen = ("--config", str(config)) if config else ()
        program = str(BIN / "mmpipeline")
        topics = (program, "topics", "apply", *chosen)
        await supervisor.once(Service("topics", topics, common, announces=False))
        await supervisor.once(
            Service("ledger", (program, "ledger", "migrate", *chosen), owner, announces=False)
        )
        self._postgresql.grant()

        say("starting API, workers, sink, sensor and router ...")
        await supervisor.start([daemon("pipeline", app, config, ports)])
        names = [(f"work-{number}", "work") for number in range(1, WORKERS + 1)] + [("sink", "sink")]
        await supervisor.start(Service(name, (program, command, *chosen), worker) for name, command in names)

    def described(self) -> list[str]:
        return [
            f"  Kafka      {self._kafka.address}",
            f"  PostgreSQL {self._postgresql.url('app')}",
            f"  ClickHouse {_without_password(self._clickhouse.url)}  (a stand-in: chDB)",
            f"  workers    {WORKERS}, and a sink; look at them with mmpipeline status",
        ]

    def commands(self) -> str:
        return f". {shlex.quote(show(self.state / VARIABLES_FILE))};"

    def _write_variables(self, variables: Mapping[str, str]) -> None:
        """A file for a shell to read. It holds the warehouse's password, so it is its owner's alone."""
        file = self.state / VARIABLES_FILE
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            for name, value in variables.items():
                if name.startswith("MODELMETER_"):
                    out.write(f"export {name}={shlex.quote(value)}\n")
            out.write(f"export PATH={shlex.quote(str(BIN))}:$PATH\n")


SHAPES: dict[str, Callable[[Path], Shape]] = {"embedded": Embedded, "distributed": Distributed}


def _without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def show(path: Path) -> str:
    """The path as one would type it from here."""
    try:
        return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
    except ValueError:
        return str(path)
