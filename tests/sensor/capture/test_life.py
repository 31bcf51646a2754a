"""When probes come and go: processes and files that appear later, verdicts, a sensor that is killed."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mmproto.reader import Direction
from mmsensor.capture.kernel import syscalls
from mmsensor.capture.options import CaptureOptions, LinkKind
from mmsensor.capture.session import Capture
from tests.sensor.capture.recorder import Seen, python, recording, started
from tests.sensor.capture.test_completeness import Certificate, assert_same, libssl_workload

pytestmark = pytest.mark.capture


def test_a_process_started_later_is_seen_from_its_first_byte(libssl: Path, certificate: Certificate) -> None:
    with recording() as recorder:
        with started(libssl_workload(libssl, certificate, "sizes", sizes=[5, 50_000])) as workload:
            recorder.capture.allow(workload.pid)
            workload.line()
            workload.go()
            workload.line()
            workload.go()
            result = recorder.result(workload)
            recorder.until_closed(2)
        assert_same(recorder, result["ends"])
        assert not any(seen.late for seen in recorder.seen.values())


def test_a_library_never_seen_before_is_found(libssl: Path, certificate: Certificate, tmp_path: Path) -> None:
    """Under a name that says nothing, mapped after the start of the capture."""
    copy = tmp_path / "innocent.bin"
    shutil.copy(libssl, copy)
    with recording() as recorder:
        before = {target.inode for target in recorder.capture.targets()}
        assert copy.stat().st_ino not in before
        with started(libssl_workload(copy, certificate, "sizes", sizes=[77, 30_000])) as workload:
            recorder.capture.allow(workload.pid)
            workload.line()
            recorder.until(
                lambda: any(
                    target.inode == copy.stat().st_ino and target.attached and target.processes == 1
                    for target in recorder.capture.targets()
                ),
                "attached to the copy",
            )
            workload.go()
            workload.line()
            workload.go()
            result = recorder.result(workload)
            recorder.until_closed(2)
        assert_same(recorder, result["ends"])


def test_an_excluded_file_is_left_alone(libssl: Path, certificate: Certificate, tmp_path: Path) -> None:
    copy = tmp_path / "libssl-excluded.so"
    shutil.copy(libssl, copy)
    options = CaptureOptions(exclude=(f"{tmp_path}/*-excluded.so",))
    with (
        started(libssl_workload(copy, certificate, "peeking")) as workload,
        recording([workload.pid], options) as recorder,
    ):
        workload.line()
        recorder.capture.refresh()
        (target,) = (each for each in recorder.capture.targets() if each.path == str(copy))
        assert (target.attached, target.reason) == (False, "excluded")
        workload.go()
        recorder.result(workload)
        recorder.settle()
        assert not recorder.seen


def test_a_file_written_over_is_let_go(libssl: Path, certificate: Certificate, tmp_path: Path) -> None:
    copy = tmp_path / "libssl-copy.so"
    shutil.copy(libssl, copy)
    inode = copy.stat().st_ino
    with recording(options=CaptureOptions(linger_s=0)) as recorder:
        with started(libssl_workload(copy, certificate, "peeking")) as workload:
            workload.line()
            recorder.capture.refresh()
            (target,) = (each for each in recorder.capture.targets() if each.inode == inode)
            assert target.attached
            assert target.processes == 1
            assert target.path == str(copy)
            assert len(target.build_id) == 40
            assert {"SSL_read", "SSL_write", "SSL_read_ex", "SSL_write_ex", "SSL_free"} <= set(target.symbols)
        recorder.capture.refresh()
        assert inode not in {each.inode for each in recorder.capture.targets()}, "unused and not let go"


def test_a_library_without_symbols_has_a_reason(tmp_path: Path) -> None:
    source = tmp_path / "empty.c"
    source.write_text("int nothing_to_see(void) { return 1; }")
    library = tmp_path / "libssl-stripped.so"
    subprocess.run(["clang", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    script = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print('loaded', flush=True); sys.stdin.readline()"
    with recording() as recorder, started([sys.executable, "-c", script, str(library)]) as workload:
        workload.line()
        recorder.capture.refresh()
        (target,) = (each for each in recorder.capture.targets() if each.path == str(library))
        assert not target.attached
        assert target.reason == "no_exported_tls_functions"


def test_a_verdict_stops_the_copying(libssl: Path, certificate: Certificate) -> None:
    command = libssl_workload(libssl, certificate, "verdict", rounds=3)
    with started(command) as workload, recording([workload.pid]) as recorder:
        workload.line()
        workload.go()
        first = json.loads(workload.line())
        recorder.settle()
        assert [len(recorder.by_ssl(end["ssl"])) for end in first] == [1] * 4
        ignored = [key for key in recorder.order if key.ssl in {end["ssl"] for end in first[:2]}]
        for key in recorder.order:
            recorder.capture.set_verdict(key, interesting=key not in ignored)
        events = len(recorder.seen)
        before = recorder.capture.statistics()
        workload.go()
        second = json.loads(workload.line())
        workload.go()
        third = json.loads(workload.line())
        workload.go()
        result = recorder.result(workload)
        recorder.settle()
        after = recorder.capture.statistics()
        assert len(recorder.seen) == events
        for end in result["ends"][2:]:
            assert recorder.by_ssl(end["ssl"])[0].digest(Direction.WRITE) == end["write"]
            assert recorder.by_ssl(end["ssl"])[0].digest(Direction.READ) == end["read"]
        for end, then in zip(first[:2], third[:2], strict=True):
            seen: Seen = recorder.by_ssl(end["ssl"])[0]
            assert seen.size(Direction.WRITE) == end["write"][0] < then["write"][0] or not end["write"][0]
            assert not seen.closed
        moved = sum(end[way][0] for end in third[2:] for way in ("write", "read"))
        earlier = sum(end[way][0] for end in first[2:] for way in ("write", "read"))
        assert after.bytes - before.bytes == moved - earlier
        # 10 writes and 10 reads a round, in both rounds since.
        assert after.ignored_calls - before.ignored_calls == 40
        assert second != third


def test_open_before_attach_is_late(libssl: Path, certificate: Certificate) -> None:
    with started(libssl_workload(libssl, certificate, "sizes", sizes=[1000])) as workload:
        workload.line()
        workload.go()
        assert workload.line() == "connected"
        with recording([workload.pid]) as recorder:
            workload.go()
            recorder.result(workload)
            recorder.until_closed(2)
            assert all(seen.late for seen in recorder.seen.values())


def test_the_sensor_itself_is_not_captured(certificate: Certificate) -> None:
    import ssl

    with recording([os.getpid()]) as recorder:
        context = ssl.create_default_context()
        outgoing = ssl.MemoryBIO()
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        recorder.settle()
        assert not recorder.seen
        assert recorder.capture.statistics().records == 0


def test_close_may_be_called_twice() -> None:
    capture = Capture(CaptureOptions(only_pids=frozenset()))
    capture.start()
    assert any(target.attached for target in capture.targets())
    capture.close()
    capture.close()
    assert capture.targets() == []
    assert capture.statistics().records == 0


def link_ids(pid: int) -> set[int]:
    """BPF links that a process holds."""
    ids = set()
    for info in Path(f"/proc/{pid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):  # a file that was only open for a look
            for line in info.read_text().splitlines():
                if line.startswith("link_id:"):
                    ids.add(int(line.split()[1]))
    return ids


@pytest.mark.parametrize("kind", list(LinkKind))
def test_a_killed_sensor_leaves_nothing_attached(kind: LinkKind) -> None:
    with started(python("sensor", kind.value)) as sensor:
        assert sensor.line() == "started"
        links = link_ids(sensor.pid)
        # On kernels with uprobe_multi every program hangs on a link; perf events are descriptors alone.
        assert len(links) > (5 if kind is LinkKind.UPROBE_MULTI else 0)
        assert all(syscalls.link_exists(link) for link in links)
        sensor.process.kill()
        sensor.process.wait()
        # The last reference goes with the process; the kernel may free it a moment later.
        for _ in range(200):
            if not any(syscalls.link_exists(link) for link in links):
                break
            ctypes.CDLL(None).usleep(10_000)
        assert not any(syscalls.link_exists(link) for link in links)


def test_a_connection_that_only_named_its_host_is_closed(certificate: Certificate) -> None:
    """A handshake that fails leaves nothing open here."""
    with started(python("refused")) as workload, recording([workload.pid]) as recorder:
        workload.line()
        workload.go()
        recorder.result(workload)
        recorder.until_closed(1)
        (seen,) = recorder.seen.values()
        assert seen.hosts == ["nobody.example"]
        assert seen.size(Direction.WRITE) == seen.size(Direction.READ) == 0
