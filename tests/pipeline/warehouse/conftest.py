"""The warehouse in chDB, and for tests marked `every_layout` over HTTP and in a cluster's layout as well."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import clickhouse_connect
import pytest

from mmpipeline.config import Warehouse as WarehouseSettings
from mmpipeline.store.warehouse.engine import Engine
from mmpipeline.store.warehouse.layouts import clustered
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmproto.settings import Secret
from tests.services.clickhouse import clickhouse, warehouse_url

__all__ = ["clickhouse", "warehouse_url"]

OpenWarehouse = Callable[[WarehouseSettings], Warehouse]


class OneShard(Engine):
    """The layout of a cluster in chDB, which has no Keeper: not replicated, nothing ON CLUSTER, and a
    Distributed table over one shard, this process. Its tables, names and statements are the cluster's."""

    REWRITTEN = (
        (re.compile(r" ON CLUSTER `one`"), ""),
        (re.compile(r"Replicated(\w*MergeTree)\('[^']*', '[^']*'(?:, )?"), r"\1("),
        (
            re.compile(r"replicated_deduplication_window = (\d+), replicated_\w+_seconds = \d+"),
            r"non_replicated_deduplication_window = \1",
        ),
        (re.compile(r"\nENGINE = Distributed\('one', "), "\nAS remote('127.0.0.1', "),
    )

    def command(self, statement: str) -> None:
        for pattern, replacement in self.REWRITTEN:
            statement = pattern.sub(replacement, statement)
        super().command(statement)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_layout: what a layout could break")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "open_warehouse" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker("every_layout")
        layouts = ["embedded", "server", "cluster"] if marked else ["embedded"]
        metafunc.parametrize("open_warehouse", layouts, indirect=True)


@pytest.fixture
def open_warehouse(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[OpenWarehouse]:
    """Opens the test's warehouse with given times to keep; the one before it is closed."""
    opened: list[Warehouse] = []

    def opens(settings: WarehouseSettings) -> Warehouse:
        while opened:
            opened.pop().close()
        opened.append(_open(request, tmp_path, settings))
        return opened[0]

    yield opens
    while opened:
        opened.pop().close()


def _open(request: pytest.FixtureRequest, folder: Path, settings: WarehouseSettings) -> Warehouse:
    if request.param == "cluster":
        dsn = f"chdb://{folder}/cluster"
        layout = clustered("default", "one")
        engine = OneShard(layout, "here", lambda: clickhouse_connect.get_client(dsn=dsn), 2)
        return Warehouse(engine, settings)
    url = Secret("")
    if request.param == "server":
        url = Secret(request.getfixturevalue("warehouse_url"))
    return Warehouse.open(
        folder / "warehouse",
        WarehouseSettings(
            url=url, keep_days=settings.keep_days, keep_days_by_tenant=settings.keep_days_by_tenant
        ),
    )


@pytest.fixture
def warehouse(open_warehouse: OpenWarehouse) -> Warehouse:
    return open_warehouse(WarehouseSettings())
