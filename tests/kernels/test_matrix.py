"""The matrix names tests of other folders: one that was moved or renamed is missed here, not in QEMU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.kernels.matrix import MATRIX


def test_every_test_of_the_matrix_is_there() -> None:
    chosen = sorted({test for kernel in MATRIX for test in kernel.selection()})
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--collect-only", "-q", *chosen],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(chosen)} tests collected" in done.stdout
