"""Carries the outbox on: into the warehouse, or onto the topic that the warehouse is filled from.

A batch is sealed (its content fixed, its token on disk) before it is delivered, and forgotten only when it
is delivered. The receiver knows batches by their token, so that a batch that is delivered again after a
kill or an error changes nothing there. While the receiver is away rows wait in the outbox, and ingest goes
on. Lanes are delivered each in its order, and by whoever has them now.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from mmpipeline.store.control import outbox
from mmpipeline.store.control.database import Database
from mmpipeline.store.control.outbox import HTTP_LANE, Batch

_log = logging.getLogger(__name__)

# Rows of one batch. More rows are cheaper a row; fewer are seen sooner.
MAX_ROWS = 10_000

# How long rows gather before they are sealed, and how long to wait after a failure.
GATHER_S = 1.0
RETRY_S = 2.0
# How often to look without being woken: a command beside this process may have queued rows.
LOOK_S = 5.0


class RowSink(Protocol):
    """Where the rows of a lane go. Taking a token again changes nothing."""

    def insert_blocks(self, blocks: Sequence[bytes], token: str) -> None: ...


class WarehouseWriter:
    """One thread. `wake` says that there may be rows; `stop` delivers what is there and ends.

    `open_sink` gives the sink of a lane; `lanes` are those that are ours at the moment.
    """

    def __init__(
        self,
        database: Database,
        open_sink: Callable[[int], RowSink],
        gather_s: float = GATHER_S,
        max_rows: int = MAX_ROWS,
        lanes: Callable[[], Iterable[int]] = lambda: (HTTP_LANE,),
    ) -> None:
        self._database = database
        self._open_sink = open_sink
        self._gather_s = gather_s
        self._max_rows = max_rows
        self._lanes = lanes
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self.last_error = ""
        self._thread = threading.Thread(target=self._run, name="warehouse-writer", daemon=True)

    def start(self) -> None:
        """Begin to deliver."""
        self._thread.start()

    def wake(self) -> None:
        """Rows may be waiting."""
        self._wake.set()

    def stop(self) -> None:
        """Deliver what is there, once, and end."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def drain(self) -> int:
        """Deliver all there is; returns how many rows. Raises what the sink or the store raises."""
        rows = 0
        for lane in self._lanes():
            while (batch := self._seal(lane)) is not None:
                self._open_sink(lane).insert_blocks(batch.payloads, batch.token)
                with self._database.write() as connection:
                    outbox.delivered(connection, batch)
                rows += batch.rows
        return rows

    def _seal(self, lane: int) -> Batch | None:
        with self._database.read() as connection:
            if not outbox.waits(connection, lane):
                return None
        with self._database.write() as connection:
            return outbox.seal(connection, self._database.store_id, lane, self._max_rows)

    def _run(self) -> None:
        while True:
            self._wake.wait(LOOK_S)
            # Stopping cuts the gathering short; what is there is still delivered.
            self._stopping.wait(self._gather_s)
            self._wake.clear()
            try:
                self.drain()
                self.last_error = ""
            except Exception as error:  # of the store or of the receiver: none may end the delivery
                self.last_error = f"{type(error).__name__}: {error}"
                _log.error("a batch was not taken and is delivered again: %s", self.last_error)
                self._stopping.wait(RETRY_S)
                self._wake.set()
            if self._stopping.is_set():
                return
