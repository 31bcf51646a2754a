"""The repository as a user has it: what is tracked, and its commands."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def run(*command: str, code: int = 0, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the root, with `environment` added to the test's own; it must end with `code`.

    A `make` above the tests does not count: its flags stay out.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        command, cwd=ROOT, env={**own, **environment}, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, f"{command}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def tracked_files() -> list[Path]:
    """Every file that git tracks and that is there."""
    names = run("git", "-c", "safe.directory=*", "ls-files", "-z").stdout.split("\0")
    return [path for name in names if name and (path := ROOT / name).is_file()]
