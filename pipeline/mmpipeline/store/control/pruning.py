"""Drops what is older than it must be kept: ids of calls, and single charges.

The horizon moves first, in a transaction of its own: from then on ingest refuses calls of those days (they
may be duplicates that nobody knows any more), and whoever counts from charges counts from behind it. Only
then rows go: whole partitions on PostgreSQL, by the role that owns them; pieces on SQLite, so that a pipeline
that runs beside it never waits for long. What is cut off in between is done by the next run.

Charges are kept at least as long as ids: a known call may still be charged anew in place of what it was.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, text

from mmpipeline.store.control import locks, security
from mmpipeline.store.control.charged import CHARGES_HORIZON
from mmpipeline.store.control.database import Database
from mmpipeline.store.control.ledger import DAY_NS, IDS_HORIZON

_HORIZONS = {"call_ids": IDS_HORIZON, "charges": CHARGES_HORIZON}
_ROWS_AT_ONCE = 5_000


@dataclass(frozen=True, slots=True)
class Pruned:
    """Everything of these days and of those before is gone: `ids`, `charges` (days since 1970)."""

    ids: int
    charges: int
    # How many rows, or where whole days were dropped how many of those.
    dropped: int


def prune_postgresql(owner: Engine, now_unix_ns: int, keep_ids_days: int, keep_charges_days: int) -> Pruned:
    """Prune as the role that owns the tables. Raises SQLAlchemyError."""
    with owner.begin() as connection:
        connection.execute(text(f"SET LOCAL ROLE {security.OWNER}"))
        locks.pruning(connection)
        horizons = _move(connection, now_unix_ns, keep_ids_days, keep_charges_days)
        days = [
            (table, name)
            for table, horizon in horizons.items()
            for name, day in _partitions(connection, table)
            if day <= horizon
        ]
    for _, name in days:
        with owner.begin() as connection:
            connection.execute(text(f"SET LOCAL ROLE {security.OWNER}"))
            connection.execute(text(f'DROP TABLE IF EXISTS "{name}"'))
    return Pruned(horizons["call_ids"], horizons["charges"], len(days))


def prune_sqlite(database: Database, now_unix_ns: int, keep_ids_days: int, keep_charges_days: int) -> Pruned:
    """Prune a file. Raises StoreBusy."""
    with database.write() as connection:
        horizons = _move(connection, now_unix_ns, keep_ids_days, keep_charges_days)
    dropped = 0
    for first in range(256):  # ids are evenly spread
        with database.write() as connection:
            dropped += connection.execute(
                text("DELETE FROM call_ids WHERE id >= :first AND id < :behind AND day <= :day"),
                {
                    "first": bytes([first]),
                    "behind": bytes([first + 1]) if first < 255 else b"\xff" * 17,
                    "day": horizons["call_ids"],
                },
            ).rowcount
    while True:
        with database.write() as connection:
            rows = connection.execute(
                text(
                    "DELETE FROM charges WHERE rowid IN"
                    " (SELECT rowid FROM charges WHERE day <= :day LIMIT :rows)"
                ),
                {"day": horizons["charges"], "rows": _ROWS_AT_ONCE},
            ).rowcount
        dropped += rows
        if rows < _ROWS_AT_ONCE:
            return Pruned(horizons["call_ids"], horizons["charges"], dropped)


def _move(
    connection: Connection, now_unix_ns: int, keep_ids_days: int, keep_charges_days: int
) -> dict[str, int]:
    """Move the horizons, forwards only; by table, the last day that is not kept."""
    today = now_unix_ns // DAY_NS
    wanted = {"call_ids": today - keep_ids_days, "charges": today - max(keep_charges_days, keep_ids_days)}
    for table, day in wanted.items():
        held = connection.execute(
            text("SELECT value FROM meta WHERE key = :key"), {"key": _HORIZONS[table]}
        ).scalar()
        wanted[table] = max(day, 0 if held is None else int(held))
        connection.execute(
            text(
                "INSERT INTO meta (key, value) VALUES (:key, :value)"
                " ON CONFLICT (key) DO UPDATE SET value = excluded.value"
            ),
            {"key": _HORIZONS[table], "value": str(wanted[table])},
        )
    return wanted


def _partitions(connection: Connection, table: str) -> Iterator[tuple[str, int]]:
    """The partitions of a table, with their days."""
    names = connection.execute(
        text(
            "SELECT c.relname FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid"
            " WHERE i.inhparent = CAST(:parent AS regclass)"
        ),
        {"parent": table},
    ).scalars()
    for name in names.all():
        if match := re.fullmatch(rf"{table}_(\d+)", name):
            yield name, int(match[1])
