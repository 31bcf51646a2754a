"""A durable queue of records between a daemon and the pipeline: SQLite in WAL mode with full syncs.

A record is accepted when `append` returns: it is on disk then, whatever happens to the process or the
machine. It leaves when `remove` or `set_aside` names it, and in no other way: where the queue is full the
NEW records are refused, with their number, so that what was accepted once is never dropped.

One batch is one transaction, because the sync is what costs. The size is capped in bytes of payload; SQLite
reuses freed pages, so the file stays near the cap. A file that SQLite cannot read is renamed, never deleted,
and a fresh one takes its place: measuring goes on and the old file is there to be looked at.

All methods may be called from any thread; one process at a time holds a spool (`flock` on `PATH.lock`).
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmproto.delivery.errors import SpoolFull, SpoolUnavailable

_LOG = logging.getLogger(__name__)

# AUTOINCREMENT: an id is never given twice, so `remove(up_to)` can never hit a younger record.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS records (id INTEGER PRIMARY KEY AUTOINCREMENT, payload BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS rejected (
    id INTEGER PRIMARY KEY, at_unix_ns INTEGER NOT NULL, reason TEXT NOT NULL, payload BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""
# Rejected records are kept for a person to look at, so many and no more: a faulty pipeline could refuse
# every record there is. What is dropped beyond that stays counted.
MAX_REJECTED_KEPT = 1000


@dataclass(frozen=True, slots=True)
class SpoolStatistics:
    """What is in the spool and what became of records. Counters with `_ever` outlive the process."""

    path: str
    records: int
    payload_bytes: int
    max_bytes: int
    appended: int
    refused: int
    rejected_ever: int
    damaged_files: int


class Spool:
    """See the module. Raises SpoolUnavailable from the constructor, SpoolFull from `append`."""

    def __init__(
        self,
        path: Path,
        max_bytes: int,
        *,
        clock: Callable[[], int] = time.time_ns,
        max_pages: int | None = None,
    ) -> None:
        """Opens or creates the spool at `path`; `max_bytes` of payload fit in it.

        `max_pages` caps the database file itself, as a full disk would.
        """
        self.path = path
        self._max_bytes = max_bytes
        self._clock = clock
        self._max_pages = max_pages
        self._lock = threading.RLock()
        self._removed_up_to = 0
        self._appended = 0
        self._refused = 0
        self._damaged = 0
        self._count = self._bytes = self._rejected_ever = 0
        self._lock_file = self._take_lock()
        try:
            self._db = self._open()
        except BaseException:
            os.close(self._lock_file)
            raise

    def append(self, records: Sequence[bytes]) -> None:
        """Makes `records` durable, in order, in one transaction.

        Raises SpoolFull where not all of them fit; its `accepted` says how many from the start do.
        """
        if not records:
            return
        with self._lock:
            fitting, size = self._fitting(records)
            try:
                self._insert(records[:fitting])
            except sqlite3.DatabaseError as error:
                self._give_up_or_renew(error, len(records))
                self._insert(records[:fitting])
            self._count += fitting
            self._bytes += size
            self._appended += fitting
            if fitting < len(records):
                self._refused += len(records) - fitting
                raise SpoolFull(
                    "spool_full",
                    f"the spool {self.path} holds {self._bytes} of {self._max_bytes} bytes: "
                    f"{len(records) - fitting} records were refused; "
                    "bring back the pipeline or the brokers, or raise the limit",
                    fitting,
                )

    def peek(self, limit: int, max_bytes: int | None = None) -> list[tuple[int, bytes]]:
        """The oldest records as (id, payload), at most `limit` and, beyond the first, `max_bytes` of them."""
        with self._lock:
            try:
                cursor = self._db.execute(
                    "SELECT id, payload FROM records WHERE id > ? ORDER BY id LIMIT ?",
                    (self._removed_up_to, limit),
                )
                batch: list[tuple[int, bytes]] = []
                size = 0
                for row in cursor:
                    size += len(row[1])
                    if batch and max_bytes is not None and size > max_bytes:
                        break
                    batch.append((row[0], row[1]))
                return batch
            except sqlite3.DatabaseError as error:
                if not _is_damage(error):
                    raise
                self._renew(error)
                return []

    def remove(self, up_to: int) -> None:
        """Forgets all records with an id up to and including `up_to`.

        Where the disk is too full even for that, the records are not offered again in this process and
        are deleted with the next `remove` that can; a restart before it would offer them once more.
        """
        with self._lock:
            gone, size = self._db.execute(
                "SELECT count(*), coalesce(sum(length(payload)), 0) FROM records WHERE id > ? AND id <= ?",
                (self._removed_up_to, up_to),
            ).fetchone()
            self._count -= gone
            self._bytes -= size
            self._removed_up_to = max(self._removed_up_to, up_to)
            try:
                with self._db:
                    self._db.execute("DELETE FROM records WHERE id <= ?", (self._removed_up_to,))
            except sqlite3.OperationalError as error:
                _LOG.warning("delivered records stay in %s for now: %s", self.path, error)

    def set_aside(self, record_id: int, reason: str) -> None:
        """Moves one record out of the queue to the rejected ones, with the reason, and counts it."""
        with self._lock:
            row = self._db.execute("SELECT payload FROM records WHERE id = ?", (record_id,)).fetchone()
            if row is None:
                return
            with self._db:
                self._db.execute(
                    "INSERT OR REPLACE INTO rejected VALUES (?, ?, ?, ?)",
                    (record_id, self._clock(), reason, row[0]),
                )
                self._db.execute(
                    "DELETE FROM rejected WHERE id <= "
                    "(SELECT id FROM rejected ORDER BY id DESC LIMIT 1 OFFSET ?)",
                    (MAX_REJECTED_KEPT,),
                )
                self._db.execute("DELETE FROM records WHERE id = ?", (record_id,))
                self._db.execute(
                    "INSERT INTO counters VALUES ('rejected', 1) "
                    "ON CONFLICT(name) DO UPDATE SET value = value + 1"
                )
            self._count -= 1
            self._bytes -= len(row[0])
            self._rejected_ever += 1

    def rejected(self) -> list[tuple[int, str, bytes]]:
        """The records that were set aside and are still kept: (id, reason, payload)."""
        with self._lock:
            return self._db.execute("SELECT id, reason, payload FROM rejected ORDER BY id").fetchall()

    def statistics(self) -> SpoolStatistics:
        with self._lock:
            return SpoolStatistics(
                path=str(self.path),
                records=self._count,
                payload_bytes=self._bytes,
                max_bytes=self._max_bytes,
                appended=self._appended,
                refused=self._refused,
                rejected_ever=self._rejected_ever,
                damaged_files=self._damaged,
            )

    def __len__(self) -> int:
        return int(self._count)

    def close(self) -> None:
        """Folds the log into the file and lets other processes have the spool. Safe to call twice."""
        with self._lock:
            if self._lock_file < 0:
                return
            self._db.close()
            os.close(self._lock_file)
            self._lock_file = -1

    def _take_lock(self) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SpoolUnavailable(
                f"the spool {self.path} cannot be written: {error.strerror}; "
                "choose another state folder or give this user the right to write there",
                permission=isinstance(error, PermissionError),
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise SpoolUnavailable(
                f"the spool {self.path} is in use by another process; "
                "stop that one or choose another state folder"
            ) from None
        return descriptor

    def _open(self) -> sqlite3.Connection:
        for _attempt in range(2):
            try:
                return self._connect()
            except sqlite3.DatabaseError as error:
                if _is_damage(error):
                    self._rename_damaged(error)
                    continue
                raise SpoolUnavailable(
                    f"the spool {self.path} cannot be opened: {error}; "
                    "is its folder writable and the disk not full?"
                ) from error
        raise SpoolUnavailable(
            f"the spool {self.path} is damaged again right after it was made: check the disk"
        )

    def _connect(self) -> sqlite3.Connection:
        self.path.touch(mode=0o600)
        database = sqlite3.connect(self.path, timeout=5, check_same_thread=False)
        try:
            database.execute("PRAGMA journal_mode=WAL")
            database.execute("PRAGMA synchronous=FULL")
            # The log is cut back to this after a checkpoint; a burst must not keep its size for ever.
            database.execute("PRAGMA journal_size_limit=8388608")
            database.execute("PRAGMA cache_size=-1024")
            if self._max_pages is not None:
                database.execute(f"PRAGMA max_page_count={int(self._max_pages)}")
            damage = database.execute("PRAGMA quick_check(1)").fetchone()[0]
            if damage != "ok":
                raise sqlite3.DatabaseError(f"database disk image is malformed ({damage})")
            database.executescript(_SCHEMA)
            self._count, self._bytes = database.execute(
                "SELECT count(*), coalesce(sum(length(payload)), 0) FROM records"
            ).fetchone()
            row = database.execute("SELECT value FROM counters WHERE name = 'rejected'").fetchone()
            self._rejected_ever = row[0] if row else 0
        except BaseException:
            database.close()
            raise
        self._removed_up_to = 0
        return database

    def _fitting(self, records: Sequence[bytes]) -> tuple[int, int]:
        """How many of `records`, from the start, are within the cap, and their size in bytes."""
        size = 0
        for index, record in enumerate(records):
            if self._bytes + size + len(record) > self._max_bytes:
                return index, size
            size += len(record)
        return len(records), size

    def _insert(self, records: Sequence[bytes]) -> None:
        if records:
            with self._db:
                self._db.executemany("INSERT INTO records (payload) VALUES (?)", ((r,) for r in records))

    def _give_up_or_renew(self, error: sqlite3.DatabaseError, offered: int) -> None:
        """After a failed insert: returns where a fresh file has been started, raises SpoolFull otherwise."""
        if _is_damage(error):
            self._renew(error)
            return
        self._refused += offered
        reason = "disk_full" if "full" in str(error) else "disk_error"
        raise SpoolFull(
            reason, f"the spool {self.path} cannot be written: {error}; {offered} records were refused", 0
        ) from error

    def _renew(self, error: sqlite3.DatabaseError) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._rename_damaged(error)
        self._db = self._open()

    def _rename_damaged(self, error: sqlite3.DatabaseError) -> None:
        aside = self.path.with_name(f"{self.path.name}.damaged-{self._clock()}")
        _LOG.error(
            "the spool %s is damaged (%s): kept as %s, a new one is started; what it held is not delivered",
            self.path,
            error,
            aside,
        )
        for suffix in ("", "-wal", "-shm"):
            file = Path(f"{self.path}{suffix}")
            if file.exists():
                file.rename(f"{aside}{suffix}")
        self._damaged += 1


def _is_damage(error: sqlite3.DatabaseError) -> bool:
    name = getattr(error, "sqlite_errorname", "SQLITE_CORRUPT" if "malformed" in str(error) else "")
    return name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
