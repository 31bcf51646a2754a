"""Programs that come, speak TLS for a moment and go."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sensor.capture.recorder import WORKLOADS


@pytest.fixture(scope="session")
def brief(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """workloads/brief_tls.c, which loads the libssl it is told to."""
    built = tmp_path_factory.mktemp("brief") / "brief_tls"
    subprocess.run(["clang", "-O2", str(WORKLOADS / "brief_tls.c"), "-o", str(built)], check=True)
    return built


@pytest.fixture(scope="module")
def port(certificate: tuple[Path, Path]) -> Iterator[int]:
    """Of a server in a process of its own that sends every line back reversed."""
    arguments = ["-accept", "127.0.0.1:0", "-rev", "-cert", str(certificate[0]), "-key", str(certificate[1])]
    process = subprocess.Popen(
        ["openssl", "s_server", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = next(line for line in process.stdout if line.startswith("ACCEPT"))
        yield int(line.rpartition(":")[2])
    finally:
        process.kill()
        process.wait()
        process.stdout.close() if process.stdout else None
