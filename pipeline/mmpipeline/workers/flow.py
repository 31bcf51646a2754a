"""How far the workers are behind what Kafka holds, asked of Kafka itself: no worker needs to be asked.

The age of the oldest message that is not worked is that of the message at the position: it is read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from mmpipeline.workers.clients import client_properties
from mmpipeline.workers.process import CannotWork, TopicsAway, partitions_of
from mmproto.kafka.connection import settings_taken
from mmproto.kafka.settings import KafkaSettings

_ASK_S = 10.0
_READ_S = 5.0

#: The next offset of each of the partitions that were ever worked.
Positions = Callable[[Sequence[int]], Mapping[int, int]]


class FlowUnknown(Exception):
    """Kafka cannot be asked; str() says why and what to do."""


@dataclass(frozen=True, slots=True)
class Behind:
    """One partition: next offset to work, end, messages between the two."""

    position: int
    end: int

    @property
    def lag(self) -> int:
        return max(0, self.end - self.position)


@dataclass(frozen=True, slots=True)
class Flow:
    """One topic and the group that works it. `oldest_s`: age of the oldest message that is not worked."""

    members: int
    partitions: Mapping[int, Behind]
    oldest_s: float

    @property
    def lag(self) -> int:
        return sum(place.lag for place in self.partitions.values())

    @property
    def lost_end(self) -> list[int]:
        """Partitions that end before what was worked of them."""
        return [number for number, place in sorted(self.partitions.items()) if place.position > place.end]

    def form(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "members": self.members,
            "lag": self.lag,
            "oldest_s": round(self.oldest_s, 3),
            "partitions": {
                str(number): {"position": place.position, "end": place.end, "lag": place.lag}
                for number, place in sorted(self.partitions.items())
            },
        }


class Flows:
    """Asks Kafka. All methods raise FlowUnknown; the constructor ConfigurationError too."""

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        with settings_taken(settings):
            self._admin = AdminClient(client_properties(settings))

    def flow(self, topic: str, group: str, positions: Positions | None = None) -> Flow:
        """Of `topic` as `group` works it; `positions` where not Kafka keeps them."""
        try:
            numbers = range(partitions_of(self._settings, (topic,))[topic])
            places = [TopicPartition(topic, number) for number in numbers]
            members = self._members(group)
            properties = client_properties(self._settings) | {"group.id": group, "enable.auto.commit": False}
            consumer = Consumer(properties)
            try:
                worked = self._committed(consumer, places) if positions is None else positions(list(numbers))
                partitions: dict[int, Behind] = {}
                for place in places:
                    low, high = consumer.get_watermark_offsets(place, _ASK_S)
                    # What retention deleted is not waited for any more.
                    position = max(low, worked.get(place.partition, low))
                    partitions[place.partition] = Behind(position, high)
                oldest_s = self._oldest_s(consumer, topic, partitions)
            finally:
                consumer.close()
        except TopicsAway as error:
            raise FlowUnknown(f"Kafka does not answer: {error}; see kafka.brokers") from error
        except CannotWork as error:
            raise FlowUnknown(str(error)) from error
        except KafkaException as error:
            raise FlowUnknown(f"Kafka does not say how far {topic} is: {error.args[0].str()}") from error
        return Flow(members, partitions, oldest_s)

    def _members(self, group: str) -> int:
        asked = self._admin.describe_consumer_groups([group], request_timeout=_ASK_S)
        try:
            return len(asked[group].result().members)
        except KafkaException:  # there never was such a group
            return 0

    def _committed(self, consumer: Consumer, places: Sequence[TopicPartition]) -> dict[int, int]:
        found = consumer.committed(list(places), _ASK_S)
        return {place.partition: place.offset for place in found if place.offset >= 0}

    def _oldest_s(self, consumer: Consumer, topic: str, partitions: Mapping[int, Behind]) -> float:
        behind = {number for number, place in partitions.items() if place.lag}
        if not behind:
            return 0.0
        consumer.assign([TopicPartition(topic, n, partitions[n].position) for n in sorted(behind)])
        oldest_ms: int | None = None
        until = time.monotonic() + _READ_S
        while behind and time.monotonic() < until:
            for message in consumer.consume(100, 0.1):
                number = message.partition()
                if message.error() is None and number in behind:
                    behind.discard(number)
                    at_ms = message.timestamp()[1]
                    oldest_ms = at_ms if oldest_ms is None else min(oldest_ms, at_ms)
                    consumer.incremental_unassign([TopicPartition(topic, number)])
        return 0.0 if oldest_ms is None else max(0.0, time.time() - oldest_ms / 1000)
