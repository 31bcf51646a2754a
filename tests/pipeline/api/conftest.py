from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from mmpipeline.api.app import create_app
from tests.pipeline.running import Pipeline, pipeline
from tests.pipeline.samples import calls


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline with the sample calls; the tests of a module share it and put back what they change."""
    with pipeline(tmp_path_factory.mktemp("pipeline")) as opened:
        opened.take(calls())
        yield opened


@pytest.fixture(scope="module")
def client(running: Pipeline) -> Iterator[TestClient]:
    with TestClient(create_app(running.services), base_url="http://127.0.0.1:8780") as opened:
        yield opened
