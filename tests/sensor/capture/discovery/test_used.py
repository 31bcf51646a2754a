"""A target that is used and never fires: told from one that nobody uses, and from one that fires."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsensor.capture.discovery.used import UseWatch
from tests.sensor.capture.recorder import Workload, python, started

pytestmark = pytest.mark.capture

INDEX = 7


class Clock:
    """Seconds, as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Looks:
    """Looks at one target that was attached when this was made."""

    def __init__(self, pid: int) -> None:
        self.fired = 0
        self.others: list[str] = []
        self._clock = Clock()
        self._pid = pid
        self._attached_at = self._clock.now
        self._watch = UseWatch(Path("/proc"), lambda _index: self.fired, self._clock)

    def after(self, seconds: float) -> str:
        self._clock.now += seconds
        assert self._watch.due() is (seconds >= 60 or not seconds)
        return self._watch.doubt(INDEX, self._attached_at, [self._pid], lambda _pid: self.others)


@pytest.fixture
def caller() -> Iterator[Workload]:
    with started(["unshare", "--net", *python("https_port")]) as workload:
        assert workload.line() == "connected"
        yield workload


def connect_again(caller: Workload) -> None:
    caller.go()
    assert caller.line() == "connected"


def test_connections_from_before_prove_nothing(caller: Workload) -> None:
    looks = Looks(caller.pid)
    assert looks.after(0) == ""
    assert looks.after(600) == ""


def test_a_new_connection_without_a_call_is_a_doubt(caller: Workload) -> None:
    looks = Looks(caller.pid)
    assert looks.after(0) == ""
    connect_again(caller)
    assert looks.after(60) == "", "too early to say"
    doubt = looks.after(540)
    assert doubt.startswith(f"used and never fired: process {caller.pid} has opened a connection to port 443")
    assert "in 10 min" in doubt
    assert "another TLS library" in doubt
    looks.others = ["/opt/libgnutls.so.30"]
    assert "it may speak through /opt/libgnutls.so.30" in looks.after(60)


def test_a_call_ends_all_doubt(caller: Workload) -> None:
    looks = Looks(caller.pid)
    looks.after(0)
    connect_again(caller)
    assert looks.after(600)
    looks.fired = 1
    assert looks.after(60) == ""


def test_a_process_that_is_gone_is_no_user(caller: Workload) -> None:
    looks = Looks(caller.pid)
    looks.after(0)
    connect_again(caller)
    caller.process.kill()
    caller.process.wait()
    assert looks.after(600) == ""
