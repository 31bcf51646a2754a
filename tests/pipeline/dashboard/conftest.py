from __future__ import annotations

from collections.abc import Iterator

import pytest

from mmpipeline.budgets.model import Action, Threshold
from tests.pipeline.running import Pipeline, pipeline
from tests.pipeline.samples import calls, hostile_calls


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline with ordinary and hostile calls, and budgets in each state."""
    with pipeline(tmp_path_factory.mktemp("pipeline")) as opened:
        opened.take([*calls(), *hostile_calls()])
        budgets = opened.services.budgets
        budgets.set("search", limit_nano_usd=10_000_000, scope={"team": "search"})
        budgets.set(
            "billing",
            limit_nano_usd=17_000_000,
            scope={"team": "billing"},
            thresholds=[Threshold(50, Action.ALERT), Threshold(100, Action.BLOCK)],
        )
        yield opened


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    """A pipeline that has seen nothing."""
    with pipeline(tmp_path_factory.mktemp("empty")) as opened:
        yield opened
