from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmpipeline.store.warehouse.warehouse import Warehouse


@pytest.fixture
def warehouse(tmp_path: Path) -> Iterator[Warehouse]:
    with Warehouse.open(tmp_path / "warehouse") as opened:
        yield opened
