"""Reads compacted topics from their beginning, and on: the way to know a state instead of its changes.

No consumer group and no commits: every reader reads everything, since what it keeps is in its memory. It
has caught up when it has once seen the end of every partition; what was written before it started is then
known. A partition that appears later is read from its beginning like the others.

For one thread. Nothing is raised by `poll`: what is wrong with the way to the brokers is in `error`, and
librdkafka goes on trying.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

_LOG = logging.getLogger(__name__)

# How often partitions that appeared are looked for, and how long the brokers may take to list them.
_LOOK_S = 30.0
_LIST_S = 2.0
_AGAIN_S = 0.5
# Messages taken from librdkafka at once.
_MOST = 500


@dataclass(frozen=True, slots=True)
class Entry:
    """One message. `value` None: what stood under `key` is gone (a tombstone)."""

    topic: str
    key: bytes
    value: bytes | None
    headers: Mapping[str, bytes]


class CompactedReader:
    """`configuration` is librdkafka's, for the connection; what reading needs is set here."""

    def __init__(
        self,
        configuration: Mapping[str, Any],
        topics: Sequence[str],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._topics = tuple(topics)
        self._monotonic = monotonic
        self._behind: set[tuple[str, int]] = set()
        self._assigned: set[tuple[str, int]] = set()
        self._look_at = monotonic()
        self.error = ""
        self._consumer = Consumer(
            {
                **configuration,
                # librdkafka wants the name of a group; nothing joins it and nothing is committed.
                "group.id": "modelmeter.reader",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 100,
                "error_cb": self._failed,
            },
            logger=_LOG,
        )

    @property
    def caught_up(self) -> bool:
        """Whether all that was written before the start is read."""
        return bool(self._assigned) and not self._behind

    def poll(self, timeout_s: float) -> list[Entry]:
        """What has come, at most after `timeout_s`; in order within each partition."""
        now = self._monotonic()
        if now >= self._look_at:
            self._look_at = now + (_LOOK_S if self._look() else _AGAIN_S)
        if not self._assigned:
            self._consumer.poll(timeout_s)  # serves the callbacks, and waits
            return []
        found: list[Entry] = []
        messages = self._consumer.consume(1, timeout_s)
        if messages:
            messages += self._consumer.consume(_MOST, 0)
        for message in messages:
            entry = self._entry(message)
            if entry is not None:
                found.append(entry)
        return found

    def close(self) -> None:
        self._consumer.close()

    def _entry(self, message: Message) -> Entry | None:
        topic, partition, error = message.topic(), message.partition(), message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                self._behind.discard((topic or "", -1 if partition is None else partition))
                self.error = ""
            else:
                self.error = f"{topic or 'Kafka'}: {error.str()}"
            return None
        self.error = ""
        value, key = message.value(), message.key()
        headers = {name: raw for name, raw in dict(message.headers() or ()).items() if isinstance(raw, bytes)}
        return Entry(topic or "", _bytes(key) or b"", _bytes(value), headers)

    def _look(self) -> bool:
        """Assign the partitions there are. False where that is to be tried again soon."""
        fresh: list[TopicPartition] = []
        try:
            for topic in self._topics:
                listed = self._consumer.list_topics(topic, timeout=_LIST_S).topics[topic]
                if listed.error is not None or not listed.partitions:
                    self.error = f"there is no topic {topic}; `mmpipeline topics apply` creates it"
                    return False
                fresh += [
                    TopicPartition(topic, partition, OFFSET_BEGINNING)
                    for partition in listed.partitions
                    if (topic, partition) not in self._assigned
                ]
        except KafkaException as problem:
            self.error = f"Kafka does not answer: {problem.args[0].str()}"
            return False
        if fresh:
            added = {(each.topic, each.partition) for each in fresh}
            self._assigned |= added
            self._behind |= added
            self._consumer.incremental_assign(fresh)
        self.error = ""
        return True

    def _failed(self, error: KafkaError) -> None:
        self.error = f"Kafka: {error.str()}"


def _bytes(raw: Any) -> bytes | None:
    return raw.encode() if isinstance(raw, str) else raw
