"""These tests need root and a kernel that attaches uprobes. Where they cannot run they fail: a capture
that was never tried must not look like one that works."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(certificate, key) for localhost, made for this run."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    return certificate, key


@pytest.fixture(scope="session")
def libssl() -> Path:
    """The libssl that Python's own ssl module is linked with."""
    import _ssl

    listed = subprocess.run(["ldd", _ssl.__file__], check=True, capture_output=True, text=True).stdout
    path = next(line.split()[2] for line in listed.splitlines() if "libssl" in line)
    return Path(path).resolve()
