"""Builds rustls with its functions for C, with the machine's Rust."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent
#: Kept from one run to the next, since compiling it takes minutes; `make clean` removes it.
FOLDER = Path(__file__).parents[5] / "build" / "rustls-for-c"


def build() -> Path:
    """The shared library."""
    cargo = shutil.which("cargo")
    assert cargo, "these tests need Rust"
    # Cargo writes beside its sources which versions it chose.
    shutil.copytree(SOURCE, FOLDER, ignore=shutil.ignore_patterns("*.py*", "__pycache__"), dirs_exist_ok=True)
    subprocess.run([cargo, "build", "--quiet"], cwd=FOLDER, check=True)
    return FOLDER / "target" / "debug" / "librustls_for_c.so"
