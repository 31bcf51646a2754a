"""What a worker does with a batch: charged once, bad messages put aside, nothing where it is not ours."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from confluent_kafka import Consumer, Message, Producer

from mmlocal.services.kafka import Kafka
from mmpipeline.ingest.ledgering import Ledgering
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import ledger, positions
from mmpipeline.workers import shelf
from mmpipeline.workers.charger import Charger
from mmpipeline.workers.clients import consumer_properties, producer_properties
from mmpipeline.workers.deadletters import DeadLetters
from mmpipeline.workers.deadlimit import DeadLetterLimit, TooManyDeadLetters
from mmpipeline.workers.loop import Moved
from mmpipeline.workers.progress import Progress
from mmpipeline.workers.reader import Batch, Reader
from mmproto.delivery.records import call_record
from mmproto.kafka.settings import KafkaSettings
from mmproto.kafka.topics import CALLS, DEADLETTER
from mmproto.v1.call_pb2 import Call
from tests.pipeline.calls import make_call
from tests.pipeline.stores import Stores
from tests.pipeline.workers.ground import HEADERS, expected, renew_topics, some_calls
from tests.services.kafka import topic_length

LIMIT = 5


class Bench:
    """A charger over one store, and a reader to feed it, in this process."""

    def __init__(self, brokers: str, stores: Stores) -> None:
        self.brokers = brokers
        self.database = stores.worker
        self.settings = KafkaSettings(brokers=brokers)
        self.charged: set[str] = set()
        self.limit = DeadLetterLimit(self.database, LIMIT)
        self.letters = DeadLetters(Producer(producer_properties(self.settings, lambda _: None)))
        self.progress = Progress("work", time.time_ns)
        self.ledgering = Ledgering(self.database, RatingService.stored(self.database, None, time.time_ns()))
        self.charger = Charger(
            ledgering=self.ledgering,
            letters=self.letters,
            limit=self.limit,
            progress=self.progress,
            clock=time.time_ns,
            committed=self.charged.update,
        )
        consumer = Consumer(consumer_properties(self.settings, f"bench-{time.time_ns()}", lambda _: None))
        self.reader = Reader(consumer, CALLS, self._positions)

    def send(self, records: Sequence[bytes]) -> None:
        producer = Producer({"bootstrap.servers": self.brokers})
        for record in records:
            producer.produce(CALLS, record, b"key", partition=0, headers=HEADERS)
        assert producer.flush(30) == 0

    def read(self, count: int) -> Batch:
        """The next messages, exactly `count`."""
        until = time.monotonic() + 60
        parts: list[Message] = []
        while time.monotonic() < until:
            batch = self.reader.read(count)
            if batch is not None:
                if len(batch.messages) == count:
                    return batch
                self.reader.place_again(batch.stretches)
        raise AssertionError(f"not {count} messages, {len(parts)}")

    def position(self) -> int:
        with self.database.read() as connection:
            return positions.of(connection, CALLS, [0]).get(0, 0)

    def totals(self) -> ledger.LedgerTotals:
        with self.database.read() as connection:
            return ledger.totals(connection)

    def reasons(self) -> dict[int, str]:
        return {letter.offset: letter.reason for letter in shelf.read(self.settings)}

    def _positions(self, partitions: Sequence[int]) -> dict[int, int]:
        with self.database.read() as connection:
            return positions.of(connection, CALLS, partitions)


@pytest.fixture
def bench(kafka: Kafka, stores: Stores) -> Iterator[Bench]:
    renew_topics(kafka.address, 1)
    made = Bench(kafka.address, stores)
    yield made
    made.reader.close()


def bad_calls() -> list[tuple[Call, str]]:
    """Calls that no honest row can be made of."""
    rng = random.Random(2)
    no_id = make_call("no uuid")
    negative = some_calls(rng, 1, time.time_ns())[0]
    negative.usage.tokens["input"] = -5
    return [(no_id, "rejected:bad_id"), (negative, "rejected:negative_count")]


def test_bad_messages_are_put_aside_and_their_neighbours_charged(bench: Bench) -> None:
    good = [call_record(call) for call in some_calls(random.Random(1), 4, time.time_ns())]
    (no_id, why), (negative, why_not) = bad_calls()
    bench.send(
        [good[0], b"\x1agarbage", good[1], call_record(no_id), good[2], call_record(negative), good[3]]
    )
    bench.charger(bench.read(7))
    assert bench.totals() == expected(4)
    assert bench.position() == 7
    assert bench.reasons() == {1: "undecodable", 3: why, 5: why_not}
    assert bench.limit.room() == LIMIT - 3
    assert bench.charged == {"default"}
    (letter, *_) = shelf.read(bench.settings)
    assert letter.message.value() == b"\x1agarbage"
    assert (letter.topic, letter.partition, letter.size, letter.replays) == (CALLS, 0, 8, 0)
    assert bench.limit.acknowledge() == 3
    assert bench.limit.room() == LIMIT


def test_a_batch_of_a_partition_that_was_taken_over_writes_nothing(bench: Bench) -> None:
    calls = some_calls(random.Random(3), 6, time.time_ns())
    bench.send([call_record(call) for call in calls])
    batch = bench.read(6)
    with bench.database.write() as connection:  # another worker was here
        assert positions.take(connection, CALLS, 0, 0)
        positions.advance(connection, CALLS, 0, 4, time.time_ns())
    with pytest.raises(Moved) as moved:
        bench.charger(batch)
    assert moved.value.partitions == {0}
    assert bench.totals() == expected(0)
    bench.reader.place_again(batch.stretches)
    rest = bench.read(2)
    bench.charger(rest)
    assert bench.totals() == expected(2)
    assert bench.position() == 6
    with pytest.raises(Moved):  # the same again, as after a commit whose answer was lost
        bench.charger(rest)
    assert bench.totals() == expected(2)


def test_what_is_in_front_of_the_first_letter_too_many_is_charged(bench: Bench) -> None:
    good = [call_record(call) for call in some_calls(random.Random(4), 8, time.time_ns())]
    records = [record for call in good for record in (call, b"\xff")]
    bench.send(records)
    batch = bench.read(16)
    with pytest.raises(TooManyDeadLetters, match=rf"{CALLS}/0/11 cannot be worked \(undecodable\)"):
        bench.charger(batch)
    assert bench.position() == 11
    assert bench.totals() == expected(6)
    assert sorted(bench.reasons()) == [1, 3, 5, 7, 9]
    bench.reader.place_again(batch.stretches)
    batch = bench.read(5)
    with pytest.raises(TooManyDeadLetters):
        bench.charger(batch)
    assert bench.position() == 11
    bench.limit.acknowledge()
    bench.charger(batch)
    assert (bench.position(), bench.totals()) == (16, expected(8))


def test_a_batch_that_is_tried_again_puts_a_letter_aside_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.send([call_record(some_calls(random.Random(5), 1, time.time_ns())[0]), b"\xff"])
    batch = bench.read(2)
    advance = positions.advance

    def fail(*_: object) -> None:
        raise OSError("the machine's fault, once")

    monkeypatch.setattr(positions, "advance", fail)
    with pytest.raises(OSError, match="once"):
        bench.charger(batch)
    monkeypatch.setattr(positions, "advance", advance)
    bench.charger(batch)
    assert bench.totals() == expected(1)
    assert topic_length(bench.brokers, DEADLETTER) == 1
    assert bench.limit.unacknowledged() == 1


def test_a_message_that_the_code_fails_on_costs_no_neighbour(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = some_calls(random.Random(6), 9, time.time_ns())
    write: Callable[..., None] = bench.ledgering.write

    def defective(posts: Sequence[object], *arguments: object, **named: object) -> None:
        if any(call.id == calls[5].id for post in posts for call in post.batch.calls):  # type: ignore[attr-defined]
            raise ZeroDivisionError
        write(posts, *arguments, **named)

    monkeypatch.setattr(bench.ledgering, "write", defective)
    bench.send([call_record(call) for call in calls])
    bench.charger(bench.read(9))
    assert bench.reasons() == {5: "failed:ZeroDivisionError"}
    assert (bench.position(), bench.totals()) == (9, expected(8))


def test_texts_that_a_store_cannot_hold_do_not_stop_it(bench: Bench) -> None:
    calls = some_calls(random.Random(7), 3, time.time_ns())
    calls[1].team = "nul \x00 byte"
    calls[1].user = "\x00"
    bench.send([call_record(call) for call in calls])
    bench.charger(bench.read(3))
    assert bench.position() == 3
    assert bench.totals().calls + bench.limit.unacknowledged() == 3
