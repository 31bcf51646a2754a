"""Brokers that die, hang and come back while a spool is emptied into them: nothing is lost or silent."""

from __future__ import annotations

import functools
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from tests.proto.kafka.records import call, calls, ids, places
from tests.services.kafka import create_topic, read_topic, running, topic_length

from mmlocal.services.kafka import Kafka
from mmproto.delivery import Sender, Spool, SpoolFull
from mmproto.kafka.producer import Delivered, KafkaClient
from mmproto.kafka.settings import KafkaSettings
from mmproto.settings import Secret

WITHIN_S = 120.0
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker to be hurt; each test leaves it running."""
    with running(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def topic(broker: Kafka) -> str:
    name = f"faults-{next(_NUMBERS)}"
    create_topic(broker.address, name, 3)
    return name


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool.sqlite", 1 << 24)
    yield spool
    spool.close()


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.01)


def has(seen: list[Delivered], enough: int) -> bool:
    return len(seen) >= enough


def client(broker: Kafka, topic: str, seen: list[Delivered], timeout_ms: int = 2000) -> KafkaClient:
    properties = {"message.timeout.ms": Secret(str(timeout_ms))}
    settings = KafkaSettings(brokers=broker.address, properties=properties)
    return KafkaClient(settings, "node-1", topic=topic, on_delivered=seen.extend)


def sender(spool: Spool, posting: KafkaClient, batch: int) -> Sender:
    return Sender(spool, posting, batch_records=batch, backoff_s=0.1, backoff_max_s=0.5, idle_s=0.05)


def test_a_broker_killed_while_it_takes_records_loses_none(broker: Kafka, topic: str, spool: Spool) -> None:
    wanted = 6000
    seen: list[Delivered] = []
    sending = sender(spool, client(broker, topic, seen), 200)
    # Appended while it is being emptied, as it is in life.
    stop = threading.Event()

    def append() -> None:
        for number in range(0, wanted, 100):
            spool.append([call(f"kept-{each}", f"t-{each % 9}") for each in range(number, number + 100)])
            sending.wake()
            if stop.wait(0.01):
                return

    source = threading.Thread(target=append)
    sending.start()
    source.start()
    try:
        for enough in (1500, 3000):
            until(functools.partial(has, seen, enough), f"{enough} delivered")
            broker.kill()
            before = len(seen)
            broker.start()
            until(functools.partial(has, seen, before + 1), "more delivered after the kill")
        source.join()
        until(lambda: not len(spool), "an empty spool")
    finally:
        stop.set()
        source.join()
        sending.stop(0)
    messages = read_topic(broker.address, topic, topic_length(broker.address, topic))
    copies = Counter(ids(messages))
    assert set(copies) == {f"kept-{number}" for number in range(wanted)}
    # At most the posts that were under way when the broker died stand there twice.
    assert sum(copies.values()) - wanted <= 2 * 200
    assert sending.statistics().delivered == wanted
    standing = {(each.id, each.partition, each.offset) for each in seen}
    there = {
        (item, message.partition(), message.offset())
        for message, item in zip(messages, ids(messages), strict=True)
    }
    assert standing <= there
    assert {each.id for each in seen} == set(copies)


def test_a_full_spool_refuses_and_counts_then_drains(broker: Kafka, topic: str, tmp_path: Path) -> None:
    records = calls("room", 400)
    room = 4096
    spool = Spool(tmp_path / "small.sqlite", room)
    seen: list[Delivered] = []
    sending = sender(spool, client(broker, topic, seen), 50)
    broker.kill()
    refused = 0
    for number in range(0, len(records), 20):
        try:
            spool.append(records[number : number + 20])
        except SpoolFull as full:
            assert full.reason == "spool_full"
            refused += 20 - full.accepted
    kept = len(spool)
    assert refused == 400 - kept > 0
    assert spool.statistics().payload_bytes <= room
    assert spool.statistics().refused == refused
    while sending.step() == 0:
        pytest.fail("nobody is there to take anything")
    statistics = sending.statistics()
    assert (len(spool), statistics.delivered, statistics.retries) == (kept, 0, {"broker_away": 1})
    assert "is Kafka running there" in statistics.last_error
    broker.start()
    sending.start()
    until(lambda: not len(spool), "an empty spool")
    sending.stop(0)
    spool.close()
    messages = read_topic(broker.address, topic, kept)
    assert set(ids(messages)) == set(ids(records[:kept]))
    assert places(messages).items() >= {each.id: (each.partition, each.offset) for each in seen}.items()


def test_a_broker_that_hangs_delays_and_doubles_at_most_what_was_under_way(
    broker: Kafka, topic: str, spool: Spool
) -> None:
    seen: list[Delivered] = []
    with closing(client(broker, topic, seen, timeout_ms=1000)) as posting:
        sending = sender(spool, posting, 50)
        spool.append(calls("first", 50))
        sending.step()
        broker.pause()
        try:
            spool.append(calls("second", 50))
            assert sending.step() > 0
            assert (len(spool), sending.statistics().failures_in_a_row) == (50, 1)
        finally:
            broker.resume()
        until(lambda: sending.step() == 0.05, "an empty spool")
    messages = read_topic(broker.address, topic, topic_length(broker.address, topic))
    copies = Counter(ids(messages))
    assert set(copies) == {*ids(calls("first", 50)), *ids(calls("second", 50))}
    assert all(copies[each] == 1 for each in ids(calls("first", 50)))
    assert max(copies.values()) <= 2 + sum(sending.statistics().retries.values())


def test_a_topic_made_anew_under_the_sender_is_written_on(broker: Kafka, topic: str, spool: Spool) -> None:
    """The broker then knows nothing of the producer's sequence: whatever comes of that, records arrive."""
    seen: list[Delivered] = []
    with closing(client(broker, topic, seen)) as posting:
        sending = sender(spool, posting, 50)
        spool.append(calls("before", 50))
        until(lambda: sending.step() == 0.05, "an empty spool")
        admin = AdminClient({"bootstrap.servers": broker.address})
        for gone in admin.delete_topics([topic], operation_timeout=30).values():
            gone.result()
        until(lambda: topic not in admin.list_topics(timeout=30).topics, "the topic gone")
        create_topic(broker.address, topic, 3)
        spool.append(calls("after", 50))
        until(lambda: sending.step() == 0.05, "an empty spool")
    assert set(ids(read_topic(broker.address, topic, 50))) == set(ids(calls("after", 50)))
