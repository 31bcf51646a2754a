"""The file of JSON lines: whole lines only, whatever the disk does."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mmproto.v1.call_pb2 import Call
from mmsensor.emit.jsonl import JsonLinesSink
from mmsensor.emit.sink import Taken


def _calls(*ids: str) -> list[Call]:
    return [Call(id=each, provider="openai") for each in ids]


def test_lines_are_appended_in_order(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    for round_ in ("a", "b"):
        sink = JsonLinesSink(str(path))
        assert sink.emit(_calls(f"{round_}1", f"{round_}2")) == Taken(2)
        assert sink.status() == {
            "kind": "jsonl",
            "target": str(path),
            "ok": True,
            "problem": "",
            "written": 2,
        }
        sink.close()
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == ["a1", "a2", "b1", "b2"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_is_named_and_counted() -> None:
    sink = JsonLinesSink("/dev/full")
    taken = sink.emit(_calls("a", "b"))
    assert (taken.accepted, taken.reason) == (0, "sink_failed")
    assert sink.status()["problem"] == "/dev/full cannot be written: No space left on device"
    assert sink.status()["ok"] is False
    sink.close()


def test_a_line_that_did_not_fit_is_taken_back(tmp_path: Path) -> None:
    """With a limit on the size of files the write breaks off in the middle of a line."""
    code = """
import resource, signal, sys
from mmproto.v1.call_pb2 import Call
from mmsensor.emit.jsonl import JsonLinesSink
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sink = JsonLinesSink(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
taken = sink.emit([Call(id=str(number), provider="openai") for number in range(9)])
print(taken.accepted, taken.reason)
"""
    path = tmp_path / "calls.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False
    )
    lines = path.read_text().splitlines(keepends=True)
    assert done.stdout == f"{len(lines)} sink_failed\n", done.stderr
    assert 0 < len(lines) < 9
    assert [json.loads(line)["id"] for line in lines] == [str(number) for number in range(len(lines))]
    assert path.read_text().endswith("\n")


def test_a_pipe_nobody_reads_is_a_failed_sink(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    sink = JsonLinesSink(str(path))
    assert sink.emit(_calls("a")).accepted == 1
    os.close(reader)
    assert sink.emit(_calls("b")).reason == "sink_failed"
    sink.close()


def test_a_target_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        JsonLinesSink(str(tmp_path / "none" / "calls.jsonl"))
