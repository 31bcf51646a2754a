from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmpipeline.config import Warehouse as WarehouseSettings
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmproto.settings import Secret
from tests.services.clickhouse import clickhouse, warehouse_url

__all__ = ["clickhouse", "warehouse_url"]


@pytest.fixture(params=["embedded", "server"])
def settings(request: pytest.FixtureRequest) -> WarehouseSettings:
    """The shapes that can be run here; every test of the warehouse is one of both."""
    if request.param == "embedded":
        return WarehouseSettings()
    return WarehouseSettings(url=Secret(request.getfixturevalue("warehouse_url")))


@pytest.fixture
def warehouse(tmp_path: Path, settings: WarehouseSettings) -> Iterator[Warehouse]:
    with Warehouse.open(tmp_path / "warehouse", settings) as opened:
        yield opened
