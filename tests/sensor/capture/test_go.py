"""Go programs captured: goroutines that move between threads, on stacks that move in memory.

The clients (clients/go) have both ends of their connections in one process, and say of every Conn what its
calls returned. A Conn that is dropped leaves its address to the next, so that several may have one address.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmproto.reader import Direction
from mmsensor.capture.options import CaptureOptions
from tests.sensor.capture.clients import go
from tests.sensor.capture.recorder import Recorder, Seen, Workload, recording, started

pytestmark = pytest.mark.capture

#: Room for all that a scenario sends, so that nothing depends on who gets the processor.
OPTIONS = CaptureOptions(ring_bytes=64 << 20)
Run = Callable[..., Any]


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return go.build(tmp_path_factory.mktemp("go") / "client", "-ldflags=-s -w")


@pytest.fixture
def run(client: Path, certificate: tuple[Path, Path]) -> Run:
    @contextmanager
    def ran(scenario: str, count: int, size: int) -> Iterator[tuple[Recorder, dict[str, Any]]]:
        arguments = [str(client), scenario, *map(str, certificate), str(count), str(size)]
        with started(arguments) as workload, recording([workload.pid], OPTIONS) as recorder:
            workload.line()
            await_probes(recorder, client)
            workload.go()
            result = recorder.result(workload)
            recorder.settle()
            yield recorder, result
            nothing_lost(recorder)
            leave(workload)

    return ran


def await_probes(recorder: Recorder, client: Path) -> None:
    def attached() -> bool:
        return any(each.attached and each.path == str(client) for each in recorder.capture.targets())

    recorder.until(attached, "the client is probed")


def nothing_lost(recorder: Recorder) -> None:
    assert not recorder.lost()
    assert not any(recorder.capture.statistics().lost.values()), recorder.capture.statistics()


def leave(workload: Workload) -> None:
    workload.leave()
    assert workload.process.returncode == 0, "probes must not harm the program"


def moved(seen: Seen) -> tuple[list[Any], list[Any]]:
    return seen.digest(Direction.WRITE), seen.digest(Direction.READ)


def assert_captured(recorder: Recorder, result: dict[str, Any]) -> list[Seen]:
    """Every Conn to the byte, each as a connection of its own, known from its beginning."""
    said = defaultdict(list)
    for conn in result["connections"]:
        if conn["write"][0] or conn["read"][0]:
            said[conn["ssl"]].append((conn["write"], conn["read"]))
    captured = {ssl: recorder.by_ssl(ssl) for ssl in said}
    for ssl, conns in said.items():
        assert sorted(map(moved, captured[ssl])) == sorted(conns)
    assert not any(seen.late for seen in recorder.seen.values())
    assert len(recorder.seen) == sum(map(len, captured.values()))
    return list(recorder.seen.values())


@pytest.mark.parametrize(
    ("scenario", "count", "size"),
    [
        ("calls", 20, 300_000),  # both directions of a connection at once, in goroutines of their own
        ("pieces", 1, 65_536),  # around every edge of a record's size
        ("http1", 5, 1_000_000),
        ("tunnel", 3, 50_000),  # a call within a call
    ],
)
def test_bytes_written_are_bytes_captured(scenario: str, count: int, size: int, run: Run) -> None:
    with run(scenario, count, size) as (recorder, result):
        for seen in assert_captured(recorder, result):
            assert seen.closed == "ssl_free"


def test_http2_at_both_ends(run: Run) -> None:
    with run("http2", 5, 1_000_000) as (recorder, _result):
        clients = [
            seen for seen in recorder.seen.values() if seen.data[Direction.WRITE].startswith(b"PRI * ")
        ]
        servers = [seen for seen in recorder.seen.values() if seen not in clients]
        talked = [seen for seen in servers if seen.size(Direction.READ)]
        assert clients
        assert len(talked) == len(clients)
        for client in clients:
            (server,) = (seen for seen in talked if seen.data[Direction.READ] == client.data[Direction.WRITE])
            # A server's farewell may come when the client reads no longer.
            assert server.data[Direction.WRITE].startswith(client.data[Direction.READ])
            assert client.size(Direction.READ) > 1_000_000
        assert not any(seen.late for seen in recorder.seen.values())


def test_a_buffer_on_a_stack_that_moves(run: Run) -> None:
    with run("stack", 5, 20_000) as (recorder, result):
        assert result["moved"], "the scenario is worth nothing where no stack moved"
        assert_captured(recorder, result)


def test_connections_without_a_close_that_share_an_address(run: Run) -> None:
    with run("abandoned", 30, 1000) as (recorder, result):
        addresses = {conn["ssl"] for conn in result["connections"]}
        assert len(addresses) < len(result["connections"]), "no address was used again"
        reasons = {seen.closed for seen in assert_captured(recorder, result)}
        assert reasons <= {"ssl_free", ""}


def test_writes_that_fail_half_way(run: Run) -> None:
    with run("cut", 2, 3000) as (recorder, result):
        assert result["partly"] == 2
        assert_captured(recorder, result)


def test_a_program_that_began_before(client: Path, certificate: tuple[Path, Path]) -> None:
    """Probes that come and go in the middle of calls: what follows is captured, and the program lives."""
    arguments = [str(client), "http1", *map(str, certificate), "200000", "3000"]
    with started(arguments) as workload:
        workload.line()
        workload.go()
        for _ in range(3):
            with recording([workload.pid], OPTIONS) as recorder:
                await_probes(recorder, client)
                enough(recorder)
                assert any(seen.late for seen in recorder.seen.values())
            assert workload.process.poll() is None, "probes must not harm the program"


def enough(recorder: Recorder) -> None:
    recorder.until(lambda: recorder.total(Direction.READ) > 100_000, "it is captured")
