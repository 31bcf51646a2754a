"""The sensor as an ordinary user: with its five capabilities, and with each of them taken away."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmproto.exits import Exit
from mmsensor.capture.kernel import privileges
from mmsensor.capture.kernel.privileges import RIGHTS, When, Without
from mmsensor.capture.options import LinkKind
from tests.sensor.capture.recorder import PATIENCE_S, Workload, python, started
from tests.sensor.capture.test_completeness import Certificate
from tests.sensor.limited import FIVE, NOBODY, limited, open_to_all

pytestmark = pytest.mark.capture

SIZE = 70_001
UNITS = Path(__file__).parents[3] / "systemd"


def without(name: str) -> tuple[str, ...]:
    return tuple(each for each in FIVE if each != name)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """An empty folder, to be filled with the processes that a capture may see."""
    folder = tmp_path / "proc"
    folder.mkdir()
    open_to_all(folder)
    return folder


@contextmanager
def capturing(
    capabilities: Collection[str], proc: Path, pids: Collection[int], kind: LinkKind | None = None
) -> Iterator[tuple[Workload, dict[str, Any]]]:
    """A capture with these rights of the first of `pids`, and what it said about its start."""
    for pid in pids:
        (proc / str(pid)).symlink_to(f"/proc/{pid}")
    command = python("limited", kind or "", proc, next(iter(pids)))
    with started(limited(capabilities, command)) as sensor:
        yield sensor, sensor.result()


def loopback(certificate: Certificate) -> list[str]:
    return python("loopback", *certificate, "threads", 3, SIZE)


def test_a_user_with_five_capabilities_captures_every_byte_of_another_users_process(
    certificate: Certificate, proc: Path
) -> None:
    with started(loopback(certificate)) as workload:
        workload.line()
        with capturing(FIVE, proc, [workload.pid]) as (sensor, start):
            assert start["shortfalls"] == []
            assert len(start["attached"]) == 1
            workload.go()
            sent = workload.result()["bytes_each_way"]
            assert sent == 3 * SIZE
            sensor.go()
            # Both ends of each connection are in the one process, and what comes back is what was sent.
            assert {"write": 2 * sent, "read": 2 * sent} == sensor.result()


@pytest.mark.parametrize("name", ["CAP_BPF", "CAP_PERFMON"])
def test_without_the_right_to_load_it_does_not_start_and_says_which(name: str, proc: Path) -> None:
    with capturing(without(name), proc, [os.getpid()]) as (_sensor, start):
        assert start == {"refused": f"no permission to load probes ({name})"}


def test_sys_admin_stands_for_the_finer_rights_of_newer_kernels(proc: Path) -> None:
    rights = ("CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE")
    with capturing(rights, proc, [os.getpid()]) as (_sensor, start):
        assert start["shortfalls"] == []


@pytest.fixture
def libraries(tmp_path: Path, libssl: Path) -> dict[str, Path]:
    """Copies of libssl: for all, for their owner alone, to be deleted, to be in another mount namespace."""
    places = {
        "open": tmp_path / "open" / "libssl-open.so",
        "closed": tmp_path / "closed" / "libssl-closed.so",
        "gone": tmp_path / "open" / "gone-libssl.so",
    }
    for path in places.values():
        path.parent.mkdir(exist_ok=True)
        shutil.copy(libssl, path)
    open_to_all(tmp_path / "open")
    (tmp_path / "closed").chmod(0o700)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    return {**places, "elsewhere": elsewhere / "libssl-elsewhere.so"}


@contextmanager
def mapped(libraries: dict[str, Path], libssl: Path) -> Iterator[list[int]]:
    """Processes of root's that have mapped them: their pids."""
    here = [str(libraries[name]) for name in ("open", "closed", "gone")]
    there = libraries["elsewhere"]
    hidden = [
        *("unshare", "--mount", "--propagation", "private", "sh", "-euc"),
        'mount -t tmpfs -o mode=755 none "$1"; cp "$2" "$3"; shift 3; exec "$@"',
        *("sh", str(there.parent), str(libssl), str(there)),
    ]
    with (
        started(python("mapping", *here)) as first,
        started([*hidden, *python("mapping", there)]) as second,
    ):
        first.line()
        second.line()
        yield [first.pid, second.pid]


@pytest.mark.parametrize(
    ("missing", "lost"),
    [
        ("", set()),
        ("CAP_SYS_PTRACE", {"gone", "elsewhere"}),
        ("CAP_DAC_READ_SEARCH", {"closed", "gone"}),
        ("CAP_CHECKPOINT_RESTORE", {"gone"}),
    ],
)
def test_what_is_lost_without_a_right_is_what_the_table_says(
    missing: str, lost: set[str], libraries: dict[str, Path], libssl: Path, proc: Path
) -> None:
    with (
        mapped(libraries, libssl) as pids,
        capturing(without(missing), proc, pids) as (_sensor, start),
    ):
        covered = {name for name, path in libraries.items() if str(path) in start["attached"]}
        if missing == "CAP_SYS_PTRACE" and not _perfmon_shows_mappings():
            assert covered == set()
        else:
            assert covered == set(libraries) - lost
        expected = [f"without {each.name}, {each.lost}" for each in RIGHTS if each.name == missing]
        assert start["shortfalls"] == expected


def _perfmon_shows_mappings() -> bool:
    """Since Linux 6.15, CAP_PERFMON lets one read other users' /proc/PID/maps."""
    major, minor = os.uname().release.split(".")[:2]
    return (int(major), int(minor)) >= (6, 15)


def test_probes_on_perf_events_ask_for_what_the_kernel_asks_for(certificate: Certificate, proc: Path) -> None:
    """CAP_SYS_ADMIN on kernels with the fix of CVE-2025-38466, the five before it."""
    with started(loopback(certificate)) as workload:
        workload.line()
        with capturing(FIVE, proc, [workload.pid], LinkKind.PERF_EVENT) as (_sensor, start):
            if "refused" in start:
                assert start["refused"] == "no permission to attach probes as perf events (CAP_SYS_ADMIN)"
            else:
                assert len(start["attached"]) == 1
        (proc / str(workload.pid)).unlink()
        with capturing((*FIVE, "CAP_SYS_ADMIN"), proc, [workload.pid], LinkKind.PERF_EVENT) as (sensor, _):
            workload.go()
            sent = workload.result()["bytes_each_way"]
            sensor.go()
            assert sensor.result() == {"write": 2 * sent, "read": 2 * sent}


def test_in_a_user_namespace_full_capabilities_are_not_enough_and_it_says_so(proc: Path) -> None:
    (proc / "1").symlink_to("/proc/1")
    with started(["unshare", "--user", "--map-root-user", *python("limited", "", proc, 1)]) as sensor:
        assert "this is a user namespace" in sensor.result()["refused"]


def test_in_a_pid_namespace_it_does_not_start_rather_than_match_nothing(proc: Path) -> None:
    (proc / "1").symlink_to("/proc/1")
    with started(["unshare", "--pid", "--fork", "--mount-proc", *python("limited", "", proc, 1)]) as sensor:
        assert "this is a pid namespace" in sensor.result()["refused"]


@pytest.mark.parametrize("missing", ["", "CAP_CHECKPOINT_RESTORE"])
def test_the_daemon_of_an_ordinary_user(missing: str, tmp_path: Path) -> None:
    """State folder, spool, token and socket are that user's; what it lacks is a reason of the verdict."""
    state = tmp_path / "state"
    state.mkdir()
    open_to_all(tmp_path)
    os.chown(state, NOBODY, NOBODY)
    mmsensor = [str(Path(sys.executable).parent / "mmsensor")]
    command = [
        *mmsensor,
        "run",
        "--state-dir",
        str(state),
        "--metrics-listen",
        "",
        "--only-pid",
        str(os.getpid()),
    ]
    daemon = subprocess.Popen(limited(without(missing), command), stderr=subprocess.PIPE, text=True)
    try:
        status = _status(daemon, limited([], [*mmsensor, "status", "-o", "json", "--state-dir", str(state)]))
    finally:
        daemon.send_signal(signal.SIGTERM)
        _, errors = daemon.communicate(timeout=PATIENCE_S)
    assert daemon.returncode == Exit.OK, errors
    sentences = [reason for reason in status["reasons"] if reason.startswith("without CAP_")]
    assert sentences == [f"without {each.name}, {each.lost}" for each in RIGHTS if each.name == missing]
    assert all(sentence in errors for sentence in sentences), "in the journal too"
    if missing:
        assert status["verdict"] == "degraded"
    files = [path for path in state.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"spool.sqlite", "hash.key", "ingest.token"}
    assert {path.stat().st_uid for path in files} == {NOBODY}
    for secret in ("ingest.token", "sensor/hash.key", "sensor/spool.sqlite"):
        assert stat.S_IMODE((state / secret).stat().st_mode) == 0o600


def _status(daemon: subprocess.Popen[str], command: list[str]) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and daemon.poll() is None:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode != Exit.UNREACHABLE:
            document: dict[str, Any] = json.loads(asked.stdout)
            return document
        time.sleep(0.2)
    raise AssertionError("the daemon never answered")


# -- the table, and what else is written from it -------------------------------------------------------


def test_a_status_that_cannot_be_read_grants_nothing(tmp_path: Path) -> None:
    assert privileges.held(tmp_path / "nothing") == frozenset()
    (tmp_path / "status").write_text("Name:\tx\nCapEff:\tnonsense\n")
    assert privileges.held(tmp_path / "status") == frozenset()


@pytest.mark.parametrize("right", RIGHTS, ids=lambda right: right.name)
def test_each_right_is_read_from_its_bit_and_missed_by_its_name(
    right: privileges.Right, tmp_path: Path
) -> None:
    status = tmp_path / "status"
    status.write_text(f"Name:\tx\nCapEff:\t{1 << right.number:016x}\n")
    held = privileges.held(status)
    assert right.name in held
    assert right.name not in {each.name for each in privileges.missing(list(When), among=held)}
    assert right.name in {each.name for each in privileges.missing(list(When), among=())}


def test_the_unit_grants_what_is_always_needed_and_the_drop_in_what_old_kernels_ask_for() -> None:
    def granted(file: str) -> list[str]:
        lines = (UNITS / file).read_text().splitlines()
        return next(line.partition("=")[2].split() for line in lines if line.startswith("AmbientCap"))

    def needed(when: When) -> list[str]:
        return [right.name for right in RIGHTS if right.when is when]

    assert granted("modelmeter-sensor.service") == needed(When.ALWAYS) == list(FIVE)
    assert granted("sensor-before-linux-6.6.conf") == needed(When.PERF_EVENTS)


def test_what_is_only_needed_at_times_is_not_missed_at_others() -> None:
    assert privileges.missing(among=FIVE) == []
    (right,) = privileges.missing((When.ALWAYS, When.HOLDING), among=FIVE)
    assert (right.name, right.without) == ("CAP_KILL", Without.DEGRADES)
