from __future__ import annotations

from pathlib import Path

import pytest

from tests.sensor.doctor.machines import Machine


@pytest.fixture
def computer(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine")
