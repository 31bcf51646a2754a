"""Works a batch of the calls topic: decoded, charged and put aside in one transaction with its positions.

Whatever is no call goes to the dead letters before the transaction ends, which also counts it: so the count
is right, the letter is there before the position passes it, and a batch that is rolled back at worst leaves a
letter that is written again under the same key.

More dead letters than `worker.dead_letters` since somebody last looked after them (`mmpipeline deadletter`)
stop the worker: then it is not single messages that are wrong. What is in front of the first that is too
many is charged; the rest stays in the topic. `TooManyDeadLetters`.

A message that the code fails on, by a defect of ours, is found by halving the batch, and put aside as
`failed:<error>`; its neighbours are charged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from confluent_kafka import Message

from mmpipeline.ingest.ledgering import Ledgering, PositionMoved
from mmpipeline.ingest.posts import Lane, Post
from mmpipeline.store.control.database import StoreBusy
from mmpipeline.workers.deadletters import DeadLetters, Undelivered
from mmpipeline.workers.deadlimit import DeadLetterLimit, TooManyDeadLetters
from mmpipeline.workers.decoding import decode
from mmpipeline.workers.loop import Moved, Obstacle
from mmpipeline.workers.progress import Progress
from mmpipeline.workers.reader import Batch, Stretch
from mmproto.kafka.topics import CALLS
from mmproto.v1.call_pb2 import Call
from mmproto.v1.routing_pb2 import RoutingDecision

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Items:
    """What one message holds."""

    calls: Sequence[Call]
    routing_decisions: Sequence[RoutingDecision]


class Charger:
    """Charges batches; what `Loop.work` is for `mmpipeline work`."""

    def __init__(
        self,
        *,
        ledgering: Ledgering,
        letters: DeadLetters,
        limit: DeadLetterLimit,
        progress: Progress,
        clock: Callable[[], int],
        committed: Callable[[set[str]], None],
    ) -> None:
        """`committed` is told whose calls a transaction charged."""
        self._ledgering = ledgering
        self._letters = letters
        self._limit = limit
        self._progress = progress
        self._clock = clock
        self._committed = committed

    def __call__(self, batch: Batch) -> None:
        """Charge all of `batch`. Raises Obstacle, Moved, TooManyDeadLetters."""
        try:
            self._work(batch)
        except StoreBusy as error:
            raise Obstacle("store", str(error)) from error
        except Undelivered as error:
            raise Obstacle("kafka", str(error)) from error
        except PositionMoved as error:
            raise Moved([error.lane.partition]) from error

    def _work(self, batch: Batch) -> None:
        try:
            self._charge(batch, {})
        except (StoreBusy, Undelivered, PositionMoved):
            raise
        except (OSError, MemoryError):  # the machine's fault, and no message's
            raise
        except _Surplus as surplus:
            if surplus.index:
                self._charge(first(batch, surplus.index), {})
            raise TooManyDeadLetters(surplus.reason, batch.messages[surplus.index]) from None
        except Exception as error:
            _log.exception("a batch of %d messages cannot be worked", len(batch.messages))
            if len(batch.messages) == 1:
                self._charge(batch, {0: f"failed:{type(error).__name__}"})
                return
            half = first(batch, len(batch.messages) // 2)
            self._work(half)
            self._work(behind(batch, half))

    def _charge(self, batch: Batch, failed: dict[int, str]) -> None:
        """One transaction. `failed`: messages that are put aside unread, by index, with the reason."""
        messages = batch.messages
        bad = dict(failed)
        calls: dict[int, list[Call]] = {}
        decisions: dict[int, list[RoutingDecision]] = {}
        if not failed:
            decoded = decode(messages)
            bad.update(decoded.unreadable)
            for index, call in decoded.calls:
                calls.setdefault(index, []).append(call)
            for index, decision in decoded.decisions:
                decisions.setdefault(index, []).append(decision)
        posts: list[Post] = []
        indices: list[int] = []
        for index, message in enumerate(messages):
            if index not in bad:
                items = Items(calls.get(index, ()), decisions.get(index, ()))
                posts.append(Post(items, lane=message.partition() or 0, offset=message.offset() or 0))
                indices.append(index)

        def put_aside(refused: Iterable[tuple[Post, str]]) -> int:
            by_post = {id(post): index for index, post in zip(indices, posts, strict=True)}
            aside = dict(bad)
            for post, reason in refused:
                aside.setdefault(by_post[id(post)], f"rejected:{reason}")
            self._put_aside(messages, aside)
            return len(aside)

        lanes = [Lane(CALLS, s.partition, s.position, s.end) for s in batch.stretches.values()]
        self._ledgering.write(posts, self._clock(), lanes, put_aside=put_aside)
        self._letters.passed()
        self._told(posts, calls, bad)

    def _put_aside(self, messages: Sequence[Message], aside: dict[int, str]) -> None:
        if not aside:
            return
        ordered = sorted(aside)
        room = self._limit.room()
        if len(ordered) > room:
            raise _Surplus(ordered[room], aside[ordered[room]])
        self._letters.put_aside([(messages[index], aside[index]) for index in ordered])
        for index in ordered:
            self._progress.counts[f"dead:{aside[index]}"] += 1

    def _told(self, posts: Sequence[Post], calls: dict[int, list[Call]], bad: dict[int, str]) -> None:
        counts = self._progress.counts
        for post in posts:
            counts["calls:accepted"] += post.result.accepted
            counts["calls:duplicate"] += post.result.duplicates
            counts["calls:rejected"] += len(post.result.rejected)
        counts["calls:unreadable"] += len(bad)
        self._committed({call.tenant or "default" for of_message in calls.values() for call in of_message})


class _Surplus(Exception):
    """The dead letter at `index` of the batch is one too many."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(reason)
        self.index = index
        self.reason = reason


def first(batch: Batch, count: int) -> Batch:
    """The first `count` messages of a batch."""
    messages = batch.messages[:count]
    stretches: dict[int, Stretch] = {}
    for message in messages:
        partition, offset = message.partition() or 0, message.offset() or 0
        whole = batch.stretches[partition]
        stretches[partition] = Stretch(partition, whole.position, offset + 1, whole.placement)
    return Batch(messages, stretches)


def behind(batch: Batch, done: Batch) -> Batch:
    """What of a batch is left behind its first part."""
    messages = batch.messages[len(done.messages) :]
    stretches: dict[int, Stretch] = {}
    for partition in {message.partition() or 0 for message in messages}:
        whole = batch.stretches[partition]
        position = done.stretches[partition].end if partition in done.stretches else whole.position
        stretches[partition] = Stretch(partition, position, whole.end, whole.placement)
    return Batch(messages, stretches)
