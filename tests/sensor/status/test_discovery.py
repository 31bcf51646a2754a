"""What status says of targets that never fire, and of processes that are held."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mmsensor.capture.options import CaptureStatistics, HoldStatistics
from mmsensor.metrics import exposition
from mmsensor.render import status_text, targets_text
from tests.sensor.status.test_status import ATTACHED, Bench

DOUBT = "used and never fired: process 7 has opened a connection to port 443"
HOLDS = HoldStatistics(
    held=5,
    let_go=4,
    too_long=1,
    left_stopped=0,
    not_held={"on_a_terminal": 2, "traced": 0},
    total_s=0.02,
    longest_s=0.0125,
    keeper_alive=True,
)
NUMBERS = CaptureStatistics(0, 0, 0, 0, 0)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_target_that_never_fires_degrades(bench: Bench) -> None:
    bench.source.status = [ATTACHED, replace(ATTACHED, path="/opt/libssl.so.3", doubt=DOUBT)]
    assert bench.verdict() == ("degraded", "1 targets are used and never fire, e.g. /opt/libssl.so.3")
    document = bench.reporter.snapshot()
    assert DOUBT in targets_text(document["targets"])
    text = exposition(document)
    assert 'modelmeter_sensor_targets{state="attached"} 1\n' in text
    assert 'modelmeter_sensor_targets{state="used_never_fired"} 1\n' in text


def test_holds_are_shown(bench: Bench) -> None:
    bench.source.numbers = replace(NUMBERS, holds=HOLDS)
    document = bench.reporter.snapshot()
    assert document["verdict"] == "degraded", "one was held for as long as allowed"
    lines = status_text(document).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("holds "))
    assert lines[at].split("  ")[-1].strip() == (
        "5 processes, 5.0 ms on average, 12.5 at most; 1 for as long as allowed"
    )
    assert lines[at + 1].split() == ["not", "held", "on_a_terminal:", "2"]
    text = exposition(document)
    assert "modelmeter_sensor_held_total 5\n" in text
    assert "modelmeter_sensor_held_seconds_total 0.02\n" in text
    assert 'modelmeter_sensor_not_held_total{reason="on_a_terminal"} 2\n' in text


def test_a_wish_to_hold_that_fails_degrades(bench: Bench) -> None:
    bench.source.numbers = replace(NUMBERS, not_holding="the kernel is too old")
    assert bench.verdict() == ("degraded", "no process is held: the kernel is too old")
    bench.source.numbers = replace(NUMBERS, holds=replace(HOLDS, too_long=0, keeper_alive=False))
    verdict, reason = bench.verdict()
    assert verdict == "degraded"
    assert "their keeper has died" in reason
