"""A sink that appends one JSON object a line to a file, or to standard output (`jsonl:-`).

A call is accepted once it is written to the file; the file is synced to disk once a second and on close,
so that a crash of the sensor loses no accepted call and a crash of the machine at most the last second.
A line that did not fit on the disk is taken back, so that every line in the file is whole.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Sequence
from typing import Any

import orjson

from mmproto.callform import call_to_json
from mmproto.v1.call_pb2 import Call
from mmsensor.emit.sink import Taken

SYNC_EVERY_S = 1.0


class JsonLinesSink:
    """Appends to `target`: a path, or `-`. Raises OSError where it cannot be opened."""

    def __init__(self, target: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._target = target
        self._clock = clock
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        # Calls carry who called what and when: not for every user of the machine.
        self._descriptor = 1 if target == "-" else os.open(target, flags, 0o600)
        self._is_file = stat.S_ISREG(os.fstat(self._descriptor).st_mode)
        self._synced_at = clock()
        self._written = 0
        self._problem = ""

    def emit(self, calls: Sequence[Call]) -> Taken:
        """Writes `calls` in order; what is written whole is accepted."""
        lines = [orjson.dumps(call_to_json(call)) + b"\n" for call in calls]
        written = 0
        try:
            self._write(b"".join(lines))
        except OSError as error:
            written = self._take_back(lines)
            self._problem = f"{self._target} cannot be written: {error.strerror}"
            return Taken(written, "sink_failed", self._problem)
        self._problem = ""
        self._written += len(calls)
        if self._clock() - self._synced_at >= SYNC_EVERY_S:
            self._sync()
        return Taken(len(calls))

    def status(self) -> dict[str, Any]:
        return {
            "kind": "jsonl",
            "target": self._target,
            "ok": not self._problem,
            "problem": self._problem,
            "written": self._written,
        }

    def close(self) -> None:
        self._sync()
        if self._target != "-":
            os.close(self._descriptor)

    def _write(self, data: bytes) -> None:
        self._progress = 0
        while self._progress < len(data):
            self._progress += os.write(self._descriptor, data[self._progress :])

    def _take_back(self, lines: Sequence[bytes]) -> int:
        """After a write that broke off: the number of whole lines of it that stay."""
        whole = size = 0
        for line in lines:
            if size + len(line) > self._progress:
                break
            size += len(line)
            whole += 1
        if self._is_file and self._progress > size:
            os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - (self._progress - size))
        self._written += whole
        return whole

    def _sync(self) -> None:
        self._synced_at = self._clock()
        if self._is_file:
            os.fdatasync(self._descriptor)
