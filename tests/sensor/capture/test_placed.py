"""Moved probes see what unmoved ones see: the same workload, captured with both, byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmproto.reader import Direction
from mmsensor.capture.functions import Function
from mmsensor.capture.hooks import SYMBOLS
from mmsensor.capture.ladder.elf import ElfFile
from mmsensor.capture.ladder.placement import place
from mmsensor.capture.ladder.symbols import exported
from mmsensor.capture.options import CaptureOptions, LinkKind
from tests.sensor.capture.recorder import python, recording, started

pytestmark = pytest.mark.capture

Certificate = tuple[Path, Path]


def captured(
    command: list[str], kind: LinkKind | None, place_probes: bool
) -> tuple[list[list[Any]], list[dict[str, Any]], int]:
    """(per end: digest written, digest read; the workload's own report of its ends; calls)"""
    options = CaptureOptions(link_kind=kind, place_probes=place_probes, ring_bytes=64 << 20)
    with started(command) as workload, recording([workload.pid], options) as recorder:
        workload.line()
        workload.go()
        if "sizes" in command:
            workload.line()
            workload.go()
        ends = recorder.result(workload)["ends"]
        recorder.until_closed(len(ends))
        assert not any(recorder.capture.statistics().lost.values())
        seen = [recorder.seen[key] for key in recorder.order]
        digests = [[each.digest(Direction.WRITE), each.digest(Direction.READ)] for each in seen]
        return digests, ends, recorder.capture.statistics().calls


SIZES = {"sizes": [1, 255, 256, 257, 4097, 16384, 16385, 100_003, 1_048_576]}


@pytest.mark.parametrize(
    ("scenario", "arguments", "kind"),
    [
        *(("sizes", SIZES, kind) for kind in LinkKind),
        ("retries", {"size": 200_000}, None),
        ("peeking", {}, None),
        ("reuse", {"connections": 7}, None),
    ],
)
def test_the_same_bytes(
    scenario: str, arguments: dict[str, Any], kind: LinkKind | None, libssl: Path, certificate: Certificate
) -> None:
    command = python("libssl", libssl, *certificate, scenario, json.dumps(arguments))
    placed, ends, calls = captured(command, kind, place_probes=True)
    unplaced, _, calls_unplaced = captured(command, kind, place_probes=False)
    assert placed == unplaced
    assert sorted(placed) == sorted([end["write"], end["read"]] for end in ends)
    assert calls == calls_unplaced


def test_there_was_something_to_move(libssl: Path) -> None:
    """Else the tests above would compare a thing with itself."""
    with libssl.open("rb") as opened:
        file = ElfFile(opened.fileno())
        found = tuple(Function(name, offset) for name, offset in exported(file, SYMBOLS).items())
        assert place(file, found).functions != found
