"""A compacted topic is read to its end, whatever the broker has thrown away of it meanwhile."""

from __future__ import annotations

import time

from confluent_kafka import Producer
from tests.services.kafka import MakeTopic, read_topic

from mmlocal.services.kafka import Kafka
from mmproto.kafka.compacted import CompactedReader, Entry

# A segment for nearly every message, and all of them but the newest may be thrown away.
EAGER = {
    "cleanup.policy": "compact",
    "segment.ms": "10",
    "min.cleanable.dirty.ratio": "0.001",
    "delete.retention.ms": "0",
}
KEYS = 3
ROUNDS = 20


def properties(kafka: Kafka) -> dict[str, str | int]:
    return {"bootstrap.servers": kafka.address, "log_level": 0}


def read_all(reader: CompactedReader, within_s: float = 60.0) -> list[Entry]:
    """What there is when the reader says that it has caught up."""
    found: list[Entry] = []
    end = time.monotonic() + within_s
    while not reader.caught_up:
        assert time.monotonic() < end, reader.error
        found += reader.poll(0.05)
    return found


def test_what_compaction_left_is_all_there_is(kafka: Kafka, make_topic: MakeTopic) -> None:
    topic, empty = make_topic(2, EAGER), make_topic(1, EAGER)
    producer = Producer({**properties(kafka), "linger.ms": 0})

    def put(key: str, value: bytes | None) -> None:
        producer.produce(topic, value, key.encode(), headers={"as-of": b"1"})
        assert producer.flush(30) == 0

    for number in range(ROUNDS):
        for key in range(KEYS):
            put(f"key-{key}", b"%d" % number)
        time.sleep(0.02)
    put("key-0", None)
    written = ROUNDS * KEYS + 1
    end = time.monotonic() + 90
    while len(read_topic(kafka.address, topic, written, within_s=1.0)) >= written:
        assert time.monotonic() < end, "the broker compacts nothing"
        time.sleep(0.5)
    reader = CompactedReader(properties(kafka), (topic, empty))
    try:
        last = {entry.key: entry.value for entry in read_all(reader)}
        assert last.get(b"key-0") is None
        newest = b"%d" % (ROUNDS - 1)
        assert (last[b"key-1"], last[b"key-2"]) == (newest, newest)
        # What comes later comes, a key without a byte included.
        put("", b"later")
        later: list[Entry] = []
        end = time.monotonic() + 30
        while not later and time.monotonic() < end:
            later = reader.poll(0.05)
        assert [(entry.key, entry.value, entry.headers) for entry in later] == [
            (b"", b"later", {"as-of": b"1"})
        ]
        assert reader.caught_up
        assert reader.error == ""
    finally:
        reader.close()


def test_a_topic_that_is_missing_is_said(kafka: Kafka, make_topic: MakeTopic) -> None:
    reader = CompactedReader(properties(kafka), (make_topic(), "no-such-topic-yet"))
    try:
        end = time.monotonic() + 30
        while not reader.error and time.monotonic() < end:
            reader.poll(0.05)
        assert "there is no topic no-such-topic-yet" in reader.error
        assert not reader.caught_up
    finally:
        reader.close()
