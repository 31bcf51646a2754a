"""What programs do with SSL objects besides writing and reading: bytes written are bytes captured, still."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmproto.reader import Direction
from tests.sensor.capture.recorder import Recorder, Workload, python, recording, started
from tests.sensor.capture.test_completeness import Certificate, assert_same

pytestmark = pytest.mark.capture


@contextmanager
def living(
    library: Path, certificate: Certificate, scenario: str, **arguments: object
) -> Iterator[tuple[Recorder, Workload]]:
    command = python("lives", library, *certificate, scenario, json.dumps(arguments))
    with started(command) as workload, recording([workload.pid]) as recorder:
        workload.line()
        workload.go()
        yield recorder, workload


def run(library: Path, certificate: Certificate, scenario: str, **arguments: object) -> dict[str, Any]:
    """Runs a scenario, and holds every connection of its report against what was captured."""
    with living(library, certificate, scenario, **arguments) as (recorder, workload):
        result = recorder.result(workload)
        recorder.until_closed(len(result["ends"]))
        assert_same(recorder, result["ends"])
        assert not any(seen.late for seen in recorder.seen.values())
        assert not any(recorder.capture.statistics().lost.values())
        return result


def test_a_cleared_ssl_object_is_another_connection(libssl: Path, certificate: Certificate) -> None:
    result = run(libssl, certificate, "clear", uses=5)
    assert len({end["ssl"] for end in result["ends"]}) == 2


def test_a_child_goes_on_with_its_parents_connection(libssl: Path, certificate: Certificate) -> None:
    """Its bytes are the child's: the kernel never saw its connection begin, so that one is late."""
    with living(libssl, certificate, "fork") as (recorder, workload):
        child = json.loads(workload.line())["child"]
        recorder.capture.allow(child)
        workload.go()
        result = recorder.result(workload)
        recorder.until_closed(4)
        for pid, ends in ((workload.pid, result["ends"]), (child, result["theirs"])):
            for end in ends:
                (seen,) = (
                    seen for key, seen in recorder.seen.items() if (key.pid, key.ssl) == (pid, end["ssl"])
                )
                assert seen.late == (pid == child)
                assert not seen.gaps
                assert seen.digest(Direction.WRITE) == end["write"]
                assert seen.digest(Direction.READ) == end["read"]
                assert seen.closed == ("process_exit" if pid == child else "ssl_free")


def test_threads_pass_connections_on(libssl: Path, certificate: Certificate) -> None:
    run(libssl, certificate, "threads", threads=8)


def test_writes_in_parts_from_moving_buffers(libssl: Path, certificate: Certificate) -> None:
    result = run(libssl, certificate, "moving_buffers", size=300_007)
    assert result["refused"] > 3
    assert result["partial"] > 3


def test_reads_after_a_shutdown(libssl: Path, certificate: Certificate) -> None:
    run(libssl, certificate, "half_closed")


def test_early_data(libssl: Path, certificate: Certificate) -> None:
    run(libssl, certificate, "early_data", size=9_001)


def test_a_bio_with_the_ssl_object_inside(libssl: Path, certificate: Certificate) -> None:
    run(libssl, certificate, "filter_bio")
