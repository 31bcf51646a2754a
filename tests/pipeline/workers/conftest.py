"""Fresh topics on the shared broker, a store, and the workers as processes over both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mmlocal.services.kafka import Kafka
from tests.pipeline.workers.ground import PARTITIONS, Ground, renew_topics
from tests.services.postgresql import MakeDatabase


@pytest.fixture(params=["sqlite", "postgresql"])
def control_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of each kind, as a worker reaches it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'control.sqlite'}"
    make_database: MakeDatabase = request.getfixturevalue("make_database")
    return make_database().worker


@pytest.fixture
def ground(kafka: Kafka, control_url: str, tmp_path: Path) -> Iterator[Ground]:
    """Workers over `control_url`, with the product's topics made anew."""
    renew_topics(kafka.address, PARTITIONS)
    with Ground(tmp_path, kafka.address, control_url) as ready:
        yield ready
