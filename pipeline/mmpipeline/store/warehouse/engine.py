"""The one boundary around ClickHouse: embedded (chDB) or a server, through the same client.

chDB's limits, measured and kept to here so that nobody else has to know them:

- One process a folder. A file lock of our own is taken first, because chDB reports a second opener on
  the terminal and with a stack of three exceptions.
- A client serialises its calls, whatever thread they come from, and a query releases the GIL. So there is
  one client for writing and a few for reading: a dashboard never waits for a batch, nor the reverse.
- A client must be closed before the interpreter ends, or the engine's threads outlive their data.

Every read is confined to one tenant twice: by the statement's own condition, which the primary key
needs, and by `additional_table_filters`, which the engine adds to every tenant table a statement names, so
that a condition forgotten in some statement shows nothing instead of somebody else's rows. On a cluster
the filter names the tables on the shards as well as those over them: the server that is asked turns a filter
of the latter into one of the former since 22.10, and a filter that both know is applied once more, not less.

A server's URL holds a password. It is given to the client and shown to nobody: errors say host and port, and
never the client's own words about a connection, which quote the request with its values.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import LifoQueue
from threading import Lock
from typing import Any, Final, Self
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

import clickhouse_connect
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError
from urllib3.exceptions import HTTPError, MaxRetryError

from mmpipeline.store.warehouse.errors import WarehouseAway, WarehouseError, WarehouseFailed, WarehouseLocked
from mmpipeline.store.warehouse.layouts import EMBEDDED, Layout, clustered, identifier, quoted, server

# Pages ask their questions one after another, so that two readers serve two people at once; a server has more
# cores than the machine of an embedded warehouse spares.
_READERS: Final = 2
_SERVER_READERS: Final = 4

_CONNECT_S: Final = 5
_ANSWER_S: Final = 120

_READ_SETTINGS: Final = {
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
    # A column that these tables do not have is refused, not left out: rows of a newer version wait for it.
    "input_format_skip_unknown_fields": 0,
    "async_insert": 0,
}

_UNKNOWN_DATABASE: Final = 81
# What a server says when it cannot serve now, but may in a moment, by ClickHouse's names of its codes.
_NOT_NOW: Final = frozenset(
    (
        159,  # TIMEOUT_EXCEEDED
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        225,  # NO_ZOOKEEPER
        236,  # ABORTED
        241,  # MEMORY_LIMIT_EXCEEDED
        242,  # TABLE_IS_READ_ONLY
        252,  # TOO_MANY_PARTS
        279,  # ALL_CONNECTION_TRIES_FAILED
        285,  # TOO_FEW_LIVE_REPLICAS
        286,  # UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
        319,  # UNKNOWN_STATUS_OF_INSERT
        439,  # CANNOT_SCHEDULE_TASK
        999,  # KEEPER_EXCEPTION
    )
)

# It repeats at WARNING what it raises, with the whole request.
logging.getLogger("clickhouse_connect").setLevel(logging.ERROR)


class Engine:
    """Statements in, rows out. Safe to use from any thread."""

    def __init__(
        self, layout: Layout, where: str, connect: Callable[[], Any], readers: int, lock: int | None = None
    ) -> None:
        """Connect. `where` is shown to people; `lock` is a file that is held while the engine is open.

        Raises WarehouseAway, WarehouseFailed.
        """
        self.layout = layout
        self._where = where
        self._lock_file = lock
        self._clients: list[Any] = []
        self._readers: LifoQueue[Any] = LifoQueue()
        self._write_lock = Lock()
        self._walled: tuple[str, ...] = ()
        try:
            with self._failures("connect"):
                self._writer = self._keep(connect())
                for _ in range(readers):
                    self._readers.put(self._keep(connect()))
        except BaseException:
            self.close()
            raise

    @classmethod
    def embedded(cls, folder: Path) -> Self:
        """The engine of this process over `folder`, which is made where it is missing.

        Raises WarehouseLocked, WarehouseFailed.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WarehouseFailed(
                f"cannot make the warehouse folder {folder}: {error.strerror}", "choose another state folder"
            ) from error
        lock = _hold(folder.with_name(f"{folder.name}.lock"))
        dsn = f"chdb://{folder.resolve()}"
        return cls(EMBEDDED, str(folder), lambda: clickhouse_connect.get_client(dsn=dsn), _READERS, lock)

    @classmethod
    def server(cls, url: str, cluster: str) -> Self:
        """The server at `url`, or all of `cluster`; the database is made where it is missing.

        Raises WarehouseAway, WarehouseFailed.
        """
        address = _address(url)
        where = f"{address.scheme}://{address.hostname}:{address.port or 'default'}"
        database = unquote(address.path.strip("/")) or "default"
        layout = clustered(database, cluster) if cluster else server(database)

        def connect(database: str | None = database) -> Any:
            dsn = urlunsplit((address.scheme, address.netloc, f"/{database or ''}", address.query, ""))
            return clickhouse_connect.get_client(
                dsn=dsn,
                interface=address.scheme,
                autogenerate_session_id=False,
                connect_timeout=_CONNECT_S,
                send_receive_timeout=_ANSWER_S,
            )

        try:
            return cls(layout, where, connect, _SERVER_READERS)
        except WarehouseError as error:
            if getattr(error.__cause__, "code", None) != _UNKNOWN_DATABASE:
                raise
        first = cls(layout, where, lambda: connect(None), 0)
        try:
            first.command(f"CREATE DATABASE IF NOT EXISTS {identifier(database)}{layout.everywhere}")
        finally:
            first.close()
        return cls(layout, where, connect, _SERVER_READERS)

    def confine(self, tables: Sequence[str]) -> None:
        """From now on reads are confined to one tenant on each of `tables`."""
        self._walled = tuple(dict.fromkeys((*tables, *map(self.layout.local, tables))))

    def command(self, statement: str) -> None:
        """Run a statement that changes the schema."""
        with self._write_lock, self._failures(statement):
            self._writer.command(statement)

    def insert(self, table: str, block: bytes, token: str) -> None:
        """Append rows in Native format; one of the same token again changes nothing."""
        settings = {**_INSERT_SETTINGS, **self.layout.insert_settings, "insert_deduplication_token": token}
        with self._write_lock, self._failures(f"INSERT INTO {table}"):
            self._writer.raw_insert(table, insert_block=block, settings=settings, fmt="Native")

    def read(self, tenant: str, sql: str, parameters: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        """Rows of a query that sees `tenant`'s rows only. `{tenant:String}` is bound for it."""
        settings = {"additional_table_filters": self.wall(tenant)}
        return self._query(sql, {**parameters, "tenant": tenant}, settings)

    def read_meta(self, sql: str) -> Sequence[tuple[Any, ...]]:
        """Rows of a query about the engine itself or the schema: no tenant's rows."""
        return self._query(sql, {}, {})

    def wall(self, tenant: str) -> str:
        """The value of `additional_table_filters` that leaves one tenant's rows visible."""
        if not self._walled:
            raise ValueError("nothing is read for a tenant before it is said which tables have tenants")
        condition = quoted(f"tenant_id = {quoted(tenant)}")
        return "{" + ", ".join(f"{quoted(table)}: {condition}" for table in self._walled) + "}"

    def _query(
        self, sql: str, parameters: Mapping[str, Any], settings: Mapping[str, Any]
    ) -> Sequence[tuple[Any, ...]]:
        client = self._readers.get()
        try:
            with self._failures(sql):
                rows: Sequence[tuple[Any, ...]] = client.query(
                    sql,
                    parameters=dict(parameters),
                    settings={**_READ_SETTINGS, **self.layout.read_settings, **settings},
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

    def _keep(self, client: Any) -> Any:
        self._clients.append(client)
        return client

    @contextmanager
    def _failures(self, statement: str) -> Iterator[None]:
        """Turn the driver's errors into ours. Values are bound, so the statement itself is safe to show."""
        try:
            yield
        except (ClickHouseError, RuntimeError) as error:
            code = getattr(error, "code", None)
            if isinstance(error.__cause__, HTTPError):
                raise WarehouseAway(
                    f"the warehouse {self._where} cannot be reached: {_why(error.__cause__)}",
                    "check that ClickHouse runs there and that warehouse.url names its HTTP port",
                ) from error
            # The client says OperationalError where a proxy or the server answered 429, 503 or 504.
            if code in _NOT_NOW or (code is None and isinstance(error, OperationalError)):
                raise WarehouseAway(
                    f"the warehouse {self._where} cannot serve now: {_first_line(error)}",
                    "wait, and look at ClickHouse's own log if it lasts",
                ) from error
            raise WarehouseFailed(
                f"the warehouse {self._where} refused `{' '.join(statement.split())[:80]}`: "
                f"{_first_line(error)}",
                "check its disk space, the user's rights and the pipeline's log",
            ) from error


def _address(url: str) -> SplitResult:
    """Raises WarehouseFailed, without the URL in it."""
    try:
        address = urlsplit(url)
        usable = address.scheme in ("http", "https") and address.hostname and (address.port or 1)
    except ValueError:
        usable = None
    if not usable:
        raise WarehouseFailed(
            "warehouse.url is no address of ClickHouse's HTTP interface",
            "write it as http://USER:PASSWORD@HOST:8123/DATABASE, with https where the server has TLS",
        )
    return address


def _hold(path: Path) -> int:
    """Lock `path` for this process; returns its handle."""
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


def _why(cause: HTTPError) -> str:
    """What happened to a connection. A MaxRetryError would quote the request, its reason does not."""
    reason = cause.reason if isinstance(cause, MaxRetryError) and cause.reason else cause
    return _first_line(reason).rpartition(": ")[2] or type(reason).__name__


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:300]
