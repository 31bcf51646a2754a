"""The statements that make the tables, in each layout, as files: a change of them is seen in review."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmpipeline.store.warehouse.layouts import EMBEDDED, Layout, clustered, server
from mmpipeline.store.warehouse.migrations import MIGRATIONS, TENANT_TABLES, versions_table
from tests.pipeline.warehouse.golden_files import LAYOUTS, rendered

GOLDEN = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_statements_are_those_that_were_reviewed(name: str) -> None:
    """Where a change is meant: `.venv/bin/python -m tests.pipeline.warehouse.golden_files`."""
    assert rendered(LAYOUTS[name]) == (GOLDEN / f"{name}.sql").read_text(encoding="utf-8")


def test_chdb_and_a_server_have_the_same_tables() -> None:
    assert rendered(EMBEDDED) == rendered(server("default"))


def test_a_cluster_replicates_every_table_and_runs_everything_everywhere() -> None:
    layout = clustered("db", "it's")
    for statement in (versions_table(layout), *_statements(layout)):
        assert " ON CLUSTER `it's`" in statement
        if "ENGINE" in statement:
            assert "ENGINE = Replicated" in statement or "ENGINE = Distributed('it\\'s', 'db', " in statement
    made = {statement.split()[5] for statement in _statements(layout) if "Distributed(" in statement}
    assert made == {
        table for table in TENANT_TABLES if f"CREATE VIEW IF NOT EXISTS {table} " not in _all(layout)
    }


def _statements(layout: Layout) -> list[str]:
    return [statement for step in MIGRATIONS for statement in step.statements(layout)]


def _all(layout: Layout) -> str:
    return "\n".join(_statements(layout))
