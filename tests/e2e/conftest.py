"""The stack of an end-to-end test: provider, pipeline and sensor, in a folder of the test's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.provider.process import ProviderProcess
from tests.e2e.stack import Stack, running_stack


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[ProviderProcess]:
    with ProviderProcess.start(tmp_path / "provider") as process:
        yield process


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    state = tmp_path / "state"
    state.mkdir()
    with running_stack(state) as running:
        yield running


@pytest.fixture
def watching(stack: Stack, provider: ProviderProcess) -> Stack:
    """Pipeline and sensor up, and whatever calls this test's provider attributed to team `e2e`."""
    stack.start("pipeline", pipeline_settings())
    stack.start("sensor", sensor_settings(stack, provider))
    return stack


def pipeline_settings() -> dict[str, Any]:
    return {"listen": {"port": 0}}


def sensor_settings(stack: Stack, provider: ProviderProcess) -> dict[str, Any]:
    """Other tests' processes are seen by the probes too: only this provider's host gets the team."""
    return {
        "ingest": {"url": stack.daemons["pipeline"].url},
        "metrics": {"listen": "127.0.0.1:0"},
        "attribution": {
            "rules": [{"match": {"host": f"127.0.0.1:{provider.port}"}, "set": {"team": "e2e"}}],
        },
    }
