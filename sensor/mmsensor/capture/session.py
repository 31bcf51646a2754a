"""The capture behind one door: start it, poll it for events, close it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from mmsensor.capture.discovery import proc
from mmsensor.capture.discovery.watch import Discovery
from mmsensor.capture.errors import CaptureUnavailable
from mmsensor.capture.kernel import abi
from mmsensor.capture.kernel.abi import Counter
from mmsensor.capture.kernel.probes import Kernel
from mmsensor.capture.options import CaptureOptions, CaptureStatistics, TargetStatus
from mmsensor.streams.events import Closed, ConnectionKey, StreamEvent
from mmsensor.streams.table import StreamTable

#: How often lost bytes are looked for at the ends of streams, and dead processes' remains.
_LOOK_FOR_LOSS_S = 1.0
_LOOK_FOR_DEAD_S = 30.0

#: Name of each reason: its counters of events and of bytes.
_LOSSES = {
    "ring_full": (Counter.RING_FULL, Counter.RING_FULL_BYTES),
    "unreadable": (Counter.UNREADABLE, Counter.UNREADABLE_BYTES),
    "call_too_long": (Counter.CALL_TOO_LONG, Counter.CALL_TOO_LONG_BYTES),
    "undecided": (Counter.UNDECIDED, Counter.UNDECIDED_BYTES),
    "connections_full": (Counter.CONNECTIONS_FULL, Counter.CONNECTIONS_FULL_BYTES),
    "control": (Counter.CONTROL, None),
    "calls_full": (Counter.CALLS_FULL, None),
    "bad_return": (Counter.BAD_RETURN, None),
    "stale_call": (Counter.STALE, None),
}


class Capture:
    """Not thread-safe but for `targets`, `statistics`, `refresh` and `allow`; poll it from one thread."""

    def __init__(self, options: CaptureOptions | None = None) -> None:
        self._options = options or CaptureOptions()
        self._kernel: Kernel | None = None
        self._discovery: Discovery | None = None
        self._table = StreamTable(self._final_position, idle_ns=int(self._options.idle_s * 1e9))
        self._losses_seen = 0
        self._comparing = False
        self._drained = False
        self._dead: set[tuple[int, int]] = set()
        self._next_loss_look = 0.0
        self._next_dead_look = 0.0
        self._last: CaptureStatistics | None = None

    def start(self) -> None:
        """Loads the probes and attaches them to everything there is. Raises CaptureUnavailable."""
        if self._kernel:
            return
        self._kernel = Kernel(self._options)
        try:
            self._discovery = Discovery(self._options, self._kernel)
            self._discovery.start()
        except BaseException:
            self.close()
            raise

    def poll(self, timeout_s: float) -> Iterator[StreamEvent]:
        """What happened, in order; waits up to `timeout_s` for the first of it. Exhaust the iterator."""
        kernel = self._running()
        raw = self._collect(kernel, timeout_s)
        boot_to_unix = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        for each in raw:
            for event in self._table.feed(abi.decode(each, boot_to_unix)):
                if isinstance(event, Closed) and event.reason == "process_exit":
                    kernel.forget(event.key.pid, event.key.process_started_ns, event.key.ssl)
                yield event
        yield from self._upkeep(kernel)

    def _collect(self, kernel: Kernel, timeout_s: float) -> list[bytes]:
        until = time.monotonic() + timeout_s
        while not (raw := kernel.ring.drain()):
            left = until - time.monotonic()
            if left <= 0:
                break
            kernel.ring.wait(min(left, self._options.look_every_s))
        return raw

    def _upkeep(self, kernel: Kernel) -> Iterator[StreamEvent]:
        # What is missing from the ring is looked for: nobody knows before it was drained to its end.
        self._drained |= kernel.ring.emptied
        now = time.monotonic()
        if not self._drained:
            return
        if now >= self._next_loss_look:
            self._next_loss_look = now + _LOOK_FOR_LOSS_S
            self._drained = False
            yield from self._look_for_loss(kernel)
        if now >= self._next_dead_look:
            self._drained = False
            yield from self._look_for_dead(kernel)
            self._next_dead_look = now + (_LOOK_FOR_LOSS_S if self._dead else _LOOK_FOR_DEAD_S)

    def _look_for_loss(self, kernel: Kernel) -> Iterator[StreamEvent]:
        """While something is being lost, and once after: where have the streams got to?"""
        counters = kernel.counters()
        losses = sum(counters[event] for event, _ in _LOSSES.values())
        lost_something = losses != self._losses_seen
        self._losses_seen = losses
        if lost_something or self._comparing:
            found = {key: kernel.position(*key) for key in self._table.live()}
            positions = {key: position for key, position in found.items() if position is not None}
            yield from self._table.compare(positions, time.time_ns())
        self._comparing = lost_something

    def _look_for_dead(self, kernel: Kernel) -> Iterator[StreamEvent]:
        """A process counts as dead at the second look, when the ring cannot hold anything of it any more."""
        now_ns = time.time_ns()
        dead = {
            process for process in self._table.processes() if not proc.is_alive(self._options.proc, *process)
        }
        for process in dead & self._dead:
            yield from self._table.end_process(*process, now_ns)
        self._dead = dead - self._dead
        yield from self._table.expire(now_ns)
        kernel.forget_dead(
            lambda pid, started_ns: (
                (pid, started_ns) in self._dead or proc.is_alive(self._options.proc, pid, started_ns)
            )
        )

    def _final_position(self, key: ConnectionKey) -> tuple[int, int] | None:
        position = self._running().position(*key)
        return (position.read, position.written) if position else None

    def set_verdict(self, key: ConnectionKey, interesting: bool) -> None:
        """Not interesting: the kernel stops copying, and no further event comes for the connection."""
        self._running().judge(key.pid, key.ssl, key.generation, interesting)
        if not interesting:
            self._table.ignore([key])

    def allow(self, pid: int) -> None:
        """Adds a process to those that are captured; needs `only_pids`."""
        self._running().allow(pid)

    def targets(self) -> list[TargetStatus]:
        return self._discovery.targets.statuses() if self._discovery else []

    def refresh(self) -> None:
        """Compares everything attached with everything running, now."""
        if self._discovery:
            self._discovery.targets.reconcile()

    def statistics(self) -> CaptureStatistics:
        """Totals since start; after `close`, those at the end."""
        if self._kernel is None:
            return self._last or CaptureStatistics(0, 0, 0, 0, 0, ring_bytes=self._options.ring_bytes)
        counters = self._kernel.counters()
        return CaptureStatistics(
            records=counters[Counter.RECORDS],
            bytes=counters[Counter.BYTES],
            calls=counters[Counter.CALLS],
            ignored_calls=counters[Counter.IGNORED_CALLS],
            nested_calls=counters[Counter.NESTED],
            lost={name: counters[event] for name, (event, _) in _LOSSES.items()}
            | {"overlapping": self._table.overlapping},
            lost_bytes={name: counters[size] for name, (_, size) in _LOSSES.items() if size is not None}
            | {"overlapping": self._table.overlapping_bytes},
            ring_bytes=self._options.ring_bytes,
            peers=self._kernel.sees_peers,
            link_kind=self._kernel.link_kind.value,
            loader=self._kernel.loader.value,
            open_connections=len(self._table),
            hints_lost=self._discovery.hints_lost if self._discovery else 0,
            hints=self._discovery.hints if self._discovery else "",
            holds=self._discovery.holds() if self._discovery else None,
            not_holding=self._discovery.not_holding if self._discovery else "",
        )

    def close(self) -> None:
        """Takes every probe off. May be called twice."""
        if self._discovery:
            self._discovery.close()
            self._discovery = None
        if self._kernel:
            self._last = self.statistics()
            self._kernel.close()
            self._kernel = None

    def _running(self) -> Kernel:
        if self._kernel is None:
            raise CaptureUnavailable("the capture is not running", "call start() first")
        return self._kernel
