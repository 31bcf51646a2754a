"""Reads the partitions of one topic that a consumer group gives us, each from a position kept elsewhere.

Where a partition goes on is asked of the keeper of positions when the partition comes to us, not of Kafka.
What `read` hands out is a `Batch`: it says from which position each of its partitions was read, so that
whoever commits it can see whether that still holds. One batch is out at a time, and nothing is buffered
here: what was read of a partition that goes away is with the caller, who asks `still_ours` before it
tries a batch again.

A keeper that is away costs no place in the group: partitions wait for their position (`waiting`), and
`idle` goes on answering the group while nothing is read.

What is not dense is said. Offsets between a position and the first message there were deleted before we
read them (retention), and are counted as missed. A position behind the topic's end means that the topic
was made anew or lost its end: reading on could skip calls or take others for them, hence `PositionLost`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

_log = logging.getLogger(__name__)

# How long the first message of a batch is waited for, and how long others may join it.
IDLE_S = 0.25
GATHER_S = 0.01

# How often partitions without a position ask for it again.
_PLACE_EVERY_S = 0.5

_ASK_TIMEOUT_S = 5.0

# How long a topic may look shorter than our position before that is believed: a broker that comes back
# after a crash learns of its own end only when it leads again.
_BELIEVE_AFTER_S = 30.0

#: Gives the next offset of each of the partitions that it knows; raises `Away` where it cannot say.
Positions = Callable[[Sequence[int]], Mapping[int, int]]


class Away(Exception):
    """The keeper of positions cannot be asked now."""


class PositionLost(Exception):
    """The topic ends before a position that was reached already; str() is for people."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """What a batch holds of one partition: offsets from `position` up to `end`, exclusive.

    Where nothing of the partition was ever worked, `position` is that of its first message.
    """

    partition: int
    position: int
    end: int
    placement: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages in the order of their partitions, and the stretch of each partition."""

    messages: tuple[Message, ...]
    stretches: Mapping[int, Stretch]


@dataclass(slots=True)
class _Place:
    """A partition that is read. `placement` is another number each time it is placed."""

    position: int | None
    placement: int


class Reader:
    """One member of the group. Not thread-safe; its callbacks run within its own methods."""

    def __init__(
        self,
        consumer: Consumer,
        topic: str,
        positions: Positions,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._consumer = consumer
        self._topic = topic
        self._positions = positions
        self._clock = clock
        self._places: dict[int, _Place] = {}
        self._waiting: set[int] = set()
        self._ask_again_at = 0.0
        self._placements = 0
        self._short_since: dict[int, float] = {}
        # The partitions that the group gave us, placed or waiting; other threads may look at it.
        self.owned: frozenset[int] = frozenset()
        self.rebalances = 0
        self.missed = 0
        self.away = ""
        consumer.subscribe([topic], on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    @property
    def waiting(self) -> frozenset[int]:
        """Partitions that are ours and whose position could not be asked yet."""
        return frozenset(self._waiting)

    def position(self, partition: int) -> int | None:
        """The next offset to read of an owned partition, as far as it is committed."""
        place = self._places.get(partition)
        return place.position if place else None

    def read(self, most: int) -> Batch | None:
        """What is there, at most `most` messages; None after IDLE_S without any. Raises PositionLost."""
        self._place_waiting()
        messages = self._consumer.consume(1, IDLE_S)
        if messages and most > 1:
            messages += self._consumer.consume(most - 1, GATHER_S)
        return self._batch(messages)

    def idle(self, seconds: float) -> None:
        """Stay in the group for `seconds` and read nothing."""
        placed = [TopicPartition(self._topic, partition) for partition in self._places]
        self._consumer.pause(placed)
        until = self._clock() + seconds
        while (left := until - self._clock()) > 0:
            # Nothing comes of paused partitions; of one that is assigned meanwhile something may, and it
            # is read again from its position.
            strays = {m.partition() for m in self._consumer.consume(1, min(left, IDLE_S)) if not m.error()}
            self.place_again(p for p in strays if p is not None)
        self._consumer.resume([TopicPartition(self._topic, p) for p in self._places])

    def still_ours(self, batch: Batch) -> Batch | None:
        """What of `batch` may be tried again: partitions that were not placed anew since it was read."""
        stretches = {
            partition: stretch
            for partition, stretch in batch.stretches.items()
            if (place := self._places.get(partition)) and place.placement == stretch.placement
        }
        if len(stretches) == len(batch.stretches):
            return batch
        messages = tuple(m for m in batch.messages if m.partition() in stretches)
        return Batch(messages, stretches) if messages else None

    def advance(self, batch: Batch, *, wait: bool = False) -> None:
        """The batch is done: what is read next stands behind it. Kafka is told, with `wait` before we go on.

        Where Kafka keeps the positions and cannot be told, the batch is read again by whoever comes next.
        """
        told = []
        for stretch in batch.stretches.values():
            place = self._places.get(stretch.partition)
            if place and place.placement == stretch.placement:
                place.position = stretch.end
                told.append(TopicPartition(self._topic, stretch.partition, stretch.end))
        if not told:
            return
        try:
            if wait:
                self._consumer.commit(offsets=told, asynchronous=False)
            else:
                self._consumer.commit(offsets=told, asynchronous=True)
        except KafkaException as error:
            _log.warning("offsets of %s are not stored in Kafka: %s", self._topic, error.args[0].str())

    def place_again(self, partitions: Iterable[int]) -> None:
        """Drop what was read of `partitions` and ask for their positions anew."""
        chosen = [partition for partition in partitions if partition in self._places]
        if not chosen:
            return
        self._consumer.incremental_unassign([TopicPartition(self._topic, p) for p in chosen])
        for partition in chosen:
            del self._places[partition]
        self._waiting.update(chosen)
        self._ask_again_at = 0.0

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        self._consumer.close()

    def end_of(self, partition: int) -> int | None:
        """Where the partition ends, as the last fetch said; None before the first."""
        _, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        return high if high >= 0 else None

    def _batch(self, messages: Sequence[Message]) -> Batch | None:
        good: list[Message] = []
        stretches: dict[int, Stretch] = {}
        for message in messages:
            if (error := message.error()) is not None:
                self._heed(error, message)
                continue
            partition, offset = message.partition(), message.offset()
            if partition is None or offset is None or (place := self._places.get(partition)) is None:
                continue  # it went away while this was on its way to us
            before = stretches.get(partition)
            expected = before.end if before else place.position
            if expected is not None and offset != expected:
                if offset < expected:
                    continue
                self.missed += offset - expected
                _log.error(
                    "%s partition %d: %d messages before offset %d are gone; retention deleted them unread",
                    self._topic, partition, offset - expected, offset,
                )  # fmt: skip
            first = offset if place.position is None else place.position
            position = before.position if before else first
            stretches[partition] = Stretch(partition, position, offset + 1, place.placement)
            good.append(message)
        return Batch(tuple(good), stretches) if good else None

    def _heed(self, error: KafkaError, message: Message) -> None:
        partition = message.partition()
        if error.code() == KafkaError._AUTO_OFFSET_RESET and partition is not None:
            self._judge(partition)
        elif error.fatal():
            raise KafkaException(error)
        else:
            _log.warning("reading %s: %s", self._topic, error.str())

    def _judge(self, partition: int) -> None:
        """Our position is not in the topic: deleted before we came, or beyond the end?"""
        place = self._places.get(partition)
        if place is None or place.position is None:
            return
        low, high = self._consumer.get_watermark_offsets(
            TopicPartition(self._topic, partition), _ASK_TIMEOUT_S
        )
        if place.position > high:
            since = self._short_since.setdefault(partition, self._clock())
            if self._clock() - since > _BELIEVE_AFTER_S:
                raise PositionLost(
                    f"{self._topic} partition {partition} ends at offset {high}, and {place.position} was "
                    "reached already: the topic was made anew or lost its end"
                )
        position = place.position
        self.place_again([partition])
        if position < low:
            self._waiting.discard(partition)
            self._place(partition, position, low)
        else:
            self._ask_again_at = self._clock() + _PLACE_EVERY_S

    def _assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.rebalances += 1
        coming = {p.partition for p in partitions}
        self._waiting |= coming
        self.owned |= coming
        self._ask_again_at = 0.0
        # The group wants an answer at once; the partitions themselves are taken up when their positions
        # are known.
        self._consumer.incremental_assign([])
        self._place_waiting()

    def _revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.rebalances += 1
        going = {p.partition for p in partitions}
        self._waiting -= going
        self.owned -= going
        placed = [p for p in going if self._places.pop(p, None)]
        self._consumer.incremental_unassign([TopicPartition(self._topic, p) for p in placed])

    def _place_waiting(self) -> None:
        if not self._waiting or self._clock() < self._ask_again_at:
            return
        partitions = sorted(self._waiting)
        try:
            known = self._positions(partitions)
        except Away as error:
            self.away = str(error)
            self._ask_again_at = self._clock() + _PLACE_EVERY_S
            return
        self.away = ""
        self._waiting.clear()
        for partition in partitions:
            position = known.get(partition)
            self._place(partition, position, OFFSET_BEGINNING if position is None else position)

    def _place(self, partition: int, position: int | None, offset: int) -> None:
        self._placements += 1
        self._places[partition] = _Place(position, self._placements)
        self._consumer.incremental_assign([TopicPartition(self._topic, partition, offset)])
