"""A real broker for a whole run of tests, and topics of their own for each of them.

A test that kills, stops or pauses a broker takes one of its own: `own_kafka`.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from mmlocal.services.kafka import Kafka
from mmproto.kafka.topics import CALLS

READ_WITHIN_S = 60.0
MakeTopic = Callable[..., str]

_NUMBERS = itertools.count()


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Kafka]:
    """A started broker of one's own, closed at the end."""
    broker = Kafka(folder)
    try:
        broker.start()
        yield broker
    finally:
        broker.close()


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """The broker that all tests share: nobody stops it."""
    with running(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def own_kafka(tmp_path: Path) -> Iterator[Kafka]:
    """A started broker for one test, to be hurt."""
    with running(tmp_path / "kafka") as broker:
        yield broker


@pytest.fixture
def make_topic(kafka: Kafka) -> MakeTopic:
    """make_topic(partitions=1, settings={}) on the shared broker: its name, which no other test has."""

    def make(partitions: int = 1, settings: Mapping[str, str] | None = None) -> str:
        name = f"test-{os.getpid()}-{next(_NUMBERS)}"
        create_topic(kafka.address, name, partitions, settings)
        return name

    return make


def create_topic(
    address: str, name: str, partitions: int = 1, settings: Mapping[str, str] | None = None
) -> None:
    """A topic that is there, with a leader for each partition, when this returns."""
    admin = AdminClient({"bootstrap.servers": address})
    topic = NewTopic(name, partitions, 1, config=dict(settings or {}))
    for made in admin.create_topics([topic], operation_timeout=30).values():
        made.result()


def topic_of_calls(address: str) -> int:
    """Makes the topic that the daemons write to, where no other test has; how much of others is in it."""
    with contextlib.suppress(KafkaException):
        create_topic(address, CALLS, 3)
    return topic_length(address, CALLS)


def read_topic(address: str, name: str, count: int, within_s: float = READ_WITHIN_S) -> list[Message]:
    """The first `count` messages or more, of all partitions; fewer where no more come within `within_s`.

    Read from the beginning and by nobody's group, so nothing is committed.
    """
    consumer = Consumer({"bootstrap.servers": address, "group.id": "unused", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(name, timeout=30).topics[name].partitions
        consumer.assign([TopicPartition(name, number, 0) for number in partitions])
        messages: list[Message] = []
        deadline = time.monotonic() + within_s
        while len(messages) < count and time.monotonic() < deadline:
            for message in consumer.consume(1000, timeout=0.2):
                error = message.error()
                assert error is None or error.code() == KafkaError._PARTITION_EOF, error
                messages.append(message)
        return messages
    finally:
        consumer.close()


def topic_length(address: str, name: str) -> int:
    """How many messages are in it: of offsets, so of a topic that nothing has been deleted from."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "unused"})
    try:
        partitions = consumer.list_topics(name, timeout=30).topics[name].partitions
        marks = [_marks(consumer, TopicPartition(name, number)) for number in partitions]
        return sum(high - low for low, high in marks)
    finally:
        consumer.close()


_NOT_YET = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)


def _marks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """First and next offset. The broker knows of a topic a moment before it leads its partitions."""
    deadline = time.monotonic() + READ_WITHIN_S
    while True:
        try:
            marks: tuple[int, int] = consumer.get_watermark_offsets(partition, timeout=30)
        except KafkaException as error:
            if error.args[0].code() not in _NOT_YET or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return marks
