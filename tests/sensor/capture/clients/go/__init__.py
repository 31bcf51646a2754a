"""Builds the Go clients of this folder with the machine's Go."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent


def compiler() -> str:
    """Go's command."""
    found = shutil.which("go")
    assert found, "these tests need Go"
    return found


def build(target: Path, *flags: str) -> Path:
    """The program at `target`, built with these flags of `go build` unless it is there already."""
    if not target.exists():
        environment = os.environ | {"GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", "GOWORK": "off"}
        command = [compiler(), "build", *flags, "-o", str(target), "."]
        subprocess.run(command, cwd=SOURCE, env=environment, check=True)
    return target
