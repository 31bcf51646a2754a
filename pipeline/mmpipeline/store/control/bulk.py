"""Thousands of rows in one statement: the few places where the two engines are spoken to differently.

SQLite takes many rows as `VALUES (...), (...)`. sqlite3 gives up the interpreter lock at each step, and with
`executemany` each row is one: beside a busy thread the next row then waits for its turn, milliseconds each.
PostgreSQL takes a column as one array: the statement stays the same whatever the number of rows, and COPY is
not for tables under row-level security. Arrays go as text: the interpreter joins text faster than it packs
numbers one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from sqlalchemy import Connection, Table
from sqlalchemy import types as sql
from sqlalchemy.dialects import postgresql, sqlite

# Rows of one statement of SQLite: few sizes, so that it keeps the prepared statements.
_ROWS_AT_ONCE = (256, 16, 1)
# Ids of one look-up in SQLite.
_IDS_AT_ONCE = 256


def is_postgresql(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def insert(
    connection: Connection,
    table: Table,
    columns: Sequence[str],
    rows: Sequence[tuple[Any, ...]],
    then: str = "",
) -> int:
    """Insert `rows` (values in the order of `columns`); `then` is an ON CONFLICT clause. Rows written."""
    if not rows:
        return 0
    names = ", ".join(f'"{column}"' for column in columns)
    head = f'INSERT INTO "{table.name}" ({names})'
    if is_postgresql(connection):
        casts, arrays = [], []
        flat = list(chain.from_iterable(rows))
        for place, column in enumerate(columns):
            kind, literal = _array_of(table.c[column].type)
            casts.append(f"%s::{kind}[]")
            arrays.append(literal(flat[place :: len(columns)]))
        # WHERE true: without it ON CONFLICT would be read as part of a join.
        statement = f"{head} SELECT * FROM unnest({', '.join(casts)}) WHERE true {then}"  # noqa: S608 - of our own names
        return connection.exec_driver_sql(statement, tuple(arrays)).rowcount
    written = 0
    values = f"({','.join('?' * len(columns))})"
    for chunk in _chunks(rows, _ROWS_AT_ONCE):
        statement = f"{head} VALUES {','.join([values] * len(chunk))} {then}"
        written += connection.exec_driver_sql(statement, tuple(chain.from_iterable(chunk))).rowcount
    return written


def insert_ignoring(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert rows whose key is not there yet, and leave the others as they are; returns how many are new."""
    if not rows:
        return 0
    new = 0
    made = postgresql.insert(table) if is_postgresql(connection) else sqlite.insert(table)
    for row in rows:
        new += connection.execute(made.values(**row).on_conflict_do_nothing()).rowcount
    return new


def by_ids(
    connection: Connection, select: str, ids: Sequence[bytes], tail: str = "", *more: Any
) -> Iterator[Any]:
    """The rows of `select` ("SELECT ... WHERE id") for `ids`; `tail` follows, its parameters are `more`.

    Parameters in `tail` are marked with `?`.
    """
    if not ids:
        return
    if is_postgresql(connection):
        statement = f"{select} = ANY(%s::bytea[]) {tail.replace('?', '%s')}"
        yield from connection.exec_driver_sql(statement, (_bytes_array(ids), *more))
        return
    statement = f"{select} IN ({','.join('?' * _IDS_AT_ONCE)}) {tail}"
    for start in range(0, len(ids), _IDS_AT_ONCE):
        chunk = ids[start : start + _IDS_AT_ONCE]
        padded = (*chunk, *(None,) * (_IDS_AT_ONCE - len(chunk)))
        yield from connection.exec_driver_sql(statement, (*padded, *more)).fetchall()


def _chunks(rows: Sequence[Any], sizes: Sequence[int]) -> Iterator[Sequence[Any]]:
    start = 0
    for size in sizes:
        while len(rows) - start >= size:
            yield rows[start : start + size]
            start += size


def _array_of(kind: sql.TypeEngine[Any]) -> tuple[str, Callable[[Sequence[Any]], str]]:
    if isinstance(kind, sql.Integer):
        return "bigint", _number_array
    if isinstance(kind, sql.LargeBinary):
        return "bytea", _bytes_array
    return "text", _text_array


def _number_array(values: Sequence[int | None]) -> str:
    text = ",".join(map(str, values))
    return f"{{{text.replace('None', 'NULL')}}}"


def _bytes_array(values: Sequence[bytes]) -> str:
    return '{"\\\\x' + '","\\\\x'.join(map(bytes.hex, values)) + '"}'


def _text_array(values: Sequence[str]) -> str:
    # Few distinct values, each many times.
    quoted = {value: _quoted(value) for value in set(values)}
    return "{" + ",".join(map(quoted.__getitem__, values)) + "}"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
