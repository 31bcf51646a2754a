"""A real PostgreSQL for a whole run of tests, and databases of their own for each of them.

A test that kills or stops a server takes one of its own: `own_postgresql`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmlocal.services.postgresql import PostgreSQL
from mmpipeline.store.control import schema
from mmpipeline.store.control.database import postgresql_engine

_NUMBERS = itertools.count()
_MIGRATED = "migrated"


@dataclass(frozen=True, slots=True)
class ControlDatabase:
    """A migrated database and the addresses that its three roles log in to."""

    name: str
    owner: str
    worker: str
    app: str


MakeDatabase = Callable[[], ControlDatabase]


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """The server that all tests share: nobody stops it."""
    server = PostgreSQL(tmp_path_factory.mktemp("postgresql"), durable=False)
    try:
        server.start()
        server.make_database(_MIGRATED)
        migrate(server, _MIGRATED)
        yield server
    finally:
        server.close()


@pytest.fixture
def own_postgresql(tmp_path: Path) -> Iterator[PostgreSQL]:
    """A started server with a migrated database `modelmeter` for one test, to be hurt."""
    server = PostgreSQL(tmp_path / "postgresql", durable=False)
    try:
        server.start()
        migrate(server, "modelmeter")
        yield server
    finally:
        server.close()


@pytest.fixture
def make_database(postgresql: PostgreSQL) -> Iterator[MakeDatabase]:
    """make_database() gives a migrated database that no other test has."""
    with databases(postgresql) as make:
        yield make


@contextmanager
def databases(postgresql: PostgreSQL) -> Iterator[MakeDatabase]:
    """As `make_database`, for as long as the block lasts."""
    made: list[str] = []

    def make() -> ControlDatabase:
        name = f"test_{next(_NUMBERS)}"
        postgresql.make_database(name, like=_MIGRATED)
        made.append(name)
        return addresses(postgresql, name)

    yield make
    for name in made:
        postgresql.drop_database(name)


def migrate(server: PostgreSQL, database: str) -> None:
    """The product's schema and roles, with `worker` and `app` as their members."""
    engine = postgresql_engine(server.url("owner", database))
    schema.migrate(engine)
    engine.dispose()
    server.grant()


def addresses(server: PostgreSQL, database: str) -> ControlDatabase:
    return ControlDatabase(database, *(server.url(role, database) for role in ("owner", "worker", "app")))
