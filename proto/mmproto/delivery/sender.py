"""The thread that empties a spool, over HTTP into the pipeline or into Kafka.

Records leave the spool after they are acknowledged and not before; whatever happens in between, they are sent
again and the pipeline knows them by their ids. While it is away the pauses grow (exponential, with full
jitter, so that a hundred nodes do not come back in one moment).

A batch that the pipeline refuses for its content is halved until the one record at fault is alone; that one
is set aside with its reason, the others arrive. A pipeline that refuses everything would empty the spool
into the rejected records in this way, so after a few in a row the sender pauses as if it were away.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from mmproto.delivery.errors import Rejected, Retry
from mmproto.delivery.ingest_client import Receipt
from mmproto.delivery.records import item_ids
from mmproto.delivery.spool import Spool

_LOG = logging.getLogger(__name__)

MAX_REJECTS_IN_A_ROW = 16


class Client(Protocol):
    """What the sender needs of whoever posts: `IngestClient`, or `mmproto.kafka.producer.KafkaClient`."""

    def post(self, records: Sequence[bytes]) -> Receipt: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SenderStatistics:
    """What was delivered since the process started. `last_*_ns` are unix nanoseconds, 0 for never."""

    posts: int
    delivered: int
    accepted: int
    duplicates: int
    rejected: Mapping[str, int]
    retries: Mapping[str, int]
    failures_in_a_row: int
    last_error: str
    last_success_ns: int
    last_failure_ns: int


class Sender(threading.Thread):
    """Delivers until `stop`. `wake` tells it that there is something new.

    After a wake it waits `gather_s` for more: a post and the removal of what was posted cost about the same
    for one record and for a hundred. `clock` gives unix nanoseconds, `jitter` a number in 0..1; both are
    there for tests, which call `step` instead of starting the thread.
    """

    def __init__(
        self,
        spool: Spool,
        client: Client,
        *,
        batch_records: int = 2000,
        batch_bytes: int = 4 << 20,
        idle_s: float = 1.0,
        gather_s: float = 0.0,
        backoff_s: float = 0.5,
        backoff_max_s: float = 60.0,
        clock: Callable[[], int] = time.time_ns,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(name="sender", daemon=True)
        self._spool = spool
        self._client = client
        self._batch_records = batch_records
        self._batch_bytes = batch_bytes
        self._idle_s = idle_s
        self._gather_s = gather_s
        self._backoff_s = backoff_s
        self._backoff_max_s = backoff_max_s
        self._clock = clock
        self._jitter = jitter
        self._signal = threading.Event()
        self._stopping = threading.Event()
        self._posts = self._delivered = self._accepted = self._duplicates = 0
        self._rejected: Counter[str] = Counter()
        self._retries: Counter[str] = Counter()
        self._failures = self._rejects_in_a_row = 0
        self._last_error = ""
        self._last_success_ns = self._last_failure_ns = 0

    def run(self) -> None:
        while not self._stopping.is_set():
            pause = self.step()
            if self._failures:
                # Being away is not mended by new records: only `stop` ends this pause early.
                self._stopping.wait(pause)
            elif pause and self._signal.wait(pause):
                self._stopping.wait(self._gather_s)
            self._signal.clear()
        self._client.close()

    def wake(self) -> None:
        """Says that records were appended; a sender that is idle looks at once."""
        self._signal.set()

    def stop(self, flush_s: float) -> None:
        """Ends the thread, then tries for at most about `flush_s` seconds to deliver what is left.

        One post may outlast the limit by the client's time-out. What is not delivered stays in the spool.
        """
        self._stopping.set()
        self._signal.set()
        if self.is_alive():
            self.join()
        deadline = time.monotonic() + flush_s
        while len(self._spool) and time.monotonic() < deadline:
            if self.step() and self._failures:
                break
        self._client.close()

    def step(self) -> float:
        """Delivers one batch. Returns the seconds to wait before the next: 0 where there is more to do."""
        try:
            batch = self._spool.peek(self._batch_records, self._batch_bytes)
            if not batch:
                return self._idle_s
            self._deliver(batch)
        except Retry as retry:
            return self._failed(retry.reason, str(retry), retry.after_s)
        except sqlite3.Error as error:
            return self._failed("spool", f"the spool cannot be read: {error}", None)
        except Exception as error:
            # The thread must outlive anything: a dead sender fills the spool and nobody would know why.
            _LOG.exception("delivery failed in a way that was not foreseen")
            return self._failed("internal_error", f"internal error: {type(error).__name__}", None)
        if self._failures:
            _LOG.info("delivery goes on after %d failed attempts", self._failures)
        self._failures = 0
        return 0.0

    def statistics(self) -> SenderStatistics:
        return SenderStatistics(
            posts=self._posts,
            delivered=self._delivered,
            accepted=self._accepted,
            duplicates=self._duplicates,
            rejected=dict(self._rejected),
            retries=dict(self._retries),
            failures_in_a_row=self._failures,
            last_error=self._last_error,
            last_success_ns=self._last_success_ns,
            last_failure_ns=self._last_failure_ns,
        )

    def _deliver(self, batch: Sequence[tuple[int, bytes]]) -> None:
        """Posts `batch`, in halves where it is refused, and settles each record in the spool. Raises Retry.

        Parts are settled from the oldest to the youngest, which is what `Spool.remove` relies on.
        """
        try:
            self._posts += 1
            receipt = self._client.post([payload for _, payload in batch])
        except Rejected as rejected:
            if len(batch) > 1:
                middle = len(batch) // 2
                self._deliver(batch[:middle])
                self._deliver(batch[middle:])
            else:
                self._set_aside(batch[0][0], rejected.reason, str(rejected))
            return
        self._rejects_in_a_row = 0
        self._accepted += receipt.accepted
        self._duplicates += receipt.duplicates
        self._delivered += len(batch) - len(receipt.rejected)
        self._last_success_ns = self._clock()
        if receipt.rejected:
            ids = item_ids([payload for _, payload in batch])
            for (record_id, _), item in zip(batch, ids, strict=True):
                if item in receipt.rejected:
                    self._rejected[receipt.rejected[item]] += 1
                    self._spool.set_aside(record_id, receipt.rejected[item])
        self._spool.remove(batch[-1][0])

    def _set_aside(self, record_id: int, reason: str, message: str) -> None:
        self._rejects_in_a_row += 1
        if self._rejects_in_a_row > MAX_REJECTS_IN_A_ROW:
            self._rejects_in_a_row = 0
            raise Retry("rejects_everything", f"record after record is refused: {message}")
        self._rejected[reason] += 1
        self._last_error = message
        self._last_failure_ns = self._clock()
        _LOG.error("a record was refused for its content and set aside: %s", message)
        self._spool.set_aside(record_id, reason)

    def _failed(self, reason: str, message: str, after_s: float | None) -> float:
        if not self._failures:
            _LOG.warning("delivery waits: %s", message)
        self._retries[reason] += 1
        self._failures += 1
        self._last_error = message
        self._last_failure_ns = self._clock()
        if after_s is not None:
            return after_s
        ceiling = min(self._backoff_max_s, self._backoff_s * 2.0 ** min(self._failures - 1, 30))
        # Never quite 0: a pause that jitter made nothing of would be a busy loop.
        return max(0.05, ceiling * self._jitter())
