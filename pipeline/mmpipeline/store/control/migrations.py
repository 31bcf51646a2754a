"""Numbered SQL files, applied in order, each once and each whole.

What was applied is written down with its checksum. A file that was edited after it was applied, and a
store that was written by newer code, are refused: both would make the code read a schema it does not know.
"""

from __future__ import annotations

import hashlib
import re
import sqlite3
from dataclasses import dataclass
from importlib.resources import files

_NAME = re.compile(r"(\d{4})_\w+\.sql")


class MigrationError(Exception):
    """The schema of a store does not fit this code. `hint` says what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations() -> list[Migration]:
    """The steps that this code knows, in order."""
    folder = files("mmpipeline.store.control") / "steps"
    found = [
        Migration(int(match.group(1)), entry.name, entry.read_text(encoding="utf-8"))
        for entry in folder.iterdir()
        if (match := _NAME.fullmatch(entry.name))
    ]
    return sorted(found, key=lambda migration: migration.version)


def migrate(connection: sqlite3.Connection, known: list[Migration] | None = None) -> None:
    """Bring the store up to the newest step. Raises MigrationError, sqlite3.Error."""
    steps = migrations() if known is None else known
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations ("
        "version INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL, "
        "applied_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP) STRICT"
    )
    rows = connection.execute("SELECT version, name, checksum FROM schema_migrations").fetchall()
    applied = {version: (name, checksum) for version, name, checksum in rows}
    by_version = {step.version: step for step in steps}
    for version, (name, checksum) in sorted(applied.items()):
        step = by_version.get(version)
        if step is None:
            raise MigrationError(
                f"the store has step {name}, which this version does not know",
                "a newer ModelMeter wrote it: install that version or a later one",
            )
        if step.checksum != checksum:
            raise MigrationError(
                f"step {name} was changed after it was applied to this store",
                "reinstall ModelMeter; a schema change is a new numbered file, never an edited one",
            )
    for step in steps:
        if step.version not in applied:
            _apply(connection, step)


def _apply(connection: sqlite3.Connection, step: Migration) -> None:
    # In a transaction of its own, so that a kill in the middle leaves the step not applied at all. Two
    # processes that start together both come here; the lock makes the second see the first's step.
    connection.execute("BEGIN IMMEDIATE")
    try:
        done = connection.execute("SELECT 1 FROM schema_migrations WHERE version = ?", (step.version,))
        if done.fetchone() is None:
            for statement in _statements(step.sql):
                connection.execute(statement)
            connection.execute(
                "INSERT INTO schema_migrations (version, name, checksum) VALUES (?, ?, ?)",
                (step.version, step.name, step.checksum),
            )
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _statements(sql: str) -> list[str]:
    statements: list[str] = []
    pending = ""
    for line in sql.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements
