"""A router as a real process between a scripted provider and a pipeline that counts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.provider.certificates import Certificates, make_certificates
from tests.router.answers import respond_as_provider
from tests.router.pipeline import FakePipeline
from tests.router.upstream import Upstream

from mmrouter.keys import digest

KEY = "mmk-red-team"
BLUE_KEY = "mmk-blue-team"
NARROW_KEY = "mmk-one-model"
PROVIDER_KEY = "sk-the-provider-s-own-key"


def wait_for(what: str, condition: Callable[[], Any], within_s: float = 20.0) -> Any:
    """First truthy result of `condition`."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.02)
    raise AssertionError(f"{what}: not within {within_s:.0f} s")


def body_of(error: Any) -> dict[str, Any]:
    """The parsed body of an SDK's error."""
    body = error.body
    assert isinstance(body, dict)
    return body


@dataclass
class RouterProcess:
    """`mmrouter serve` with `settings`, as a user runs it."""

    folder: Path
    settings: dict[str, Any]
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        config = self.folder / "router.yaml"
        config.write_text(json.dumps(self.settings))  # JSON is YAML
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MODELMETER_")}
        with (self.folder / "router.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mmrouter.cli", "serve", "--config", str(config)],
                env=kept | {"PROVIDER_KEY": PROVIDER_KEY} | self.environment,
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode()
        assert line.startswith("listening on "), (self.folder / "router.log").read_text()
        self.url = line.removeprefix("listening on ").strip()
        self.port = int(self.url.rpartition(":")[2])

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/-/status", timeout=10) as answer:
            document: dict[str, Any] = json.load(answer)
            return document

    def settled(self) -> bool:
        """Whether the pipeline has taken everything and the router knows it."""
        status = self.status()
        return bool(status["spool"]["records"] == 0 and status["calls_not_yet_in_state"] == 0)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def upstream(certificates: Certificates) -> Iterator[Upstream]:
    with Upstream(certificates, respond=respond_as_provider) as server:
        yield server


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[FakePipeline]:
    """Budget of team red: 1 $ a month, blocking."""
    with FakePipeline(tmp_path, limit_nano_usd=10**9, team="red") as server:
        yield server


@pytest.fixture
def router(tmp_path: Path, upstream: Upstream, pipeline: FakePipeline) -> Iterator[RouterProcess]:
    """Not started yet, so that a test can change `settings` first."""
    ca = str(upstream.certificates.ca)
    provider = {"base_url": upstream.url, "api_key_env": "PROVIDER_KEY", "ca_file": ca}
    settings = {
        "listen": {"port": 0},
        "state_dir": str(tmp_path),
        "node": "test-node",
        "pipeline": {"url": pipeline.url, "poll_s": 0.2},
        "upstreams": [
            {"name": "openai", "dialect": "openai", **provider},
            {"name": "anthropic", "dialect": "anthropic", **provider},
        ],
        "keys": [
            {"id": "red", "sha256": digest(KEY), "team": "red", "application": "app", "user": "ada"},
            {"id": "blue", "sha256": digest(BLUE_KEY), "team": "blue"},
            {"id": "narrow", "sha256": digest(NARROW_KEY), "team": "blue", "models": ["gpt-4o-mini*"]},
        ],
    }
    process = RouterProcess(tmp_path, settings)
    yield process
    process.end()


@pytest.fixture
def running(router: RouterProcess) -> RouterProcess:
    router.start()
    return router
