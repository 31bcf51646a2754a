"""`make up` and `make demo`: started, looked at, and stopped as a person would."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.stack import wait_for
from tests.packaging.repository import ROOT

pytestmark = pytest.mark.capture

FREE_PORTS = ("--pipeline-port", "0", "--router-port", "0", "--metrics-port", "0")
STARTED = "Ctrl-C stops everything"


class Local:
    """`python -m mmlocal` as the Makefile runs it, its output up to where it has started."""

    def __init__(self, what: str, state: Path, *ports: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mmlocal", what, "--state", str(state), *ports],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": "packaging/local:."},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self._output = self.process.stdout
        self.text = ""
        for line in self._output:
            self.text += line
            if STARTED in line:
                break

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Signal it, and read the rest of what it says. Returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.text += self._output.read()
        self._output.close()
        return self.process.wait()


@contextmanager
def local(what: str, state: Path, *ports: str) -> Iterator[Local]:
    running = Local(what, state, *ports)
    try:
        yield running
    finally:
        if not running._output.closed:
            running.end()


def daemons_of(state: Path) -> list[int]:
    """The processes that work on this state folder."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                environment = (folder / "environ").read_bytes()
            except OSError:
                continue
            if f"MODELMETER_STATE_DIR={state}\0".encode() in environment:
                found.append(int(folder.name))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_says_where_everything_is_and_stops_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with local("up", tmp_path, *FREE_PORTS) as running:
        assert re.search(r"dashboard  http://127\.0\.0\.1:\d+/", running.text), running.text
        assert "router     http://127.0.0.1:" in running.text
        assert "sensor     attached to " in running.text
        assert len(daemons_of(tmp_path)) == 3
        second = Local("up", tmp_path, *FREE_PORTS)
        assert second.end() == 1
        assert "is in use by process" in second.text
        assert running.end(number) == 0
    assert running.text.rstrip().endswith(str(tmp_path))
    assert daemons_of(tmp_path) == []
    assert {path.name for path in (tmp_path / "log").iterdir()} == {
        "pipeline.log",
        "sensor.log",
        "router.log",
    }


def test_a_daemon_that_dies_is_named_and_the_others_are_stopped(tmp_path: Path) -> None:
    with local("up", tmp_path, *FREE_PORTS) as running:
        (router,) = [
            pid for pid in daemons_of(tmp_path) if b"mmrouter" in Path(f"/proc/{pid}/cmdline").read_bytes()
        ]
        os.kill(router, signal.SIGKILL)
        running.process.wait()
        assert running.end() == 1
    assert "router was killed by SIGKILL" in running.text
    assert daemons_of(tmp_path) == []


def test_a_port_in_use_is_one_clear_line_and_what_to_do(tmp_path: Path) -> None:
    with local("up", tmp_path / "first", *FREE_PORTS) as running:
        taken = re.findall(r"dashboard  http://127\.0\.0\.1:(\d+)/", running.text)[0]
        second = Local("up", tmp_path / "second", "--pipeline-port", taken, *FREE_PORTS[2:])
        assert second.end() == 1
    assert f"cannot listen on 127.0.0.1:{taken}" in second.text
    assert "make up PIPELINE_PORT=0" in second.text
    assert "Traceback" not in second.text


def test_the_demo_fills_every_team_and_blocks_one(tmp_path: Path) -> None:
    with local("demo", tmp_path, *FREE_PORTS) as running:
        assert STARTED in running.text, running.text
        state = tmp_path / "demo"
        report = [str(Path(sys.executable).parent / "mmpipeline"), "report"]
        teams = ("search", "support", "platform", "commerce", "web", "growth")

        def everyone_seen() -> bool:
            environment = {**os.environ, "MODELMETER_STATE_DIR": str(state)}
            done = subprocess.run(report, env=environment, capture_output=True, text=True, check=False)
            return all(re.search(rf"^{team} ", done.stdout, re.MULTILINE) for team in teams)

        def refused() -> bool:
            return "budget 'growth'" in (state / "log/newsletter.log").read_text()

        wait_for("calls of every team", everyone_seen, within_s=120)
        wait_for("a refused call", refused, within_s=120)
        assert running.end() == 0
    assert daemons_of(state) == []
