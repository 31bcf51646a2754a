"""The control store: its schema, durability settings, transactions, and refusing what it cannot use."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, exc, text

from mmlocal.services.postgresql import PostgreSQL
from mmpipeline.ingest.authority import TokenError, ingest_token, is_authorised
from mmpipeline.store.control import schema
from mmpipeline.store.control.database import (
    Database,
    DatabaseAway,
    DatabaseError,
    StoreBusy,
    file_url,
    postgresql_engine,
)
from mmpipeline.store.control.tables import metadata
from tests.pipeline.stores import Stores


def test_a_new_file_has_the_newest_schema_and_keeps_its_id(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "control.sqlite"
    first = Database.open(file_url(file))
    identity = first.store_id
    with first.read() as connection:
        assert schema.revision(connection) == schema.HEAD
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    with first.write() as connection:
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2  # FULL
    first.close()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = Database.open(file_url(file))
    assert again.store_id == identity
    again.close()


def test_the_head_is_the_newest_step() -> None:
    folder = Path(schema.__file__).parent / "migrations"
    config = Config()
    config.set_main_option("script_location", str(folder))
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_the_steps_make_the_tables_that_the_code_names(stores: Stores) -> None:
    with stores.worker.read() as connection:
        context = MigrationContext.configure(connection, opts={"include_name": _is_ours})
        differences = compare_metadata(context, metadata)
    if stores.worker.dialect == "postgresql":  # which has partitions in place of this index
        differences = [one for one in differences if (one[0], one[1].name) != ("add_index", "charges_day")]
    assert differences == []


def _is_ours(name: str | None, kind: str, _: object) -> bool:
    """Days are partitions, made as they come."""
    return kind != "table" or name in metadata.tables


def test_a_store_of_newer_code_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "control.sqlite"
    Database.open(file_url(file)).close()
    with sqlite3.connect(file) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    with pytest.raises(DatabaseError, match="newer ModelMeter"):
        Database.open(file_url(file))


def test_a_layout_that_was_never_released_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "control.sqlite"
    with sqlite3.connect(file) as raw:
        raw.execute("CREATE TABLE schema_migrations (version INTEGER)")
    raw.close()
    with pytest.raises(DatabaseError, match="an unreleased ModelMeter wrote this store"):
        Database.open(file_url(file))


def test_a_postgresql_without_tables_says_what_makes_them(postgresql: PostgreSQL) -> None:
    postgresql.make_database("unmigrated")
    try:
        with pytest.raises(DatabaseError, match="no tables yet; run `mmpipeline ledger migrate`"):
            Database.open(postgresql.url("worker", "unmigrated"))
    finally:
        postgresql.drop_database("unmigrated")


def test_two_migrations_at_once_follow_one_another(postgresql: PostgreSQL) -> None:
    postgresql.make_database("twice")
    failures: list[Exception] = []

    def migrate() -> None:
        engine = postgresql_engine(postgresql.url("owner", "twice"))
        try:
            schema.migrate(engine)
        except Exception as error:
            failures.append(error)
        engine.dispose()

    try:
        _at_once([migrate] * 3)
        assert failures == []
    finally:
        postgresql.drop_database("twice")


@pytest.mark.parametrize("url", ["mysql://x/y", "postgresql", "nonsense", "sqlite://"])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(DatabaseError, match="postgresql://USER@HOST/DATABASE"):
        Database.open(url)


def test_a_server_that_is_away_is_said_without_the_password(postgresql: PostgreSQL) -> None:
    with pytest.raises(DatabaseAway) as said:
        Database.open("postgresql://somebody:a-secret@127.0.0.1:1/modelmeter")
    assert "a-secret" not in str(said.value)
    assert "127.0.0.1" in str(said.value)


def test_two_that_start_together_agree(tmp_path: Path) -> None:
    opened: list[Database] = []
    url = file_url(tmp_path / "control.sqlite")
    _at_once([lambda: opened.append(Database.open(url))] * 6)
    assert len({database.store_id for database in opened}) == 1
    assert len(opened) == 6
    for database in opened:
        database.close()


@pytest.mark.parametrize(
    "content", [b"this is no database, whatever its name says" * 20, b"SQLite format 3\0junk"]
)
def test_a_file_that_is_no_database_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "control.sqlite"
    file.write_bytes(content)
    with pytest.raises(DatabaseError, match="move the file away"):
        Database.open(file_url(file))
    assert file.read_bytes() == content


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(DatabaseError, match="state folder"):
        Database.open(file_url(tmp_path / "file" / "control.sqlite"))


def test_a_transaction_that_fails_leaves_nothing(stores: Stores) -> None:
    with pytest.raises(RuntimeError), stores.worker.write() as connection:
        _count(connection, "x")
        raise RuntimeError
    with stores.worker.write() as connection:
        _count(connection, "y")
    with stores.app.read() as connection:
        assert connection.execute(text("SELECT name FROM counters")).scalars().all() == ["y"]


def test_a_reader_reads_one_moment_and_writes_nothing(stores: Stores) -> None:
    with stores.app.read() as reading:
        assert reading.execute(text("SELECT count(*) FROM counters")).scalar() == 0
        with stores.worker.write() as connection:
            _count(connection, "x")
        assert reading.execute(text("SELECT count(*) FROM counters")).scalar() == 0
    with pytest.raises((StoreBusy, exc.DBAPIError)), stores.worker.read() as reading:
        _count(reading, "y")


def test_an_error_does_not_show_what_was_written(stores: Stores) -> None:
    with pytest.raises(exc.IntegrityError) as said, stores.worker.write() as connection:
        for _ in range(2):
            connection.execute(text("INSERT INTO counters VALUES (:name, 0, 1)"), {"name": "whose"})
    assert "INSERT" in str(said.value)
    assert "'whose'" not in str(said.value)


def test_a_server_that_was_killed_is_busy_until_it_is_back(own_postgresql: PostgreSQL) -> None:
    database = Database.open(own_postgresql.url("worker"), "worker")
    with database.write() as connection:
        _count(connection, "x")
    with pytest.raises(StoreBusy), database.write() as connection:
        _count(connection, "lost")
        own_postgresql.kill()
        _count(connection, "lost")
    with pytest.raises(StoreBusy), database.read():
        pass
    own_postgresql.start()
    with database.write() as connection:
        _count(connection, "y")
        assert connection.execute(text("SELECT name FROM counters ORDER BY 1")).scalars().all() == ["x", "y"]
    database.close()


def _count(connection: Connection, name: str) -> None:
    connection.execute(text("INSERT INTO counters VALUES (:name, 0, 1)"), {"name": name})


def _at_once(work: list[Callable[[], object]]) -> None:
    threads = [threading.Thread(target=each) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


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
