"""Carries the outbox into the warehouse.

A batch is sealed (its content fixed, its number on disk) before it is inserted, and forgotten only when
the warehouse has it. The warehouse knows batches by their token, so that a batch that is inserted again
after a kill or an error changes nothing there. While the warehouse is away rows wait in the outbox, and
ingest goes on.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from collections.abc import Callable, Sequence
from typing import Protocol

from mmpipeline.store.control import ledger as control_ledger
from mmpipeline.store.control.store import ControlStore, StoreBusy

_log = logging.getLogger(__name__)

# Rows of one insert. More rows are cheaper a row; fewer are seen sooner.
MAX_ROWS = 10_000

# How long rows gather before they are sealed, and how long to wait after a failure.
GATHER_S = 1.0
RETRY_S = 2.0


class RowSink(Protocol):
    """Where rows go: the warehouse. Inserting a token again changes nothing."""

    def insert_blocks(self, blocks: Sequence[bytes], token: str) -> None: ...


class WarehouseWriter:
    """One thread. `wake` says that there may be rows; `stop` delivers what is there and ends."""

    def __init__(
        self,
        store: ControlStore,
        open_sink: Callable[[], RowSink],
        gather_s: float = GATHER_S,
        max_rows: int = MAX_ROWS,
    ) -> None:
        self._store = store
        self._open_sink = open_sink
        self._gather_s = gather_s
        self._max_rows = max_rows
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
        """Deliver all there is; returns how many rows. Raises what the warehouse or the store raises."""
        sink = self._open_sink()
        rows = 0
        while (batch := control_ledger.seal(self._store, self._max_rows)) is not None:
            sink.insert_blocks(batch.payloads, f"{self._store.store_id}-{batch.number}")
            control_ledger.delivered(self._store, batch)
            rows += batch.rows
        return rows

    def _run(self) -> None:
        while True:
            self._wake.wait()
            # Stopping cuts the gathering short; what is there is still delivered.
            self._stopping.wait(self._gather_s)
            self._wake.clear()
            try:
                self.drain()
                self.last_error = ""
            except (StoreBusy, sqlite3.Error) as error:
                self._failed(error)
            except Exception as error:  # the warehouse's own errors: none may end the delivery
                self._failed(error)
            if self._stopping.is_set():
                return

    def _failed(self, error: Exception) -> None:
        self.last_error = f"{type(error).__name__}: {error}"
        _log.error("the warehouse did not take a batch and gets it again: %s", self.last_error)
        self._stopping.wait(RETRY_S)
        self._wake.set()
