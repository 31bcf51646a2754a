"""For every test: its markers go into the JUnit report, where `.ci/run` looks for the capture tests."""

from __future__ import annotations

import pytest

pytest_plugins = ("tests.services.kafka", "tests.services.postgresql", "tests.pipeline.stores")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.user_properties.extend(("marker", marker.name) for marker in item.iter_markers())
