"""Calls that call each other, call back, lie or never return."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmproto.reader import Direction
from tests.sensor.capture.recorder import WORKLOADS, Recorder, python, recording, started
from tests.sensor.capture.workloads.control import pattern

pytestmark = pytest.mark.capture


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("odd") / "odd_tls.so"
    subprocess.run(
        ["clang", "-O2", "-fPIC", "-shared", str(WORKLOADS / "odd_tls.c"), "-o", str(built)], check=True
    )
    return built


@contextmanager
def running(library: Path, scenario: str) -> Iterator[tuple[Recorder, dict[str, Any]]]:
    with started(python("odd", library, scenario)) as workload:
        # The library is loaded before the capture looks for it: nobody waits for the probes here.
        workload.line()
        with recording([workload.pid]) as recorder:
            workload.go()
            result = recorder.result(workload)
            recorder.settle()
            yield recorder, result


def test_a_call_inside_a_call_is_counted_once(library: Path) -> None:
    with running(library, "jumps") as (recorder, _result):
        (seen,) = recorder.seen.values()
        expected = b"".join(pattern(size) * 2 for size in (10, 300, 20_000))
        assert bytes(seen.data[Direction.WRITE]) == expected
        statistics = recorder.capture.statistics()
        assert statistics.calls == 6
        assert statistics.nested_calls == 3, "three plain calls; the jumps take each other's place"


def test_callbacks_are_calls_of_their_own(library: Path) -> None:
    with running(library, "callbacks") as (recorder, result):
        one, other = (recorder.by_ssl(ssl)[0] for ssl in result["ssl"])
        assert bytes(one.data[Direction.WRITE]) == b"request"
        assert bytes(one.data[Direction.READ]) == b"r" * 17
        assert bytes(other.data[Direction.READ]) == b"r" * 31


def test_lies_are_counted_and_harm_nothing(library: Path) -> None:
    with running(library, "lies") as (recorder, _result):
        (seen,) = recorder.seen.values()
        assert [(gap.direction, gap.offset, gap.size) for gap in seen.gaps] == [(Direction.WRITE, 0, 5000)]
        assert bytes(seen.data[Direction.WRITE]) == b"honest"
        assert not seen.data[Direction.READ]
        statistics = recorder.capture.statistics()
        assert statistics.lost["bad_return"] == 2
        assert statistics.lost["stale_call"] == 1
        assert statistics.lost["unreadable"] == 1
        assert statistics.lost_bytes["unreadable"] == 5000


def test_a_signal_handler_is_no_part_of_the_call_it_interrupts(library: Path) -> None:
    with running(library, "signals") as (recorder, result):
        interrupted, handlers = (recorder.by_ssl(ssl)[0] for ssl in result["ssl"])
        assert bytes(interrupted.data[Direction.READ]) == b"r" * 100
        assert bytes(handlers.data[Direction.WRITE]) == b"from the handler"
        assert not any(recorder.capture.statistics().lost.values())


def test_a_buffer_in_no_page_table_is_counted(library: Path) -> None:
    with running(library, "untouched") as (recorder, _result):
        (seen,) = recorder.seen.values()
        statistics = recorder.capture.statistics()
        assert seen.size(Direction.WRITE) == 5007
        assert statistics.lost_bytes["unreadable"] == seen.lost()
        assert bytes(seen.data[Direction.WRITE]) == (b"" if seen.gaps else pattern(5000)) + b"touched"
