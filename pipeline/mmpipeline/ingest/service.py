"""Takes posted batches: every call is charged once, whatever is resent, in whatever order and pieces.

One thread owns the work. It takes all the posts that wait, and makes one transaction of them: ledger rows,
budget counters, thresholds crossed, outbox and counters together. A post is answered when its transaction
is on disk, so that a sender may forget what was answered, and a kill at any moment loses nothing and
doubles nothing. Concurrent posts share a transaction and thereby an fsync.

Errors of `submit`: `Overloaded` (too much is waiting), and through the future `Undecodable` (the body is
not an IngestBatch) and `StoreBusy` (the store cannot write now; the sender tries again).
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from mmpipeline.ingest.ledgering import Ledgering
from mmpipeline.ingest.posts import IngestResult, Post
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control.database import Database
from mmproto.v1.ingest_pb2 import IngestBatch

_log = logging.getLogger(__name__)

# What one transaction takes at most: enough to share an fsync, little enough to answer soon.
_GROUP_BYTES = 8 * 1024 * 1024


class Undecodable(Exception):
    """The body is not an IngestBatch."""


class Overloaded(Exception):
    """Too much is waiting already; the sender should come back in a moment."""


@dataclass(slots=True)
class _Waiting:
    """A post that is not written yet, as it came."""

    body: bytes
    future: Future[IngestResult]


class IngestService:
    """`start` before `submit`, `stop` at the end: what was submitted is finished first."""

    def __init__(
        self,
        database: Database,
        rating: RatingService,
        clock: Callable[[], int],
        max_waiting_bytes: int = 64 * 1024 * 1024,
        on_commit: Callable[[], None] = lambda: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._ledgering = Ledgering(database, rating)
        self._max_waiting = max_waiting_bytes
        self._on_commit = on_commit
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._stopping = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="ingest", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what waits and end."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def submit(self, body: bytes) -> Future[IngestResult]:
        """Take a serialized IngestBatch; the future is done when it is on disk. Raises Overloaded."""
        post = _Waiting(body, Future())
        with self._wake:
            if self._stopping or self._waiting_bytes + len(body) > self._max_waiting:
                raise Overloaded(f"{self._waiting_bytes} bytes are waiting")
            self._waiting.append(post)
            self._waiting_bytes += len(body)
            self._wake.notify()
        return post.future

    def ingest(self, batch: IngestBatch, timeout_s: float | None = 60.0) -> IngestResult:
        """Take a batch and wait for it."""
        return self.submit(batch.SerializeToString()).result(timeout_s)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._waiting and not self._stopping:
                    self._wake.wait()
                if not self._waiting:
                    return
                group = self._take_group()
            self._work(group)

    def _take_group(self) -> list[_Waiting]:
        group = [self._waiting.popleft()]
        size = len(group[0].body)
        while self._waiting and size + len(self._waiting[0].body) <= _GROUP_BYTES:
            size += len(self._waiting[0].body)
            group.append(self._waiting.popleft())
        self._waiting_bytes -= size
        return group

    def _work(self, group: list[_Waiting]) -> None:
        posts: list[tuple[_Waiting, Post]] = []
        undecodable = 0
        for waiting in group:
            try:
                posts.append((waiting, Post(IngestBatch.FromString(waiting.body))))
            except DecodeError:
                undecodable += 1
                _fail(waiting, Undecodable("the body is not a modelmeter.v1.IngestBatch"))
        try:
            self._ledgering.write([post for _, post in posts], self._clock(), undecodable=undecodable)
        except Exception as error:  # whatever it was, nothing was written and the senders still have it
            _log.error("ingest of %d posts failed and will be resent: %s", len(posts), error)
            for waiting, _ in posts:
                _fail(waiting, error)
            return
        for waiting, post in posts:
            with suppress(InvalidStateError):
                waiting.future.set_result(post.result)
        self._on_commit()


def _fail(waiting: _Waiting, error: Exception) -> None:
    with suppress(InvalidStateError):  # a client that went away has cancelled its future
        waiting.future.set_exception(error)
