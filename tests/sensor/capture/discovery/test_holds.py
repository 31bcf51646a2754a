"""Processes that are stopped until their files are examined, and who lets them go when nobody is left to."""

from __future__ import annotations

import ctypes
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmproto.reader import Direction
from mmsensor.capture.options import CaptureOptions
from tests.sensor.capture.recorder import Workload, python, recording, started

pytestmark = pytest.mark.capture

PATIENCE_S = 60.0
#: Longer than any test: only what ends the sensor lets a process go.
FOR_EVER_S = 600.0
#: Runs a command in a process that is no child of ours, when it is told to.
APART = """exec 3<&0; sh -c 'read go; exec "$@"' sh "$@" <&3 & echo $!; wait $!"""


@contextmanager
def sensor(hold_s: float = 0.1, per_second: int = 1000) -> Iterator[Workload]:
    with started(python("holding", hold_s, per_second)) as workload:
        assert workload.line() == "started"
        yield workload


def holds(sensor: Workload) -> dict[str, Any]:
    sensor.go()
    return sensor.result()


def fresh(tmp_path: Path, number: int = 0) -> list[str]:
    """A program that nobody has seen, large enough to be held for, that ends at once."""
    return [str(shutil.copy(Path("/bin/bash"), tmp_path / f"program{number}")), "-c", ":"]


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.01)


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@contextmanager
def held(tmp_path: Path, sensor: Workload) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is held while the sensor itself stands still.

    The keeper allows holds only for a moment after the sensor was last heard of: on a busy machine the first
    process may come too late.
    """
    for number in range(20):
        sensor.process.send_signal(signal.SIGSTOP)
        with subprocess.Popen(fresh(tmp_path, number)) as process:
            until(lambda: process.poll() is not None or state(process.pid) == "T", "held or over")
            if process.returncode is None:
                try:
                    yield process
                finally:
                    process.kill()
                return
        sensor.process.send_signal(signal.SIGCONT)
        holds(sensor)
    raise AssertionError("never held")


def test_the_first_bytes_of_a_brief_process_are_captured(
    brief: Path, port: int, libssl: Path, tmp_path: Path
) -> None:
    """It loads a libssl that nobody has seen, writes and reads at once, and ends."""
    size, runs = 1000, 5
    with recording(options=CaptureOptions(hold_first_exec=True, hold_s=10)) as recorder:
        for number in range(runs):
            copy = shutil.copy(libssl, tmp_path / f"libssl{number}.so")
            command = ["sh", "-c", APART, "sh", str(brief), str(port), str(size), str(copy)]
            with started(command) as workload:
                pid = int(workload.line())
                recorder.capture.allow(pid)
                workload.go()
                recorder.until(lambda: workload.process.poll() is not None, "the end")
                assert workload.process.returncode == 0
            recorder.until_closed(number + 1)
            (seen,) = (seen for key, seen in recorder.seen.items() if key.pid == pid)
            assert bytes(seen.data[Direction.WRITE]) == b"x" * (size - 1) + b"\n"
            assert len(seen.data[Direction.READ]) == size
        statistics = recorder.capture.statistics().holds
        assert statistics is not None
        assert statistics.held >= runs
        assert statistics.let_go >= runs
        assert statistics.too_long == 0
        assert statistics.keeper_alive


def test_what_was_seen_is_not_held_again(tmp_path: Path) -> None:
    with sensor(FOR_EVER_S) as watching:
        command = fresh(tmp_path)
        before = holds(watching)["held"]
        assert subprocess.run(command, check=False).returncode == 0
        until(lambda: holds(watching)["held"] > before, "the first one held")
        copies = [subprocess.Popen(command) for _ in range(20)]
        assert [each.wait(PATIENCE_S) for each in copies] == [0] * 20
        # Others on this machine may start new programs meanwhile, but not twenty.
        assert holds(watching)["held"] < before + 20


def test_a_killed_sensor_leaves_nobody_stopped(tmp_path: Path) -> None:
    with sensor(FOR_EVER_S) as watching, held(tmp_path, watching) as process:
        watching.process.kill()
        assert process.wait(PATIENCE_S) == 0


def test_a_stuck_sensor_leaves_nobody_stopped(tmp_path: Path) -> None:
    with sensor(hold_s=0.5) as watching, held(tmp_path, watching) as process:
        assert process.wait(PATIENCE_S) == 0
        watching.process.send_signal(signal.SIGCONT)
        until(lambda: holds(watching)["too_long"] >= 1, "counted")


def test_who_is_stopped_by_somebody_else_stays_so(tmp_path: Path) -> None:
    with sensor(FOR_EVER_S) as watching, held(tmp_path, watching) as process:
        process.send_signal(signal.SIGSTOP)
        watching.process.send_signal(signal.SIGCONT)
        until(lambda: holds(watching)["left_stopped"] >= 1, "left alone")
        assert state(process.pid) == "T"
        process.send_signal(signal.SIGCONT)
        assert process.wait(PATIENCE_S) == 0


def test_without_a_keeper_nobody_is_held(tmp_path: Path) -> None:
    with sensor(FOR_EVER_S) as watching:
        children = Path(f"/proc/{watching.pid}/task/{watching.pid}/children")
        (keeper,) = (
            int(pid)
            for pid in children.read_text().split()
            if b"keeper" in Path(f"/proc/{pid}/cmdline").read_bytes()
        )
        os.kill(keeper, signal.SIGTERM)  # it does not mind
        until(lambda: holds(watching)["keeper_alive"], "alive")
        os.kill(keeper, signal.SIGKILL)
        until(lambda: not holds(watching)["keeper_alive"], "gone")
        numbers = iter(range(10_000))

        def one_not_held() -> bool:
            assert subprocess.run(fresh(tmp_path, next(numbers)), check=False).returncode == 0
            return bool(holds(watching)["not_held"]["no_keeper"])

        until(one_not_held, "not held for want of a keeper")


def test_a_process_on_a_terminal_is_not_held(tmp_path: Path) -> None:
    with sensor() as watching:
        ours, theirs = pty.openpty()
        command = ["setsid", "--wait", "--ctty", *fresh(tmp_path)]
        assert subprocess.run(command, stdin=theirs, check=False).returncode == 0
        assert holds(watching)["not_held"]["on_a_terminal"] >= 1
        os.close(ours)
        os.close(theirs)


def test_a_process_with_threads_is_not_held(libssl: Path, tmp_path: Path) -> None:
    copy = shutil.copy(libssl, tmp_path / "libssl.so")
    script = (
        "import ctypes, sys, threading\n"
        "threading.Thread(target=sys.stdin.read).start()\n"
        "ctypes.CDLL(sys.argv[1])"
    )
    command = [sys.executable, "-c", script, copy]
    with sensor() as watching, subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        until(lambda: holds(watching)["not_held"]["several_threads"] >= 1, "not held")
        process.communicate(b"", PATIENCE_S)


def test_a_traced_process_is_not_held(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)
    trace_me, go_on = 0, 7
    with sensor() as watching:
        process = subprocess.Popen(
            fresh(tmp_path),
            preexec_fn=lambda: libc.ptrace(trace_me, 0, 0, 0),  # noqa: PLW1509
        )
        _, status = os.waitpid(process.pid, 0)
        assert os.WIFSTOPPED(status)
        assert os.WSTOPSIG(status) == signal.SIGTRAP, "the stop of the tracer and not ours"
        libc.ptrace(go_on, process.pid, 0, 0)
        assert process.wait(PATIENCE_S) == 0
        assert holds(watching)["not_held"]["traced"] >= 1


def test_holds_are_limited(tmp_path: Path) -> None:
    with sensor(per_second=1) as watching:
        programs = [subprocess.Popen(fresh(tmp_path, number)) for number in range(20)]
        assert [each.wait(PATIENCE_S) for each in programs] == [0] * 20
        assert holds(watching)["not_held"]["limit"] >= 1


def test_stopping_lets_everybody_go(tmp_path: Path) -> None:
    with sensor(FOR_EVER_S) as watching, held(tmp_path, watching) as process:
        assert watching.process.stdin is not None
        watching.process.stdin.close()
        watching.process.send_signal(signal.SIGCONT)
        assert process.wait(PATIENCE_S) == 0
        assert watching.process.wait(PATIENCE_S) == 0
