"""The loop of both workers: read a batch, have it worked, go on behind it; wait where something is away.

What works a batch says how it went: it returns (all of it holds, durably), or it raises

    Obstacle     something outside is away: nothing of the batch holds. It is kept and tried again, with
                 pauses that grow up to PAUSE_MOST_S; meanwhile the group is answered, so that the partitions
                 stay ours, and what goes to another worker all the same is dropped from it.
    Moved        another worker has moved a position of the batch: nothing of it holds. Its partitions are
                 read anew from where they are now.

Anything else ends the loop. When `stop` says so, the batch in hand is finished and no other is begun; one
that waits for an obstacle is left to whoever reads its partitions next.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mmpipeline.workers.progress import Progress
from mmpipeline.workers.reader import Batch, Reader

_log = logging.getLogger(__name__)

PAUSE_S = 0.2
PAUSE_MOST_S = 5.0


class Obstacle(Exception):
    """Something that is needed is away: `what` is its name, str() says how that shows."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(why)
        self.what = what


class Moved(Exception):
    """Positions of these partitions are not what they were when the batch was read."""

    def __init__(self, partitions: Iterable[int]) -> None:
        super().__init__("another worker has the partition")
        self.partitions = frozenset(partitions)


@dataclass(slots=True)
class Loop:
    """One worker's loop. `wait_for_commit`: Kafka keeps the positions, so its answer is waited for."""

    reader: Reader
    most: int
    work: Callable[[Batch], None]
    progress: Progress
    stop: Callable[[], bool]
    beat: Callable[[], None]
    wait_for_commit: bool = False
    _met: set[str] = field(default_factory=set)

    def run(self) -> None:
        """Work batches until `stop`. Raises PositionLost, and what `work` raises."""
        while not self.stop():
            batch = self.reader.read(self.most)
            self._look()
            if batch is not None:
                self._through(batch)

    def _through(self, batch: Batch) -> None:
        self.progress.in_hand(batch)
        pause = PAUSE_S
        left: Batch | None = batch
        while left is not None:
            try:
                self.work(left)
            except Obstacle as obstacle:
                self._meet(obstacle)
                if self.stop():
                    return
                self.reader.idle(pause)
                self._look()
                pause = min(PAUSE_MOST_S, pause * 2)
                left = self.reader.still_ours(left)
            except Moved as moved:
                self.progress.counts["moved"] += 1
                _log.info("another worker has partitions %s; reading anew", sorted(moved.partitions))
                # The rest of the batch is dropped as well: it is read again, once each.
                self.reader.place_again(left.stretches)
                left = None
            else:
                self.reader.advance(left, wait=self.wait_for_commit)
                self.progress.done(left)
                left = None
        self._passed()

    def _look(self) -> None:
        self.beat()
        self.progress.look(self.reader)

    def _meet(self, obstacle: Obstacle) -> None:
        if self.progress.obstacles.get(obstacle.what) != str(obstacle):
            _log.error("%s: %s; the batch is kept and tried again", obstacle.what, obstacle)
        self.progress.obstacles[obstacle.what] = str(obstacle)
        self.progress.counts[f"error:{obstacle.what}"] += 1
        self._met.add(obstacle.what)

    def _passed(self) -> None:
        for what in self._met:
            self.progress.obstacles.pop(what, None)
            _log.info("%s: going on", what)
        self._met.clear()
