"""A process that maps more TLS libraries than the sensor may have files open."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.sensor.capture.recorder import WORKLOADS

pytestmark = pytest.mark.capture


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("many") / "library.so"
    subprocess.run(
        ["clang", "-O2", "-fPIC", "-shared", str(WORKLOADS / "odd_tls.c"), "-o", str(built)], check=True
    )
    return built


def test_some_descriptors_are_left_and_come_back(library: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.sensor.capture.workloads.crowded", str(library), str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
