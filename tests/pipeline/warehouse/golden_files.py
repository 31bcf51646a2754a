"""Writes the golden files of test_layouts anew: .venv/bin/python -m tests.pipeline.warehouse.golden_files"""

from __future__ import annotations

from pathlib import Path

from mmpipeline.store.warehouse.layouts import EMBEDDED, Layout, clustered, server
from mmpipeline.store.warehouse.migrations import MIGRATIONS, versions_table

LAYOUTS = {
    "embedded": EMBEDDED,
    "server": server("modelmeter"),
    "cluster": clustered("modelmeter", "main"),
}


def rendered(layout: Layout) -> str:
    """All statements of a layout, as they are sent."""
    steps = [f"{statement};\n" for step in MIGRATIONS for statement in step.statements(layout)]
    return "\n".join((f"{versions_table(layout)};\n", *steps))


def main() -> None:
    """Write them."""
    for name, layout in LAYOUTS.items():
        path = Path(__file__).parent / "golden" / f"{name}.sql"
        path.write_text(rendered(layout), encoding="utf-8")


if __name__ == "__main__":
    main()
