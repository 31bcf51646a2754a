"""The sensor's loop: events of the capture become exchanges, exchanges calls, calls records of the sink.

One thread does it all, so that nothing needs a lock and the order is that of the kernel. Calls are handed
over in batches, when enough wait or the oldest waits long enough: the sink syncs to disk once for each
batch and not once for each call.

A call is `emitted` once the sink has accepted it. Whatever is refused there, or ends as no call of ours,
has a named reason in the ledger.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from mmproto.exchange import Dropped, Failed, ReadingRules, Recognised
from mmproto.v1.call_pb2 import Call, Observer
from mmsensor.attribution.facts import ProcessTable
from mmsensor.attribution.rules import Attribution
from mmsensor.capture.options import CaptureStatistics, TargetStatus
from mmsensor.connections import INTERNAL_ERROR, Connections, Ended
from mmsensor.emit.sink import Sink
from mmsensor.ledger import Ledger
from mmsensor.streams.events import Bytes, ConnectionKey, StreamEvent

_LOG = logging.getLogger(__name__)

BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")
# The longest wait for events: bounds the delay of a batch, of a stop and of the sign of life.
POLL_S = 0.05
# When stopping, what the kernel has already handed over is still read, for at most this long.
DRAIN_S = 2.0


class EventSource(Protocol):
    """What the loop needs of `mmsensor.capture.session.Capture`."""

    def poll(self, timeout_s: float) -> Iterator[StreamEvent]: ...

    def set_verdict(self, key: ConnectionKey, interesting: bool) -> None: ...

    def targets(self) -> list[TargetStatus]: ...

    def statistics(self) -> CaptureStatistics: ...


@dataclass(frozen=True, slots=True)
class LoopOptions:
    """`node` goes into every call; a batch is handed over at `batch_records` calls or after `batch_s`."""

    node: str
    boot_id: str
    batch_records: int = 256
    batch_s: float = 0.05
    max_connections: int = 2048


class Daemon:
    """Runs until `stop` says so. `clock`: seconds, steady; `unix_ns`: nanoseconds since the epoch."""

    def __init__(
        self,
        options: LoopOptions,
        source: EventSource,
        sink: Sink,
        rules: ReadingRules,
        attribution: Attribution,
        *,
        clock: Callable[[], float] = time.monotonic,
        unix_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self.ledger = Ledger()
        self.source = source
        self.sink = sink
        #: When the loop last came round, on `clock`.
        self.last_beat = clock()
        self._options = options
        self._attribution = attribution
        self._clock = clock
        self._unix_ns = unix_ns
        self._processes = ProcessTable()
        self.connections = Connections(rules, self._processes, self._identify, options.max_connections)
        self._batch: list[Call] = []
        self._batch_since = 0.0
        self._refusals: set[str] = set()

    def run(self, stop: Callable[[], bool], beat: Callable[[], None]) -> None:
        """Loops until `stop()`; `beat()` is called every time round."""
        while not stop():
            self.turn(POLL_S)
            beat()
        until = self._clock() + DRAIN_S
        while self.turn(0) and self._clock() < until:
            beat()
        self.finish()

    def turn(self, timeout_s: float) -> int:
        """One round: takes what has happened, waiting for it at most `timeout_s`. Returns how many events."""
        events = 0
        for event in self.source.poll(timeout_s):
            events += 1
            for ended in self.connections.feed(event):
                self._account(ended)
            if isinstance(event, Bytes):
                # At once: a bulk transfer that is none of ours fills the ring until the kernel is told.
                self._tell_verdicts()
            if len(self._batch) >= self._options.batch_records:
                self._hand_over()
        self._tell_verdicts()
        self.ledger.opened(self.connections.open_exchanges)
        if self._batch and self._clock() - self._batch_since >= self._options.batch_s:
            self._hand_over()
        self.last_beat = self._clock()
        return events

    def finish(self) -> None:
        """Accounts for everything that is open and hands over what waits."""
        for ended in self.connections.close(self._unix_ns()):
            self._account(ended)
        self.ledger.opened(0)
        if self._batch:
            self._hand_over()

    def _account(self, ended: Ended) -> None:
        outcome = ended.outcome
        if isinstance(outcome, Dropped):
            self.ledger.dropped(outcome.reason)
        elif isinstance(outcome, Failed):
            self.ledger.failed(outcome.reason)
        else:
            try:
                call = self._completed(outcome, ended)
            except Exception:
                _LOG.exception("a call could not be attributed")
                self.ledger.failed(INTERNAL_ERROR)
                return
            if not self._batch:
                self._batch_since = self._clock()
            self._batch.append(call)
            self.ledger.queued(outcome.anomalies)

    def _completed(self, recognised: Recognised, ended: Ended) -> Call:
        call = recognised.call
        call.observer = Observer.OBSERVER_SENSOR
        call.node = self._options.node
        call.process.CopyFrom(self._processes.message(ended.facts))
        self._attribution.apply(call, recognised.headers)
        return call

    def _tell_verdicts(self) -> None:
        for key, interesting in self.connections.take_verdicts().items():
            self.source.set_verdict(key, interesting)

    def _hand_over(self) -> None:
        batch, self._batch = self._batch, []
        taken = self.sink.emit(batch)
        refused = len(batch) - taken.accepted
        self.ledger.settled(taken.accepted, refused, taken.reason)
        if refused and taken.reason not in self._refusals:
            # Once for each reason: a full disk would otherwise fill the journal as well.
            self._refusals.add(taken.reason)
            _LOG.error("calls are dropped and counted as %s: %s", taken.reason, taken.message)
        elif not refused and self._refusals:
            self._refusals.clear()
            _LOG.info("the sink takes calls again")

    def _identify(self, key: ConnectionKey) -> str:
        """A name that no other connection of any node has or will have."""
        numbers = f"{key.pid}-{key.process_started_ns}-{key.ssl:x}-{key.generation}"
        return f"{self._options.node}/{self._options.boot_id}/{numbers}"


def read_boot_id(file: Path = BOOT_ID_FILE) -> str:
    """The kernel's id of this boot."""
    return file.read_text(encoding="ascii").strip()
