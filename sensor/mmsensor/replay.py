"""Reads HTTP archives through the same code as the capture, from the framing onward, and prints the calls.

Needs no privilege, no daemon and no configuration.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mmproto.exchange import Dropped, Failed, Outcome
from mmproto.v1.call_pb2 import Call
from mmsensor.attribution.rules import Attribution


@dataclass(slots=True)
class ReplayCounts:
    """What became of the entries: each is a call, or dropped or failed for a reason."""

    calls: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    anomalies: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """For people: totals and reasons."""
        entries = self.calls + self.dropped.total() + self.failed.total()
        totals = f"{entries} entries: {self.calls} calls"
        parts = [totals, *_reasons("dropped", self.dropped), *_reasons("failed", self.failed)]
        return [
            ", ".join(parts),
            *(f"note: {name}: {count}" for name, count in sorted(self.anomalies.items())),
        ]


def replay(
    outcomes: Iterable[Outcome], attribution: Attribution, emit: Callable[[Call], None], counts: ReplayCounts
) -> None:
    """Passes every recognised call to `emit`, with attribution, and counts the rest."""
    for outcome in outcomes:
        if isinstance(outcome, Dropped):
            counts.dropped[outcome.reason] += 1
        elif isinstance(outcome, Failed):
            counts.failed[outcome.reason] += 1
        else:
            attribution.apply(outcome.call, outcome.headers)
            counts.anomalies.update(outcome.anomalies)
            counts.calls += 1
            emit(outcome.call)


def _reasons(column: str, counter: Mapping[str, int]) -> list[str]:
    if not counter:
        return [f"0 {column}"]
    named = ", ".join(f"{reason} {count}" for reason, count in sorted(counter.items()))
    return [f"{sum(counter.values())} {column} ({named})"]
