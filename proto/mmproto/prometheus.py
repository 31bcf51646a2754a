"""Metrics of a daemon as a table, and Prometheus' text format of it
(https://prometheus.io/docs/instrumenting/exposition_formats/)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Snapshot = Mapping[str, Any]
Samples = list[tuple[Mapping[str, str], float]]


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name by Prometheus' conventions, what it means, and where its samples come from."""

    name: str
    kind: Literal["counter", "gauge"]
    about: str
    samples: Callable[[Snapshot], Samples]


def exposition(metrics: Iterable[Metric], snapshot: Snapshot, common: Mapping[str, str]) -> str:
    """The metrics of a snapshot as text; `common` labels stand before each sample's own."""
    lines: list[str] = []
    for metric in metrics:
        lines += [f"# HELP {metric.name} {metric.about}", f"# TYPE {metric.name} {metric.kind}"]
        for labels, value in metric.samples(snapshot):
            shown = ",".join(f'{name}="{_escaped(text)}"' for name, text in {**common, **labels}.items())
            number = int(value) if value == int(value) else value
            lines.append(f"{metric.name}{{{shown}}} {number}" if shown else f"{metric.name} {number}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
