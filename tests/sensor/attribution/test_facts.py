"""Facts about processes: true ones, or none."""

from __future__ import annotations

import getpass
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mmsensor.attribution.facts import TICK_NS, ProcessFacts, ProcessTable, read_facts, systemd_unit


def _started_ns(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]) * TICK_NS


def _fake_process(proc: Path, pid: int, ticks: int, name: str = "x", cgroup: str = "0::/\n") -> None:
    folder = proc / str(pid)
    folder.mkdir(parents=True)
    (folder / "stat").write_text(f"{pid} ({name}) S " + " ".join(["0"] * 18) + f" {ticks} 0 0\n")
    (folder / "comm").write_text(f"{name}\n")
    (folder / "status").write_text("Name:\tx\nUid:\t12345678\t23456789\t0\t0\n")
    (folder / "cgroup").write_text(cgroup)


def test_the_facts_of_a_real_process() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        try:
            # exec replaces the facts of the fork: wait for it, as the first TLS call of a process does.
            while (facts := read_facts(process.pid, _started_ns(process.pid))) and facts.command != "sleep":
                time.sleep(0.01)
            assert facts is not None
            assert Path(facts.exe).name in ("sleep", "coreutils", "busybox")
            assert facts.user == getpass.getuser()
            assert facts.cgroup.startswith("/")
        finally:
            process.kill()


def test_start_time_and_times_agree() -> None:
    started_ns = _started_ns(os.getpid())
    table = ProcessTable()
    process = table.message(table.look(os.getpid(), started_ns + TICK_NS // 2))
    assert process.exe == str(Path(sys.executable).resolve())
    age_s = (time.time_ns() - process.started_at_unix_ns) / 1e9
    assert 0 < age_s < time.clock_gettime(time.CLOCK_BOOTTIME)


def test_another_process_with_the_same_pid_has_no_say() -> None:
    started_ns = _started_ns(os.getpid())
    assert read_facts(os.getpid(), started_ns + TICK_NS) is None
    assert ProcessTable().look(os.getpid(), started_ns - TICK_NS) == ProcessFacts(
        os.getpid(), started_ns - TICK_NS
    )


def test_a_process_that_is_gone_keeps_what_was_seen_of_it(tmp_path: Path) -> None:
    table = ProcessTable(proc=tmp_path)
    _fake_process(tmp_path, 7, 100, name="curl")
    seen = table.look(7, 100 * TICK_NS)
    assert (seen.command, seen.user) == ("curl", "23456789")
    for file in (tmp_path / "7").iterdir():
        file.unlink()
    assert table.look(7, 100 * TICK_NS) == seen
    assert table.look(8, 100 * TICK_NS) == ProcessFacts(8, 100 * TICK_NS)


def test_the_table_forgets_the_oldest(tmp_path: Path) -> None:
    table = ProcessTable(limit=2, proc=tmp_path)
    for pid in (1, 2, 3):
        _fake_process(tmp_path, pid, 1)
        table.look(pid, TICK_NS)
    for file in tmp_path.glob("*/stat"):
        file.unlink()
    assert [table.look(pid, TICK_NS).command for pid in (1, 2, 3)] == ["", "x", "x"]


@pytest.mark.parametrize("name", ["a b", "a) S 1 (b", "((", "\u00fc"])
def test_odd_names_do_not_shift_the_fields(tmp_path: Path, name: str) -> None:
    _fake_process(tmp_path, 7, 4242, name=name)
    facts = read_facts(7, 4242 * TICK_NS, tmp_path)
    assert facts is not None
    assert facts.command == name


@pytest.mark.parametrize(
    ("text", "cgroup", "unit"),
    [
        ("0::/\n", "", ""),
        ("0::/system.slice/nginx.service\n", "/system.slice/nginx.service", "nginx.service"),
        (
            "0::/user.slice/user-1.slice/user@1.service/app.slice/chat.service\n",
            "/user.slice/user-1.slice/user@1.service/app.slice/chat.service",
            "chat.service",
        ),
        ("0::/system.slice/x.service/worker/3\n", "/system.slice/x.service/worker/3", "x.service"),
        ("0::/user.slice/session-4.scope\n", "/user.slice/session-4.scope", "session-4.scope"),
        (
            "12:memory:/m\n1:name=systemd:/system.slice/old.service\n0::/\n",
            "/system.slice/old.service",
            "old.service",
        ),
        ("0::/kubepods/pod:1/c\n", "/kubepods/pod:1/c", ""),
    ],
)
def test_cgroup_and_unit(tmp_path: Path, text: str, cgroup: str, unit: str) -> None:
    _fake_process(tmp_path, 7, 1, cgroup=text)
    facts = read_facts(7, TICK_NS, tmp_path)
    assert facts is not None
    assert (facts.cgroup, facts.systemd_unit, systemd_unit(cgroup)) == (cgroup, unit, unit)
