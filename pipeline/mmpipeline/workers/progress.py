"""What a worker did and how far behind it is: numbers for its metrics, its status and its readiness.

The loop writes, other threads read: single assignments of single values, so that no lock stands in the
way of the calls. Counters count since the process started.

The age of a partition is that of the oldest message that is not committed. While such messages are in hand
it is known; between two batches of a backlog the last committed message stands in for the next one, which
was written right behind it; where nothing is behind, it is 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mmpipeline.workers.reader import Batch, Reader


@dataclass(slots=True)
class Progress:
    """One process' numbers. `clock` gives unix nanoseconds."""

    process: str
    clock: Callable[[], int]
    counts: Counter[str] = field(default_factory=Counter)
    # Why nothing goes on, by what is in the way ("store", "warehouse", ...); empty while all is well.
    obstacles: dict[str, str] = field(default_factory=dict)
    partitions: dict[int, Partition] = field(default_factory=dict)
    # More of it, from those who know: the outbox of a worker.
    more: Callable[[], dict[str, Any]] = dict
    started: bool = False

    def in_hand(self, batch: Batch) -> None:
        """`batch` is being worked."""
        oldest: dict[int, int] = {}
        for message in batch.messages:
            oldest.setdefault(message.partition() or 0, message.timestamp()[1])
        for partition, at_ms in oldest.items():
            self.partitions.setdefault(partition, Partition()).oldest_ms = at_ms

    def done(self, batch: Batch) -> None:
        """`batch` is committed."""
        self.counts["batches"] += 1
        self.counts["messages"] += len(batch.messages)
        for message in batch.messages:
            place = self.partitions.setdefault(message.partition() or 0, Partition())
            place.last_ms, place.oldest_ms = message.timestamp()[1], 0

    def look(self, reader: Reader) -> None:
        """How far the reader is, by what it has been told already: no question to the broker."""
        self.counts["rebalances"] = reader.rebalances
        self.counts["missed"] = reader.missed
        owned = reader.owned
        for partition in owned:
            place = self.partitions.get(partition) or Partition()
            place.position, place.end = reader.position(partition), reader.end_of(partition)
            self.partitions[partition] = place
        for gone in self.partitions.keys() - owned:
            del self.partitions[gone]
        if reader.away:
            self.obstacles["positions"] = reader.away
        else:
            self.obstacles.pop("positions", None)

    def snapshot(self) -> dict[str, Any]:
        """All of it as JSON."""
        now_ms = self.clock() // 1_000_000
        return {
            "process": self.process,
            "ready": self.ready,
            "obstacles": dict(self.obstacles),
            "counts": dict(self.counts),
            "partitions": {
                str(number): {
                    "position": place.position,
                    "end": place.end,
                    "lag": place.lag,
                    "oldest_s": place.age_s(now_ms),
                }
                for number, place in sorted(self.partitions.copy().items())
            },
            **self.more(),
        }

    @property
    def ready(self) -> bool:
        """Whether work goes on."""
        return self.started and not self.obstacles


@dataclass(slots=True)
class Partition:
    """Where one partition is; times in unix milliseconds, 0 where there is none."""

    position: int | None = None
    end: int | None = None
    oldest_ms: int = 0
    last_ms: int = 0

    @property
    def lag(self) -> int | None:
        """Messages that are not committed; None where the end is not known yet."""
        return None if self.end is None else max(0, self.end - (self.position or 0))

    def age_s(self, now_ms: int) -> float:
        """How old the oldest of them is."""
        at_ms = self.oldest_ms or (self.last_ms if self.lag else 0)
        return max(0.0, (now_ms - at_ms) / 1000) if at_ms else 0.0
