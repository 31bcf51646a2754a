"""Runs the slow strategies over a file in a child process, and checks what it says.

The daemon stays small and alive whatever the file is: the child has its own memory, limits on it, no rights
(ladder/child.py), and is ended when it takes too long.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import BinaryIO

from mmsensor.capture.functions import NotCovered
from mmsensor.capture.ladder.elf import ElfFile
from mmsensor.capture.ladder.findings import from_json
from mmsensor.capture.ladder.table import Finding

_PATIENCE_S = 180.0
_LOOK_EVERY_S = 0.05
_ANSWER_BYTES = 1 << 20

#: The reason where the search itself failed: nothing is known about the file, and another time may tell.
FAILED = "search_failed"


def search(file: ElfFile, strategies: Sequence[str], stop: threading.Event) -> Finding:
    """Takes seconds for a large file, and no longer than until `stop`. Raises OSError where no child can be
    had."""
    with _scratch("answer") as answer, _scratch("complaint") as complaint:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "mmsensor.capture.ladder.child", *strategies],
            stdin=file.fd,
            stdout=answer,
            stderr=complaint,
            cwd="/",
            # Nothing of ours: an environment may hold tokens.
            env={"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        deadline = time.monotonic() + _PATIENCE_S
        while (code := child.poll()) is None:
            if stop.wait(_LOOK_EVERY_S) or time.monotonic() >= deadline:
                child.kill()
                child.wait()
                return NotCovered(FAILED, f"its code was searched for {_PATIENCE_S:.0f} s without an end")
        if code:
            return NotCovered(FAILED, f"the search of its code ended with {code}: {_last(complaint)}")
        answer.seek(0)
        try:
            return from_json(json.loads(answer.read(_ANSWER_BYTES)), file)
        except ValueError as error:
            return NotCovered(FAILED, f"the search of its code gave no sense: {error}")


def _scratch(name: str) -> BinaryIO:
    """A file without a place: what the child writes is bounded by its limit on files."""
    return os.fdopen(os.memfd_create(name, os.MFD_CLOEXEC), "w+b")


def _last(complaint: BinaryIO) -> str:
    complaint.seek(0)
    lines = complaint.read(_ANSWER_BYTES).decode("utf-8", "replace").strip().splitlines()
    return lines[-1][:200] if lines else "no word of why"
