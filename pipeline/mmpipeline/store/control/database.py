"""The control store's door: SQLite in one file, or PostgreSQL, behind one kind of transaction.

What the rest of the package gets is a SQLAlchemy connection inside a transaction; which engine it talks to
shows only in the few bulk statements that `bulk.py` spells twice. On PostgreSQL a transaction names its
tenant (`modelmeter.tenant_id`, for that transaction alone): row-level security shows no row without it.
SQLite has one user and no such thing, so statements name the tenant themselves as well.

SQLite: WAL with synchronous=FULL, so that what was committed survives a kill and a power cut; one
connection writes, behind a lock, and readers never wait for it. PostgreSQL: READ COMMITTED for writing,
a snapshot for reading, and never as a role that passes row-level security.

Errors:

    DatabaseError      the store cannot be used as it is; `hint` says what to do
      DatabaseAway     the server does not answer or does not let us in: trying again later may work
    StoreBusy          it cannot be read or written now (locked, away, disk full, a deadlock was broken):
                       nothing of the transaction holds, and trying again later may work
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Self

from sqlalchemy import Connection, Engine, create_engine, event, exc, make_url
from sqlalchemy.pool import QueuePool, StaticPool

from mmpipeline.store.control import schema

_BUSY_TIMEOUT_S = 10.0
_SQLITE = "sqlite:///"

# A transaction that waits longer for a row, or that a stopped process holds open, gives way: its work is
# done again, by whoever has the partition then. What is committed must stay: rows leave for the warehouse
# under the name that a commit gave them.
_POSTGRESQL_OPTIONS = (
    "-c lock_timeout=10s -c idle_in_transaction_session_timeout=60s -c synchronous_commit=on"
)

# What a call says is in no message: errors come without the values of their statements. And of every
# statement we learn how many rows it wrote: whether a row was new decides what follows from it.
_COMMON: dict[str, Any] = {"hide_parameters": True, "execution_options": {"preserve_rowcount": True}}

Dialect = Literal["sqlite", "postgresql"]
Role = Literal["worker", "app"]


class DatabaseError(Exception):
    """The control store cannot be used. `hint` says what to do about it."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"{message}; {hint}")
        self.hint = hint


class DatabaseAway(DatabaseError):
    """The server cannot be reached, or does not let us in."""


class StoreBusy(Exception):
    """The store cannot be used now; trying again later may work. Nothing of the transaction holds."""


def file_url(path: Path) -> str:
    """The URL of a SQLite file."""
    return f"{_SQLITE}{path.absolute()}"


def use_tenant(connection: Connection, tenant: str) -> None:
    """From here to the end of its transaction a connection sees and writes rows of this tenant."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT set_config('modelmeter.tenant_id', %s, true)", (tenant,))


class Database:
    """An open control store. Thread-safe; use `Database.open`."""

    def __init__(self, dialect: Dialect, name: str, writer: Engine, reader: Engine) -> None:
        self.dialect: Dialect = dialect
        # What it is called in messages: never with a password.
        self.name = name
        self._writer = writer
        self._reader = reader
        # SQLite has one writer: threads wait here for their turn, without a time limit.
        self._turn = threading.Lock() if dialect == "sqlite" else None
        self.store_id = ""

    @classmethod
    def open(cls, url: str, role: Role | None = None) -> Self:
        """The store at `sqlite:///PATH` or `postgresql://USER@HOST/DATABASE`. Raises DatabaseError.

        A SQLite file is made and brought up to date. PostgreSQL is only looked at: its schema belongs to
        another role. `role` says what the login role must be a member of.
        """
        if url.startswith(_SQLITE):
            return cls._open_sqlite(Path(url.removeprefix(_SQLITE)))
        return cls._open_postgresql(url, role)

    @classmethod
    def _open_sqlite(cls, path: Path) -> Self:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Who called what is nobody else's business; the files beside it take over its mode.
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            raw = _connect(str(path))
        except (OSError, sqlite3.Error) as error:
            raise DatabaseError(
                f"{path} cannot be opened: {error}", "check that the state folder exists and is writable"
            ) from error
        reading = f"{path.absolute().as_uri()}?mode=ro"
        self = cls(
            "sqlite",
            str(path),
            _engine(lambda: raw, "BEGIN IMMEDIATE", poolclass=StaticPool),
            _engine(
                lambda: _connect(reading, uri=True),
                "BEGIN",
                poolclass=QueuePool,
                max_overflow=-1,
                pool_size=16,
            ),
        )
        try:
            _use_wal(raw)
            raw.execute("PRAGMA synchronous = FULL")
            raw.execute("PRAGMA foreign_keys = ON")
            raw.execute("PRAGMA cache_size = -65536")
            raw.execute("PRAGMA wal_autocheckpoint = 4000")
            with self._writer.begin() as connection:
                schema.upgrade(connection)
                self.store_id = schema.store_id(connection)
        except schema.SchemaError as error:
            self.close()
            raise DatabaseError(f"{path}: {error}", error.hint) from error
        except (sqlite3.Error, exc.DatabaseError) as error:
            self.close()
            raise DatabaseError(
                f"{path} cannot be used: {said(error)}",
                "check free space and permissions; move the file away to start with an empty one",
            ) from error
        return self

    @classmethod
    def _open_postgresql(cls, url: str, role: Role | None) -> Self:
        engine = postgresql_engine(url)
        name = engine.url.render_as_string(hide_password=True).replace("+psycopg", "", 1)
        reader = engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self = cls("postgresql", name, engine, reader)
        try:
            with self._reader.begin() as connection:
                schema.check_role(connection, role)
                schema.check_revision(connection)
                self.store_id = schema.store_id(connection)
        except schema.SchemaError as error:
            self.close()
            raise DatabaseError(f"{name}: {error}", error.hint) from error
        except exc.SQLAlchemyError as error:
            self.close()
            kind = DatabaseAway if isinstance(error, exc.OperationalError) else DatabaseError
            raise kind(
                f"{name} cannot be used: {said(error)}",
                "check control.url, that the server runs, and its pg_hba.conf",
            ) from error
        return self

    @contextmanager
    def write(self, tenant: str | None = None) -> Iterator[Connection]:
        """One transaction: committed as a whole when the block ends, rolled back when it raises.

        Raises StoreBusy where the transaction cannot be written now.
        """
        if self._turn is None:
            with self._transaction(self._writer, tenant) as connection:
                yield connection
        else:
            with self._turn, self._transaction(self._writer, tenant) as connection:
                yield connection

    @contextmanager
    def read(self, tenant: str | None = None) -> Iterator[Connection]:
        """A snapshot of the last committed state to read from. Raises StoreBusy."""
        with self._transaction(self._reader, tenant) as connection:
            yield connection

    @contextmanager
    def _transaction(self, engine: Engine, tenant: str | None) -> Iterator[Connection]:
        try:
            with engine.begin() as connection:
                if tenant is not None:
                    use_tenant(connection, tenant)
                yield connection
        except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
            raise StoreBusy(f"{self.name}: {said(error)}") from error
        except exc.DBAPIError as error:
            if error.connection_invalidated:
                raise StoreBusy(f"{self.name}: {said(error)}") from error
            raise

    def close(self) -> None:
        """Close all connections; the store cannot be used after it."""
        self._reader.dispose()
        if self._turn is not None:
            with self._turn:
                self._writer.dispose()
        else:
            self._writer.dispose()


def postgresql_engine(url: str) -> Engine:
    """An engine for `postgresql://...`. Raises DatabaseError where it cannot even be tried."""
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.get_backend_name() != "postgresql":
        raise DatabaseError(
            "the address of the control store is not understood",
            "expected is postgresql://USER@HOST/DATABASE",
        )
    try:
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"),
            pool_size=8,
            max_overflow=24,
            pool_timeout=_BUSY_TIMEOUT_S,
            pool_pre_ping=True,
            **_COMMON,
            connect_args={"connect_timeout": 10, "options": _POSTGRESQL_OPTIONS},
        )
    except ModuleNotFoundError as error:
        raise DatabaseError(
            "PostgreSQL needs the package psycopg", "install modelmeter[postgresql]"
        ) from error


def _engine(creator: Any, begin: str, **options: Any) -> Engine:
    engine = create_engine("sqlite://", creator=creator, **_COMMON, **options)

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def _connect(database: str, uri: bool = False) -> sqlite3.Connection:
    # Without an isolation level sqlite3 begins nothing by itself: the engine's own BEGIN says how.
    return sqlite3.connect(
        database, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False, uri=uri
    )


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


def said(error: BaseException) -> str:
    """What the database said, in one line, without our statement and its parameters."""
    said = str(getattr(error, "orig", None) or error)
    with suppress(IndexError):
        return said.strip().splitlines()[0]
    return type(error).__name__
