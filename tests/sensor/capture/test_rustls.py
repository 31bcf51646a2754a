"""rustls through its functions for C: a result that is no count, and ciphertext that no socket sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmproto.reader import Direction
from tests.sensor.capture.clients import rust
from tests.sensor.capture.recorder import python, recording, started

pytestmark = [pytest.mark.capture, pytest.mark.rust]


def test_bytes_written_are_bytes_captured(certificate: tuple[Path, Path]) -> None:
    library = rust.build()
    with (
        started(python("rustls", library, *certificate, 200_000)) as workload,
        recording([workload.pid]) as recorder,
    ):
        workload.line()
        targets = recorder.capture.targets()
        assert [each.attached for each in targets if each.path == str(library)] == [True]
        workload.go()
        result = recorder.result(workload)
        recorder.settle()
        (seen,) = recorder.by_ssl(result["ssl"])
        assert seen.digest(Direction.WRITE) == result["write"]
        assert seen.digest(Direction.READ) == result["read"]
        assert seen.closed == "ssl_free"
        assert not any(recorder.capture.statistics().lost.values())
        workload.leave()
        assert workload.process.returncode == 0
