"""What SDKs exchange with providers, captured from their TLS by the sensor: every number as answered.

The clients negotiate HTTP/1.1 or HTTP/2 as they always do. Needs root and a kernel that attaches uprobes;
fails, never skips, where it cannot run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from tests.e2e.reading.answers import PLAN
from tests.e2e.reading.clients import TABLE, Client, Held, asking, held
from tests.e2e.reading.sensor import Sensor, in_order, measuring
from tests.e2e.reading.server import Servers, serving
from tests.e2e.stack import ROOT, NotReady, wait_for

pytestmark = pytest.mark.capture

PAGE = ROOT / "docs" / "coverage.md"


@dataclass(frozen=True, slots=True)
class Measured:
    """The clients, and the sensor that measures them and nobody else."""

    servers: Servers
    sensor: Sensor
    clients: dict[str, Held]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp("reading")
    with serving(folder) as servers, held(servers) as clients, mapped():
        pids = [client.pid for client in clients.values()]
        with measuring(folder / "state", pids, "cygrpc", "asking") as sensor:
            yield Measured(servers, sensor, clients)


@contextmanager
def mapped() -> Iterator[None]:
    """Processes that have grpcio's library and the Go program mapped: known before their first calls."""
    python = [sys.executable, "-c", "import grpc, sys; sys.stdin.read()"]
    with (
        subprocess.Popen(python, stdin=subprocess.PIPE) as first,
        subprocess.Popen([str(asking())], stdin=subprocess.PIPE) as second,
    ):
        yield
        for process in (first, second):
            process.communicate()
            assert process.returncode == 0


@pytest.mark.parametrize("client", TABLE, ids=lambda client: client.name)
def test_what_was_answered_is_what_was_read(client: Client, measured: Measured) -> None:
    process, sensor = measured.clients[client.name], measured.sensor
    before = len(measured.servers.journal())
    process.run()
    served = measured.servers.journal()[before:]
    assert {entry["http"] for entry in served} == ({client.http} if client.answers else set())
    assert sorted(entry["answer"] for entry in served) == sorted(map(PLAN.index, client.answers))
    expected = in_order(client.read)
    try:
        wait_for(f"{len(expected)} calls", lambda: len(sensor.read(process.pid)) >= len(expected))
    except NotReady as late:
        raise NotReady(f"{late}\n{sensor.read(process.pid)}\n{sensor.events()}") from late
    read = sensor.read(process.pid)
    assert read == expected
    for one, other in zip(read, expected, strict=True):
        assert one.estimated.keys() == other.estimated.keys()
        # Of a few words no estimate can be near.
        assert all(true / 2 <= one.estimated[bucket] <= 2 * true for bucket, true in other.estimated.items())


def test_nothing_else_was_read(measured: Measured) -> None:
    """After all clients: no call twice, none that cannot be accounted for, no secret kept."""
    expected = sum(len(client.read) for client in TABLE)
    calls = measured.sensor.calls()
    assert len({call["id"] for call in calls}) == len(calls) == expected
    events = measured.sensor.events()
    assert (events["emitted"], events["failed"], events["balanced"]) == (expected, {}, True)
    # The session itself is no call: its two responses are.
    assert events["dropped"] == {"counted_in_portions": 1}
    for secret in ("sk-test", "xai-test", "prime above"):
        assert secret not in measured.sensor.words()


def test_the_committed_table_is_this_one() -> None:
    rows = [
        f"| {client.program} | {client.api} | {client.http.removesuffix('.0')} | {client.framing} |"
        for client in TABLE
    ]
    section = PAGE.read_text().partition("\n## Read\n")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("|")][2:] == rows
