"""Drives a real capture of a real process, and keeps what came out of it."""

from __future__ import annotations

import hashlib
import json
import select
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmproto.endpoint import Endpoint
from mmproto.reader import Direction
from mmsensor.capture.options import CaptureOptions
from mmsensor.capture.session import Capture
from mmsensor.streams.events import Bytes, Closed, ConnectionKey, Gap, Opened, Owner, Peer, Sni, StreamEvent

WORKLOADS = Path(__file__).parent / "workloads"
PATIENCE_S = 60.0


@dataclass
class Seen:
    """One connection as captured. Fails at once where bytes come out of order."""

    late: bool
    data: dict[Direction, bytearray] = field(default_factory=lambda: defaultdict(bytearray))
    gaps: list[Gap] = field(default_factory=list)
    position: dict[Direction, int] = field(default_factory=lambda: defaultdict(int))
    hosts: list[str] = field(default_factory=list)
    peer: Endpoint | None = None
    owner: Owner | None = None
    closed: str = ""

    def size(self, direction: Direction) -> int:
        return self.position[direction]

    def lost(self) -> int:
        return sum(gap.size for gap in self.gaps)

    def digest(self, direction: Direction) -> list[Any]:
        return [len(self.data[direction]), hashlib.sha256(self.data[direction]).hexdigest()]


class Recorder:
    def __init__(self, capture: Capture) -> None:
        self.capture = capture
        self.seen: dict[ConnectionKey, Seen] = {}
        self.order: list[ConnectionKey] = []

    def poll(self) -> int:
        """How many events came."""
        events = list(self.capture.poll(0.05))
        for event in events:
            self._take(event)
        return len(events)

    def _take(self, event: StreamEvent) -> None:
        if isinstance(event, Opened):
            assert event.key not in self.seen, "opened twice"
            self.seen[event.key] = Seen(event.late, owner=event.owner)
            self.order.append(event.key)
            return
        seen = self.seen[event.key]
        assert not seen.closed, "an event after Closed"
        if isinstance(event, Bytes | Gap):
            assert event.offset == seen.position[event.direction], "out of order"
            if isinstance(event, Bytes):
                assert event.data
                seen.data[event.direction] += event.data
                seen.position[event.direction] += len(event.data)
            else:
                assert event.size > 0
                seen.gaps.append(event)
                seen.position[event.direction] += event.size
        elif isinstance(event, Sni):
            seen.hosts.append(event.host)
        elif isinstance(event, Peer):
            assert seen.peer is None, "told twice"
            seen.peer = event.endpoint
        elif isinstance(event, Closed):
            seen.closed = event.reason

    def until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"never happened: {what}; {self.capture.statistics()}"
            self.poll()

    def result(self, workload: Workload) -> dict[str, Any]:
        """Captures for as long as the workload works."""
        assert workload.process.stdout is not None
        told = select.poll()
        told.register(workload.process.stdout, select.POLLIN)
        while not told.poll(0):
            self.poll()
        return workload.result()

    def until_closed(self, connections: int) -> None:
        """Waits until exactly so many connections have come and gone."""
        self.until(
            lambda: len(self.seen) >= connections and all(seen.closed for seen in self.seen.values()),
            f"{connections} connections closed",
        )

    def settle(self) -> None:
        """Takes what is still in the ring, of a workload that does nothing any more."""
        while self.poll():
            pass

    def by_ssl(self, ssl: int) -> list[Seen]:
        return [self.seen[key] for key in self.order if key.ssl == ssl]

    def total(self, direction: Direction) -> int:
        return sum(len(seen.data[direction]) for seen in self.seen.values())

    def lost(self) -> int:
        return sum(seen.lost() for seen in self.seen.values())


class Workload:
    """A process of ours that waits for its cues on standard input."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the workload ended with {self.process.wait()}"
        return line.strip()

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()

    def result(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.line())
        return result

    def leave(self) -> None:
        self.go()
        self.process.wait(PATIENCE_S)


@contextmanager
def started(arguments: Sequence[str]) -> Iterator[Workload]:
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Workload(process)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def python(name: str, *arguments: object) -> list[str]:
    """A workload module by name, run from the project's folder as the tests are."""
    return [sys.executable, "-m", f"tests.sensor.capture.workloads.{name}", *map(str, arguments)]


@contextmanager
def recording(pids: Sequence[int] = (), options: CaptureOptions | None = None) -> Iterator[Recorder]:
    """A capture of only these processes, running for the length of the block."""
    # Room for a machine that does much else: what a small ring loses has its own tests.
    chosen = options or CaptureOptions(ring_bytes=16 << 20)
    capture = Capture(replace(chosen, only_pids=frozenset(pids)))
    capture.start()
    try:
        yield Recorder(capture)
    finally:
        capture.close()
