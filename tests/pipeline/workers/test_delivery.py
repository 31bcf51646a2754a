"""From the outbox over Kafka into the warehouse: killed at its seams, the warehouse has every row once."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from mmlocal.services.kafka import Kafka
from mmpipeline.budgets.periods import Period, bounds
from mmpipeline.ingest.ledgering import Ledgering
from mmpipeline.ingest.posts import Post
from mmpipeline.ingest.writer import WarehouseWriter
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control.database import Database, file_url
from mmpipeline.store.warehouse.errors import WarehouseAway
from mmpipeline.store.warehouse.shapes import Span
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmpipeline.workers import shelf
from mmpipeline.workers.clients import consumer_properties, producer_properties
from mmpipeline.workers.deadletters import DeadLetters
from mmpipeline.workers.deadlimit import DeadLetterLimit
from mmpipeline.workers.filler import Filler
from mmpipeline.workers.loop import Obstacle
from mmpipeline.workers.progress import Progress
from mmpipeline.workers.rated import RatedTopic, rows_of_block
from mmpipeline.workers.reader import Batch, Reader
from mmproto.kafka.settings import KafkaSettings
from mmproto.kafka.topics import RATED
from tests.pipeline.calls import COST, batch
from tests.pipeline.workers.ground import renew_topics, some_calls
from tests.services.kafka import read_topic, topic_length

ROWS = 30


class Line:
    """An outbox with rows, the topic, and a warehouse."""

    def __init__(self, brokers: str, folder: Path, warehouse: Warehouse) -> None:
        self.settings = KafkaSettings(brokers=brokers)
        self.brokers = brokers
        self.warehouse = warehouse
        self.at = time.time_ns()
        self.database = Database.open(file_url(folder / "control.sqlite"))
        self.ledgering = Ledgering(self.database, RatingService.stored(self.database, None, self.at))
        self.producer = Producer(producer_properties(self.settings, lambda _: None))
        self.rated = RatedTopic(self.producer)
        self.progress = Progress("sink", time.time_ns)
        self.readers: list[Reader] = []

    def charge(self, seed: int) -> None:
        calls = some_calls(random.Random(seed), ROWS, self.at)
        self.ledgering.write([Post(batch(calls))], self.at)

    def relay(self) -> WarehouseWriter:
        return WarehouseWriter(self.database, self.rated.lane)

    def filler(self, into: object = None) -> Filler:
        limit = DeadLetterLimit(self.database, 10)
        store: Warehouse = into or self.warehouse  # type: ignore[assignment]
        return Filler(store, DeadLetters(self.producer), lambda: limit, self.progress)

    def reader(self, group: str) -> Reader:
        """As a sink that starts makes it: Kafka keeps the offsets."""
        consumer = Consumer(consumer_properties(self.settings, group, lambda _: None))

        def committed(partitions: Sequence[int]) -> dict[int, int]:
            found = consumer.committed([TopicPartition(RATED, p) for p in partitions], 10)
            return {place.partition: place.offset for place in found if place.offset >= 0}

        made = Reader(consumer, RATED, committed)
        self.readers.append(made)
        return made

    def assert_holds(self, calls: int) -> None:
        day, end = bounds(Period.DAY, self.at)
        (total,) = self.warehouse.spend("default", Span(day, end))
        assert (total.calls, total.cost_nano_usd) == (calls, calls * COST)
        assert len(self.warehouse.calls("default", Span(day, end), limit=1_000).calls) == calls

    def close(self) -> None:
        for reader in self.readers:
            reader.close()
        self.database.close()


@pytest.fixture
def line(kafka: Kafka, tmp_path: Path) -> Iterator[Line]:
    renew_topics(kafka.address, 2)
    with Warehouse.open(tmp_path / "warehouse") as warehouse:
        made = Line(kafka.address, tmp_path, warehouse)
        yield made
        made.close()


def next_batch(reader: Reader) -> Batch:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if (found := reader.read(16)) is not None:
            return found
    raise AssertionError("nothing came")


def test_a_batch_that_is_published_twice_is_in_the_warehouse_once(line: Line) -> None:
    line.charge(1)

    class KilledBehind:
        """Publishes, and then the process is gone before the outbox forgets."""

        def insert_blocks(self, blocks: Sequence[bytes], token: str) -> None:
            line.rated.lane(0).insert_blocks(blocks, token)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        WarehouseWriter(line.database, lambda _: KilledBehind()).drain()
    line.charge(2)  # more came before the next relay: the sealed batch stays as it is
    assert line.relay().drain() == 2 * ROWS
    messages = read_topic(line.brokers, RATED, 3)
    tokens = [dict(message.headers() or ())["token"] for message in messages]
    assert len(tokens) == 3
    assert tokens[0] == tokens[1] != tokens[2]
    assert messages[0].value() == messages[1].value()
    assert [message.partition() for message in messages] == [0, 0, 0]
    reader = line.reader("once")
    read = 0
    filler = line.filler()
    while read < 3:
        found = next_batch(reader)
        filler(found)
        reader.advance(found, wait=True)
        read += len(found.messages)
    line.assert_holds(2 * ROWS)


def test_a_sink_that_is_killed_before_it_commits_inserts_again_and_changes_nothing(line: Line) -> None:
    line.charge(1)
    line.relay().drain()
    killed = line.reader("killed")
    line.filler()(next_batch(killed))
    killed.close()
    line.charge(2)
    line.relay().drain()
    after = line.reader("killed")
    read = 0
    while read < 2:
        found = next_batch(after)
        assert found.stretches[0].position == read
        line.filler()(found)
        after.advance(found, wait=True)
        read += len(found.messages)
    line.assert_holds(2 * ROWS)


def test_while_the_warehouse_is_away_nothing_is_passed(line: Line) -> None:
    line.charge(1)
    line.relay().drain()
    away = [True]

    class Absent:
        def insert_blocks(self, blocks: Sequence[bytes], token: str) -> None:
            if away[0]:
                raise WarehouseAway("nobody answers", "wait")
            line.warehouse.insert_blocks(blocks, token)

    reader = line.reader("waits")
    filler = line.filler(Absent())
    found = next_batch(reader)
    for _ in range(2):
        with pytest.raises(Obstacle, match="nobody answers"):
            filler(found)
        reader.idle(0.1)
        assert reader.still_ours(found) is found
    away[0] = False
    filler(found)
    line.assert_holds(ROWS)


def poison(line: Line) -> Iterator[tuple[bytes, list[tuple[str, str | bytes | None]], str]]:
    """Messages that no warehouse takes, and why."""
    (message,) = read_topic(line.brokers, RATED, 1)
    block, headers = message.value() or b"", dict(message.headers() or ())
    yield block[: len(block) // 2], list((headers | {"token": b"half"}).items()), "unreadable_block:33"
    yield b"\x01\x01garbage", list((headers | {"token": b"garbage"}).items()), "unreadable_block:"
    yield block, [(name, value) for name, value in headers.items() if name != "token"], "no_token"
    yield block, list((headers | {"content-type": b"text/csv"}).items()), "content_type"


def test_blocks_that_nobody_can_read_are_put_aside(line: Line) -> None:
    line.charge(1)
    line.relay().drain()
    reasons = []
    for value, headers, reason in poison(line):
        line.producer.produce(RATED, value, b"k", 0, headers=headers)
        reasons.append(reason)
    assert line.producer.flush(30) == 0
    line.charge(2)
    line.relay().drain()
    reader = line.reader("poison")
    filler: Callable[[Batch], None] = line.filler()
    read = 0
    while read < topic_length(line.brokers, RATED):
        found = next_batch(reader)
        filler(found)
        reader.advance(found, wait=True)
        read += len(found.messages)
    found_reasons = [letter.reason for letter in shelf.read(line.settings)]
    assert len(found_reasons) == len(reasons)
    for one, begins in zip(found_reasons, reasons, strict=True):
        assert one.startswith(begins)
    line.assert_holds(2 * ROWS)


def test_rows_of_a_block() -> None:
    assert rows_of_block(b"\x03\xac\x02rest") == 300
    with pytest.raises(ValueError, match="not a block"):
        rows_of_block(b"\x80")
