"""The control store: migrations, durability settings, and refusing what it cannot use."""

from __future__ import annotations

import sqlite3
import stat
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from mmpipeline.ingest.authority import TokenError, ingest_token, is_authorised
from mmpipeline.store.control.migrations import Migration, MigrationError, migrate, migrations
from mmpipeline.store.control.store import ControlStore, ControlStoreError


def test_a_new_store_has_every_step_and_keeps_its_id(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "control.sqlite"
    first = ControlStore(file)
    identity = first.store_id
    assert [v for (v,) in first.read("SELECT version FROM schema_migrations")] == [
        m.version for m in migrations()
    ]
    assert first.read("PRAGMA journal_mode") == [("wal",)]
    first.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = ControlStore(file)
    assert again.store_id == identity
    again.close()


def test_steps_are_numbered_without_gaps() -> None:
    assert [m.version for m in migrations()] == list(range(1, len(migrations()) + 1))


def test_a_store_of_newer_code_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "control.sqlite"
    ControlStore(file).close()
    with sqlite3.connect(file) as raw:
        raw.execute("INSERT INTO schema_migrations (version, name, checksum) VALUES (99, '0099_x.sql', 'x')")
    raw.close()
    with pytest.raises(ControlStoreError, match="newer ModelMeter"):
        ControlStore(file)


def test_an_edited_step_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "control.sqlite"
    ControlStore(file).close()
    raw = sqlite3.connect(file, isolation_level=None)
    edited = [replace(migrations()[0], sql=migrations()[0].sql + "\n-- later")]
    with pytest.raises(MigrationError, match="was changed after it was applied"):
        migrate(raw, edited)
    raw.close()


def test_a_step_that_fails_is_not_applied_at_all(tmp_path: Path) -> None:
    raw = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
    broken = Migration(1, "0001_x.sql", "CREATE TABLE a (x);\nCREATE TABLE a (y);\n")
    with pytest.raises(sqlite3.Error):
        migrate(raw, [broken])
    assert raw.execute("SELECT name FROM sqlite_master WHERE name = 'a'").fetchall() == []
    migrate(raw, [replace(broken, sql="CREATE TABLE a (x);\n")])
    migrate(raw, [replace(broken, sql="CREATE TABLE a (x);\n")])
    raw.close()


def test_two_that_start_together_agree(tmp_path: Path) -> None:
    stores: list[ControlStore] = []
    threads = [
        threading.Thread(target=lambda: stores.append(ControlStore(tmp_path / "control.sqlite")))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({store.store_id for store in stores}) == 1
    assert len(stores) == 6
    for store in stores:
        store.close()


@pytest.mark.parametrize(
    "content", [b"this is no database, whatever its name says" * 20, b"SQLite format 3\0junk"]
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "control.sqlite"
    file.write_bytes(content)
    with pytest.raises(ControlStoreError, match="move the file away"):
        ControlStore(file)
    assert file.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(ControlStoreError, match="state folder"):
        ControlStore(tmp_path / "file" / "control.sqlite")


def test_a_transaction_that_fails_leaves_nothing(tmp_path: Path) -> None:
    store = ControlStore(tmp_path / "control.sqlite")
    with pytest.raises(RuntimeError), store.write() as connection:
        connection.execute("INSERT INTO counters VALUES ('x', 1)")
        raise RuntimeError
    with store.write() as connection:
        connection.execute("INSERT INTO counters VALUES ('y', 1)")
    assert store.read("SELECT name FROM counters") == [("y",)]
    store.close()


def test_the_token_is_made_once_and_private(tmp_path: Path) -> None:
    file = tmp_path / "state" / "ingest.token"
    tokens: list[str] = []
    threads = [threading.Thread(target=lambda: tokens.append(ingest_token(file))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(tokens)) == 1
    assert len(tokens) == 8
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [entry.name for entry in file.parent.iterdir()] == ["ingest.token"]
    assert is_authorised(f"Bearer {tokens[0]}", tokens[0])
    for header in (None, "", tokens[0], f"Basic {tokens[0]}", f"Bearer {tokens[0]}x", "Bearer \xe9"):
        assert not is_authorised(header, tokens[0])


def test_an_empty_token_file_opens_nothing(tmp_path: Path) -> None:
    file = tmp_path / "ingest.token"
    file.write_text("\n", encoding="ascii")
    with pytest.raises(TokenError, match="remove it"):
        ingest_token(file)
