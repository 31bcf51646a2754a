"""The sensor under soak: a capture in a process of its own, so that what it holds is the capture's alone.

Takes commands on standard input, one a line, and answers each with a line of JSON:

    allow PID      captures that process
    ignore PID     captures it, and says of its connections that they are of no interest; answers how many
                   it has said it of
    refresh        attaches to everything that is mapped now
    statistics     totals so far
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

from mmsensor.capture.options import CaptureOptions
from mmsensor.capture.session import Capture
from mmsensor.streams.events import Bytes, ConnectionKey, Gap, Opened

#: Unused files are let go of soon, so that ten minutes see many of them come and go.
OPTIONS = CaptureOptions(only_pids=frozenset(), linger_s=5.0, reconcile_every_s=2.0)


class Sensor:
    def __init__(self) -> None:
        self._capture = Capture(OPTIONS)
        self._ignored: dict[int, int] = {}  # process to connections
        self._captured = 0  # bytes of the processes that are not ignored
        self._missing = 0  # bytes of theirs that a Gap stands for

    def run(self) -> None:
        self._capture.start()
        answering = threading.Thread(target=self._answer, name="commands")
        answering.start()
        # Ends with its commands, however those end.
        while answering.is_alive():
            for event in self._capture.poll(0.2):
                if isinstance(event, Opened):
                    self._judge(event.key)
                elif isinstance(event, Bytes):
                    self._captured += len(event.data)
                elif isinstance(event, Gap):
                    self._missing += event.size
        self._capture.close()

    def _judge(self, key: ConnectionKey) -> None:
        ignored = key.pid in self._ignored
        self._capture.set_verdict(key, interesting=not ignored)
        if ignored:
            self._ignored[key.pid] += 1

    def _answer(self) -> None:
        commands: dict[str, Callable[..., Any]] = {
            "allow": lambda pid: self._capture.allow(int(pid)),
            "ignore": self._ignore,
            "refresh": self._capture.refresh,
            "statistics": self._statistics,
        }
        print(json.dumps("started"), flush=True)
        for line in sys.stdin:
            name, *arguments = line.split()
            print(json.dumps(commands[name](*arguments)), flush=True)

    def _ignore(self, pid: str) -> int:
        self._capture.allow(int(pid))
        return self._ignored.setdefault(int(pid), 0)

    def _statistics(self) -> dict[str, Any]:
        statistics = self._capture.statistics()
        targets = self._capture.targets()
        return {
            "captured": self._captured,
            "missing": self._missing,
            "calls": statistics.calls,
            "ignored_calls": statistics.ignored_calls,
            "bytes": statistics.bytes,
            "lost": {name: number for name, number in statistics.lost.items() if number},
            "lost_bytes": sum(statistics.lost_bytes.values()),
            "open_connections": statistics.open_connections,
            "targets": [target.path for target in targets],
            "searched": sum(target.reason == "being_searched" for target in targets),
        }


if __name__ == "__main__":
    Sensor().run()
