"""A sensor that measures some processes and nobody else, and what it recorded."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.e2e.reading.answers import Read
from tests.e2e.stack import Stack, running_stack, wait_for

#: A library that the sensor has never seen and whose code it has to search takes seconds, once.
SEARCHED_WITHIN_S = 180.0


@dataclass(frozen=True, slots=True)
class Sensor:
    """Its calls are lines of a file."""

    stack: Stack

    def calls(self) -> list[dict[str, Any]]:
        path = self.stack.state / "calls.jsonl"
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def read(self, pid: int) -> list[Read]:
        """The calls of a process, in the order of `order`."""
        return in_order(_as_read(call) for call in self.calls() if call["process"]["pid"] == pid)

    def events(self) -> dict[str, Any]:
        events: dict[str, Any] = self.stack.sensor_status()["events"]
        return events

    def words(self) -> str:
        """All that it wrote."""
        return (self.stack.state / "calls.jsonl").read_text() + self.stack.daemons["sensor"].log.read_text()

    def attached(self, library: str) -> bool:
        targets = self.stack.sensor_status()["targets"]
        return any(library in target["path"] and target["attached"] for target in targets)


@contextmanager
def measuring(state: Path, pids: Iterable[int], *libraries: str) -> Iterator[Sensor]:
    """Runs until the end of the block; ready once its probes are in all of `libraries`."""
    state.mkdir()
    settings = {"sink": f"jsonl:{state}/calls.jsonl", "metrics": {"listen": "127.0.0.1:0"}}
    with running_stack(state) as stack:
        stack.start("sensor", settings, *(f"--only-pid={pid}" for pid in pids))
        sensor = Sensor(stack)
        for library in libraries:
            wait_for(f"probes in {library}", partial(sensor.attached, library), SEARCHED_WITHIN_S)
        yield sensor


def in_order(calls: Iterable[Read]) -> list[Read]:
    """Whichever of two that run side by side is recorded first: by model, then by numbers."""
    return sorted(calls, key=lambda call: (call.request_model, repr(call.buckets)))


def _as_read(call: dict[str, Any]) -> Read:
    buckets = {bucket: count for bucket, count in call["usage"]["buckets"].items() if count}
    estimated = {bucket: buckets.pop(bucket) for bucket in call["usage"].get("estimated", ())}
    return Read(
        call["provider"],
        call["operation"],
        call["request_model"],
        call.get("response_model", ""),
        call["streaming"],
        buckets,
        call["usage"]["quality"],
        call.get("reported_cost_usd", ""),
        call.get("error_type", ""),
        estimated,
    )
