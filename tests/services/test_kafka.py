"""The broker that other tests rest on: it keeps what it has acknowledged over a kill, on the same address."""

from __future__ import annotations

from confluent_kafka import Producer

from mmlocal.services.kafka import Kafka
from tests.services.kafka import create_topic, read_topic


def send(address: str, topic: str, *values: bytes) -> None:
    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "log_level": 0})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(60) == 0


def test_what_was_acknowledged_is_there_after_a_kill(own_kafka: Kafka) -> None:
    address = own_kafka.address
    create_topic(address, "kept", 3)
    send(address, "kept", b"one", b"two")
    own_kafka.kill()
    own_kafka.start()
    assert own_kafka.address == address
    send(address, "kept", b"three")
    assert sorted(message.value() or b"" for message in read_topic(address, "kept", 3)) == [
        b"one",
        b"three",
        b"two",
    ]
