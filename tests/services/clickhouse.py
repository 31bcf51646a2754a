"""A stand-in for a ClickHouse server for the whole test run, and a database of its own for each test."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from mmlocal.services.clickhouse import ClickHouseStandIn

_databases = itertools.count()


@pytest.fixture(scope="session")
def clickhouse(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouseStandIn]:
    """It runs; one that kills it starts it again."""
    service = ClickHouseStandIn(tmp_path_factory.mktemp("clickhouse") / "data")
    service.start()
    yield service
    service.stop()


@pytest.fixture
def warehouse_url(clickhouse: ClickHouseStandIn) -> str:
    """For `warehouse.url`: a database that nobody has used."""
    return clickhouse.url.rpartition("/")[0] + f"/test_{next(_databases)}"
