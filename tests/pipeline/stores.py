"""Control stores for tests: what holds of the one engine holds of the other.

A test that takes `stores` or `make_stores` runs on SQLite and on PostgreSQL. Where a machine has no
PostgreSQL its half is an error, not a silent pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import Engine

from mmpipeline.store.control.database import Database, file_url, postgresql_engine
from tests.services.postgresql import MakeDatabase


@dataclass(frozen=True, slots=True)
class Stores:
    """One store as the two roles see it; on SQLite there is one user for both."""

    worker: Database
    app: Database
    # How to open it once more: the address for workers.
    url: str
    # PostgreSQL's role that owns the tables; on SQLite everybody does.
    owner: Engine | None = None


MakeStores = Callable[[], Stores]


@pytest.fixture(params=["sqlite", "postgresql"])
def make_stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStores]:
    """make_stores() gives an empty store that no other test has."""
    opened: list[Database] = []
    engines: list[Engine] = []
    numbers = itertools.count()

    def sqlite() -> Stores:
        url = file_url(tmp_path / f"control-{next(numbers)}.sqlite")
        database = Database.open(url)
        opened.append(database)
        return Stores(database, database, url)

    def postgresql() -> Stores:
        make_database: MakeDatabase = request.getfixturevalue("make_database")
        made = make_database()
        worker, app = Database.open(made.worker, "worker"), Database.open(made.app, "app")
        opened.extend((worker, app))
        owner = postgresql_engine(made.owner)
        engines.append(owner)
        return Stores(worker, app, made.worker, owner)

    if request.param == "postgresql":
        request.getfixturevalue("make_database")  # outlives the stores: databases are dropped last
    yield sqlite if request.param == "sqlite" else postgresql
    for database in opened:
        database.close()
    for engine in engines:
        engine.dispose()


@pytest.fixture
def stores(make_stores: MakeStores) -> Stores:
    return make_stores()
