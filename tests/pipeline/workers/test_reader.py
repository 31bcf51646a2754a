"""Partitions are read at positions that somebody else keeps, whatever happens to them or to the keeper."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from mmlocal.services.kafka import Kafka
from mmpipeline.workers import reader as reading
from mmpipeline.workers.clients import consumer_properties
from mmpipeline.workers.reader import Away, Batch, PositionLost, Reader
from mmproto.kafka.settings import KafkaSettings
from mmproto.settings import Secret
from tests.services.kafka import MakeTopic

WITHIN_S = 60.0


class Keeper:
    """Positions in memory, which can be away."""

    def __init__(self) -> None:
        self.held: dict[int, int] = {}
        self.is_away = False

    def __call__(self, partitions: Sequence[int]) -> dict[int, int]:
        if self.is_away:
            raise Away("the keeper is away")
        return {number: self.held[number] for number in partitions if number in self.held}

    def commit(self, reader: Reader, batch: Batch) -> None:
        self.held |= {number: stretch.end for number, stretch in batch.stretches.items()}
        reader.advance(batch)


@pytest.fixture
def topic(make_topic: MakeTopic) -> str:
    return make_topic(2)


def make_reader(kafka: Kafka, topic: str, keeper: Keeper) -> Reader:
    quick = {"session.timeout.ms": Secret("3000"), "heartbeat.interval.ms": Secret("200")}
    settings = KafkaSettings(brokers=kafka.address, properties=quick)
    return Reader(Consumer(consumer_properties(settings, f"group-{topic}", lambda _: None)), topic, keeper)


def send(kafka: Kafka, topic: str, count: int, partition: int = 0) -> None:
    producer = Producer({"bootstrap.servers": kafka.address})
    for number in range(count):
        producer.produce(topic, f"{number}".encode(), partition=partition)
    assert producer.flush(30) == 0


def next_batch(reader: Reader, most: int = 100) -> Batch:
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        if (batch := reader.read(most)) is not None:
            return batch
    raise AssertionError("nothing came")


def offsets(batch: Batch) -> list[int | None]:
    return [message.offset() for message in batch.messages]


def test_a_keeper_that_is_away_costs_no_partition_and_no_message(kafka: Kafka, topic: str) -> None:
    keeper = Keeper()
    keeper.held[0], keeper.is_away = 3, True
    reader = make_reader(kafka, topic, keeper)
    send(kafka, topic, 5)
    until = time.monotonic() + WITHIN_S
    while len(reader.waiting) < 2 and time.monotonic() < until:
        assert reader.read(100) is None
    assert reader.read(100) is None
    assert reader.away == "the keeper is away"
    keeper.is_away = False
    assert offsets(next_batch(reader)) == [3, 4]
    assert reader.away == ""
    assert reader.rebalances == 1
    reader.close()


def test_what_is_dropped_is_read_again_and_tried_again_only_while_it_is_ours(
    kafka: Kafka, topic: str
) -> None:
    keeper = Keeper()
    reader = make_reader(kafka, topic, keeper)
    send(kafka, topic, 10)
    batch = next_batch(reader, 4)
    assert batch.stretches[0].position == 0
    reader.idle(0.3)  # nothing is read meanwhile, and the batch is still good
    assert reader.still_ours(batch) is batch
    reader.place_again([0])
    assert reader.still_ours(batch) is None
    again = next_batch(reader, 4)
    assert offsets(again)[0] == 0
    keeper.commit(reader, again)
    following = next_batch(reader)
    assert offsets(following)[0] == again.stretches[0].end == following.stretches[0].position
    assert reader.missed == 0
    reader.close()


def test_partitions_move_with_their_positions(kafka: Kafka, topic: str) -> None:
    keeper = Keeper()
    first = make_reader(kafka, topic, keeper)
    send(kafka, topic, 5, 0)
    send(kafka, topic, 5, 1)
    read = 0
    while read < 10:
        batch = next_batch(first)
        read += len(batch.messages)
        keeper.commit(first, batch)
    second = make_reader(kafka, topic, keeper)
    until = time.monotonic() + WITHIN_S
    while len(second.owned) != 1 or len(first.owned) != 1:
        assert first.read(100) is None
        assert second.read(100) is None
        assert time.monotonic() < until
    first.close()
    send(kafka, topic, 2, 0)
    send(kafka, topic, 2, 1)
    found: list[tuple[int | None, int | None]] = []
    while len(found) < 4:
        batch = next_batch(second)
        found += [(message.partition(), message.offset()) for message in batch.messages]
        keeper.commit(second, batch)
    assert sorted(found) == [(0, 5), (0, 6), (1, 5), (1, 6)]
    second.close()


def test_what_retention_deleted_unread_is_counted(kafka: Kafka, topic: str) -> None:
    keeper = Keeper()
    keeper.held[0] = 2
    send(kafka, topic, 10)
    admin = AdminClient({"bootstrap.servers": kafka.address})
    for deleted in admin.delete_records([TopicPartition(topic, 0, 6)]).values():
        deleted.result()
    reader = make_reader(kafka, topic, keeper)
    assert offsets(next_batch(reader)) == [6, 7, 8, 9]
    assert reader.missed == 4
    reader.close()


def test_a_position_beyond_the_end_is_not_jumped_over(
    kafka: Kafka, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_BELIEVE_AFTER_S", 0.5)
    keeper = Keeper()
    keeper.held[0] = 50
    send(kafka, topic, 10)
    reader = make_reader(kafka, topic, keeper)
    with pytest.raises(PositionLost, match="ends at offset 10, and 50 was reached already"):
        until = time.monotonic() + WITHIN_S
        while time.monotonic() < until:
            assert reader.read(100) is None
    reader.close()
