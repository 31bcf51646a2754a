"""The servers as processes and threads of one test: HTTP by server.mjs, WebSocket by realtime.py."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.clients import NODE
from tests.e2e.provider.certificates import Certificates, make_certificates
from tests.e2e.reading.answers import PLAN
from tests.e2e.reading.realtime import realtime_server
from tests.e2e.stack import wait_for

HOSTS = (
    "localhost",
    "api.openai.com",
    "api.x.ai",
    "bedrock-runtime.us-east-1.amazonaws.com",
    "generativelanguage.googleapis.com",
    "ollama.com",
)


@dataclass(frozen=True, slots=True)
class Servers:
    """Both listen on 127.0.0.1, with certificates for HOSTS."""

    folder: Path
    certificates: Certificates
    port: int
    realtime_port: int

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def journal(self) -> list[dict[str, Any]]:
        """Every request so far: number of its answer in PLAN (-1: none), its path, the version of HTTP."""
        text = (self.folder / "journal").read_text()
        return [json.loads(line) for line in text.splitlines(keepends=True)[1:] if line.endswith("\n")]


@contextmanager
def serving(folder: Path) -> Iterator[Servers]:
    """The servers, until the end of the block."""
    certificates = make_certificates(folder / "tls", HOSTS)
    plan, journal = folder / "plan.json", folder / "journal"
    plan.write_text(json.dumps([answer.planned() for answer in PLAN]))
    script = Path(__file__).with_name("server.mjs")
    argv = [str(NODE), str(script), str(plan), str(certificates.chain), str(certificates.key)]
    with journal.open("wb") as output, (folder / "server.log").open("wb") as errors:
        process = subprocess.Popen(argv, stdout=output, stderr=errors)
    try:
        with realtime_server(certificates) as realtime_port:
            yield Servers(folder, certificates, _port(process, journal), realtime_port)
    finally:
        process.terminate()
        process.wait(timeout=30)


def _port(process: subprocess.Popen[bytes], journal: Path) -> int:
    def said() -> str:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        return journal.read_text().partition("\n")[0]

    return int(wait_for("the server's port", said))
