"""The one boundary around ClickHouse: embedded (chDB) or a server, as the DSN says.

chDB's limits, measured and kept to here so that nobody else has to know them:

- One process a folder. A file lock of our own is taken first, because chDB reports a second opener on
  the terminal and with a stack of three exceptions.
- A client serialises its calls, whatever thread they come from, and a query releases the GIL. So there is
  one client for writing and a few for reading: a dashboard never waits for a batch, nor the reverse.
- A client must be closed before the interpreter ends, or the engine's threads outlive their data.

Every read is confined to one tenant twice: by the statement's own condition, which the primary key
needs, and by `additional_table_filters`, which the engine adds to every tenant table a statement names, so
that a condition forgotten in some statement shows nothing instead of somebody else's rows.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import LifoQueue
from threading import Lock
from typing import Any, Final

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError

from mmpipeline.store.warehouse.errors import WarehouseFailed, WarehouseLocked
from mmpipeline.store.warehouse.schema import TENANT_TABLES

# Pages ask their questions one after another, so that two readers serve two people at once.
_READERS: Final = 2

_READ_SETTINGS: Final = {
    "max_threads": 2,
    # The sort key ends in the id and partitions follow from the key, so both shortcuts are exact.
    "use_skip_indexes_if_final": 1,
    "do_not_merge_across_partitions_select_final": 1,
    "max_execution_time": 30,
}

# The one column that is not text.
_BINARY: Final = {"message": "bytes"}

_INSERT_SETTINGS: Final = {
    # A batch that the raw table has already is still offered to the roll-ups, each of which knows itself
    # whether it has it: a crash between the two is repaired by sending the batch again.
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # A batch with calls of very many months is odd, but must not be refused for ever.
    "max_partitions_per_insert_block": 0,
    "async_insert": 0,
}


def quoted(text: str) -> str:
    """`text` as an SQL string literal."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def tenant_wall(tenant: str) -> str:
    """The value of `additional_table_filters` that leaves one tenant's rows visible."""
    condition = quoted(f"tenant_id = {quoted(tenant)}")
    return "{" + ", ".join(f"{quoted(table)}: {condition}" for table in TENANT_TABLES) + "}"


class Engine:
    """Statements in, rows out. Safe to use from any thread."""

    def __init__(self, dsn: str, lock_file: Path | None) -> None:
        """Connect. `lock_file` is held while the engine is open (embedded); None for a server.

        Raises WarehouseLocked, WarehouseFailed.
        """
        self._lock_file = self._hold(lock_file) if lock_file is not None else None
        self._clients: list[Any] = []
        self._readers: LifoQueue[Any] = LifoQueue()
        self._write_lock = Lock()
        try:
            self._writer = self._connect(dsn)
            for _ in range(_READERS):
                self._readers.put(self._connect(dsn))
        except (ClickHouseError, RuntimeError) as error:
            self.close()
            raise WarehouseFailed(
                f"cannot open the warehouse {dsn}: {_first_line(error)}",
                "check that the folder is writable and the disk has room",
            ) from error

    @classmethod
    def embedded(cls, folder: Path) -> Engine:
        """The engine of this process over `folder`, which is made where it is missing."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WarehouseFailed(
                f"cannot make the warehouse folder {folder}: {error.strerror}", "choose another state folder"
            ) from error
        return cls(f"chdb://{folder.resolve()}", folder.with_name(f"{folder.name}.lock"))

    def command(self, statement: str) -> None:
        """Run a statement that changes the schema."""
        with self._write_lock, _failures(statement):
            self._writer.command(statement)

    def insert(self, table: str, block: bytes, token: str) -> None:
        """Append rows in Native format; one of the same token again changes nothing."""
        settings = {**_INSERT_SETTINGS, "insert_deduplication_token": token}
        with self._write_lock, _failures(f"INSERT INTO {table}"):
            self._writer.raw_insert(table, insert_block=block, settings=settings, fmt="Native")

    def read(self, tenant: str, sql: str, parameters: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """Rows of a query that sees `tenant`'s rows only. `{tenant:String}` is bound for it."""
        settings = {"additional_table_filters": tenant_wall(tenant)}
        return self._query(sql, {**parameters, "tenant": tenant}, settings)

    def read_meta(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """Rows of a query about the engine itself or the schema: no tenant's rows."""
        return self._query(sql, {}, {})

    def _query(
        self, sql: str, parameters: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> Sequence[tuple[Any, ...]]:
        client = self._readers.get()
        try:
            with _failures(sql):
                rows: Sequence[tuple[Any, ...]] = client.query(
                    sql,
                    parameters=dict(parameters),
                    settings={**_READ_SETTINGS, **settings},
                    column_formats=_BINARY,
                ).result_rows
                return rows
        finally:
            self._readers.put(client)

    def close(self) -> None:
        """Close every client and release the folder. Waits for a running insert; idempotent."""
        with self._write_lock:
            while self._clients:
                self._clients.pop().close()
            if self._lock_file is not None:
                os.close(self._lock_file)
                self._lock_file = None

    def _connect(self, dsn: str) -> Any:
        client = clickhouse_connect.get_client(dsn=dsn)
        self._clients.append(client)
        return client

    @staticmethod
    def _hold(path: Path) -> int:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise WarehouseFailed(
                f"cannot write {path}: {error.strerror}",
                "run as a user who may, or choose another state folder",
            ) from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise WarehouseLocked(
                f"another process uses the warehouse {path.with_suffix('')}",
                "stop the other `mmpipeline serve`, or choose another state folder",
            ) from error
        return handle


@contextmanager
def _failures(statement: str) -> Iterator[None]:
    """Turn the driver's errors into ours. Values are bound, so the statement itself is safe to show."""
    try:
        yield
    except ClickHouseError as error:
        raise WarehouseFailed(
            f"the warehouse refused `{' '.join(statement.split())[:80]}`: {_first_line(error)}",
            "check disk space and the pipeline's log",
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]
