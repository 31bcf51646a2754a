"""What SDKs exchange with providers, captured from their TLS by the sensor: every number as answered.

The clients negotiate HTTP/1.1 or HTTP/2 as they always do. Needs root and a kernel that attaches uprobes;
fails, never skips, where it cannot run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from tests.e2e.reading.answers import PLAN, Read
from tests.e2e.reading.clients import TABLE, Client, Held, held
from tests.e2e.reading.server import Servers, serving
from tests.e2e.stack import ROOT, NotReady, Stack, running_stack, wait_for

pytestmark = pytest.mark.capture

PAGE = ROOT / "docs" / "coverage.md"
#: A library that the sensor has never seen and whose code it has to search takes seconds, once.
SEARCHED_WITHIN_S = 180.0


@dataclass(frozen=True, slots=True)
class Measured:
    """The clients, and the sensor that measures them and nobody else."""

    servers: Servers
    stack: Stack
    clients: dict[str, Held]

    def calls(self, pid: int | None = None) -> list[dict[str, Any]]:
        path = self.stack.state / "calls.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        calls = [json.loads(line) for line in lines if line.endswith("\n")]
        return [call for call in calls if pid in (None, call["process"]["pid"])]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measured]:
    folder = tmp_path_factory.mktemp("reading")
    state = folder / "state"
    state.mkdir()
    with serving(folder) as servers, held(servers) as clients, running_stack(state) as stack, mapped():
        flags = [f"--only-pid={client.pid}" for client in clients.values()]
        stack.start(
            "sensor", {"sink": f"jsonl:{state}/calls.jsonl", "metrics": {"listen": "127.0.0.1:0"}}, *flags
        )
        wait_for("grpcio's TLS is found", lambda: _attached(stack, "cygrpc"), SEARCHED_WITHIN_S)
        yield Measured(servers, stack, clients)


@contextmanager
def mapped() -> Iterator[None]:
    """A process that has grpcio's library mapped, so that the sensor knows it before its first call."""
    with subprocess.Popen(
        [sys.executable, "-c", "import grpc, sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as process:
        yield
        process.communicate()
        assert process.returncode == 0


def _attached(stack: Stack, library: str) -> bool:
    targets = stack.sensor_status()["targets"]
    return any(library in target["path"] and target["attached"] for target in targets)


@pytest.mark.parametrize("client", TABLE, ids=lambda client: client.name)
def test_what_was_answered_is_what_was_read(client: Client, measured: Measured) -> None:
    process = measured.clients[client.name]
    before = len(measured.servers.journal())
    process.run()
    served = measured.servers.journal()[before:]
    assert {entry["http"] for entry in served} == ({client.http} if client.answers else set())
    assert sorted(entry["answer"] for entry in served) == sorted(map(PLAN.index, client.answers))
    try:
        wait_for(
            f"{len(client.read)} calls of {client.name}",
            lambda: len(measured.calls(process.pid)) >= len(client.read),
        )
    except NotReady as late:
        status = json.dumps(measured.stack.sensor_status()["events"])
        raise NotReady(f"{late}\n{measured.calls(process.pid)}\n{status}") from late
    calls = map(_as_read, measured.calls(process.pid))
    assert sorted(calls, key=repr) == sorted(client.read, key=repr)


def test_nothing_else_was_read(measured: Measured) -> None:
    """After all clients: no call twice, none that cannot be accounted for, no secret kept."""
    expected = sum(len(client.read) for client in TABLE)
    calls = measured.calls()
    assert len({call["id"] for call in calls}) == len(calls) == expected
    events = measured.stack.sensor_status()["events"]
    assert (events["emitted"], events["failed"], events["balanced"]) == (expected, {}, True)
    # The session itself is no call: its two responses are.
    assert events["dropped"] == {"counted_in_portions": 1}
    kept = (measured.stack.state / "calls.jsonl").read_text() + (
        measured.stack.state / "sensor.log"
    ).read_text()
    for secret in ("sk-test", "xai-test", "prime above"):
        assert secret not in kept


def test_the_committed_table_is_this_one() -> None:
    rows = [
        f"| {client.program} | {client.api} | {client.http.removesuffix('.0')} | {client.framing} |"
        for client in TABLE
    ]
    section = PAGE.read_text().partition("\n## Read\n")[2].partition("\n## ")[0]
    assert [line for line in section.splitlines() if line.startswith("|")][2:] == rows


def _as_read(call: dict[str, Any]) -> Read:
    return Read(
        call["provider"],
        call["operation"],
        call["request_model"],
        call.get("response_model", ""),
        call["streaming"],
        {bucket: count for bucket, count in call["usage"]["buckets"].items() if count},
        call["usage"]["quality"],
        call.get("reported_cost_usd", ""),
    )
