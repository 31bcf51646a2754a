"""The control store: ledger, budgets, outbox and counters in one SQLite file.

WAL with synchronous=FULL: what a transaction committed survives a kill and a power cut. One connection
writes, behind a lock; every thread that reads has a read-only connection of its own and never waits for
the writer. Only the `control*` modules of this package speak SQL to it.

Errors:

    ControlStoreError      the file cannot be used; `hint` says what to do
    StoreBusy              another process holds the write lock, or the disk is full: try again later
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mmpipeline.store.control.migrations import MigrationError, migrate

_BUSY_TIMEOUT_S = 10.0


class ControlStoreError(Exception):
    """The control store cannot be used. `hint` says what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}")
        self.hint = hint


class StoreBusy(Exception):
    """The store cannot write now (locked by another process, disk full); trying again later may work."""


class ControlStore:
    """One control file. Thread-safe; `write` transactions of all threads follow one another."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._readers = threading.local()
        self._open_readers: list[sqlite3.Connection] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Who called what is nobody else's business; the files beside it take over its mode.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            self._writer = sqlite3.connect(
                path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise ControlStoreError(
                f"{path} cannot be opened: {error}", "check that the state folder exists and is writable"
            ) from error
        try:
            _use_wal(self._writer)
            self._writer.execute("PRAGMA synchronous = FULL")
            self._writer.execute("PRAGMA foreign_keys = ON")
            self._writer.execute("PRAGMA cache_size = -65536")
            self._writer.execute("PRAGMA wal_autocheckpoint = 4000")
            migrate(self._writer)
            self._writer.execute("INSERT OR IGNORE INTO meta VALUES ('store_id', ?)", (uuid.uuid4().hex,))
        except MigrationError as error:
            self._writer.close()
            raise ControlStoreError(f"{path}: {error}", error.hint) from error
        except sqlite3.Error as error:
            self._writer.close()
            raise ControlStoreError(
                f"{path} cannot be used: {error}",
                "check free space and permissions; move the file away to start with an empty one",
            ) from error
        self.store_id = str(self._writer.execute("SELECT value FROM meta WHERE key='store_id'").fetchone()[0])

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed as a whole when the block ends, rolled back when it raises.

        Raises StoreBusy where the transaction cannot be written now.
        """
        with self._lock:
            try:
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):  # a failed COMMIT may have ended the transaction itself
                        self._writer.execute("ROLLBACK")
                    raise
            except sqlite3.OperationalError as error:
                raise StoreBusy(f"{self.path}: {error}") from error

    def read(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query, from the last committed state."""
        connection: sqlite3.Connection | None = getattr(self._readers, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=_BUSY_TIMEOUT_S,
                isolation_level=None,
                check_same_thread=False,
            )
            self._readers.connection = connection
            self._open_readers.append(connection)
        return connection.execute(sql, parameters).fetchall()

    def close(self) -> None:
        """Close all connections; the store cannot be used after it."""
        with self._lock:
            for connection in self._open_readers:
                connection.close()
            self._writer.close()


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switches to WAL. Of two that open a new file at once one is refused at once, whatever its timeout."""
    until = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return
