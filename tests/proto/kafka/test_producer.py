"""What is posted to a real broker stands there with its key, headers and place; or is refused by name."""

from __future__ import annotations

import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.proto.kafka.records import call, calls, decision, ids, places
from tests.services.kafka import MakeTopic, read_topic, topic_length

from mmlocal.services.kafka import Kafka
from mmlocal.services.ports import LoopbackPort
from mmproto.delivery import Rejected, Retry, Sender, Spool
from mmproto.kafka.producer import Delivered, KafkaClient
from mmproto.kafka.settings import KafkaSettings
from mmproto.settings import ConfigurationError, Secret

# Where the broker is away, nobody here waits for as long as in life.
IMPATIENT = {"message.timeout.ms": "1500", "topic.metadata.propagation.max.ms": "500"}


def settings(brokers: str, properties: dict[str, str] | None = None, **more: Any) -> KafkaSettings:
    texts = {name: Secret(value) for name, value in (properties or {}).items()}
    return KafkaSettings(brokers=brokers, properties=texts, **more)


@contextmanager
def client(
    kafka: Kafka | str, topic: str, seen: list[Delivered] | None = None, **more: Any
) -> Iterator[KafkaClient]:
    brokers = kafka if isinstance(kafka, str) else kafka.address
    told = (lambda _: None) if seen is None else seen.extend
    with closing(KafkaClient(settings(brokers, **more), "node-1", topic=topic, on_delivered=told)) as made:
        yield made


def test_a_message_is_the_record_and_its_place_is_told(kafka: Kafka, make_topic: MakeTopic) -> None:
    topic, seen = make_topic(4), list[Delivered]()
    records = [*calls("told", 200), decision("d-1", "tenant-3")]
    with client(kafka, topic, seen) as posting:
        receipt = posting.post(records)
    assert (receipt.accepted, receipt.duplicates, receipt.rejected) == (201, 0, {})
    messages = read_topic(kafka.address, topic, 201)
    assert sorted(message.value() or b"" for message in messages) == sorted(records)
    assert {each.id: (each.partition, each.offset) for each in seen} == places(messages)
    assert dict(messages[0].headers() or ()) == {
        "content-type": b"application/x-protobuf",
        "schema": b"modelmeter.v1.IngestBatch",
        "schema-version": b"1",
    }


@pytest.mark.parametrize(
    ("key_by", "key"),
    [("tenant", b"acme"), ("team", b"acme/search"), ("application", b"acme/search/bot")],
)
def test_the_key_says_whose_budget_it_is(
    kafka: Kafka, make_topic: MakeTopic, key_by: str, key: bytes
) -> None:
    topic = make_topic(3)
    with client(kafka, topic, key_by=key_by) as posting:
        posting.post([call("c", "acme", "search", "bot"), decision("d", "acme", "search", "bot")])
        posting.post([call("e", "", "search", "bot")])
    messages = read_topic(kafka.address, topic, 3)
    keys: dict[str, list[bytes]] = defaultdict(list)
    partitions = defaultdict(set)
    for message, item in zip(messages, ids(messages), strict=True):
        keys[item].append(message.key() or b"")
        partitions[message.key()].add(message.partition())
    # Who tells no tenant counts against the pipeline's default one.
    assert keys == {"c": [key], "d": [key], "e": [key.replace(b"acme", b"default")]}
    assert all(len(each) == 1 for each in partitions.values())


def test_more_than_the_queue_holds_waits_and_arrives(kafka: Kafka, make_topic: MakeTopic) -> None:
    topic = make_topic(2)
    with client(kafka, topic, properties={"queue.buffering.max.messages": "10"}) as posting:
        assert posting.post(calls("tight", 300)).accepted == 300
    assert topic_length(kafka.address, topic) == 300


def test_what_is_too_large_is_set_aside_and_the_others_arrive_once(
    kafka: Kafka, make_topic: MakeTopic, tmp_path: Path
) -> None:
    topic, seen = make_topic(2, {"max.message.bytes": "4000"}), list[Delivered]()
    large = call("large", model="".join(str(number * 7919 % 10007) for number in range(4000)))
    huge = call("huge", model="x" * 1_100_000)
    spool = Spool(tmp_path / "spool.sqlite", 1 << 24)
    spool.append([*calls("small", 20), large, *calls("more", 20), huge])
    with client(kafka, topic, seen) as posting:
        sender = Sender(spool, posting)
        for _ in range(3):
            sender.step()
        assert {(ids([payload])[0], reason) for _, reason, payload in spool.rejected()} == {
            ("large", "message_too_large"),
            ("huge", "message_too_large"),
        }
        assert sender.statistics().rejected == {"message_too_large": 2}
        assert (len(spool), sender.statistics().delivered) == (0, 40)
    spool.close()
    messages = read_topic(kafka.address, topic, 40)
    assert len(messages) == len(set(ids(messages))) == len(seen) == 40


def test_a_record_without_an_item_is_refused_and_not_sent(kafka: Kafka, make_topic: MakeTopic) -> None:
    topic = make_topic()
    with client(kafka, topic) as posting:
        receipt = posting.post([b"\xff\xff", call("fine")])
    assert (receipt.accepted, receipt.rejected) == (1, {"": "no_id"})
    assert ids(read_topic(kafka.address, topic, 1)) == ["fine"]


def refusal(brokers: str, topic: str = "nowhere", **properties: str) -> Retry:
    with client(brokers, topic, properties={**IMPATIENT, **properties}) as posting:
        with pytest.raises(Retry) as caught:
            posting.post([call("waits")])
        with pytest.raises(Retry) as asked:
            posting.partitions(1.0)
    assert asked.value.reason == caught.value.reason
    assert "\n" not in str(caught.value)
    return caught.value


def test_why_it_has_to_wait_is_named(kafka: Kafka) -> None:
    missing = refusal(kafka.address)
    assert missing.reason == "unknown_topic"
    assert str(missing) == "there is no topic nowhere; `mmpipeline topics apply` creates it"
    with closing(LoopbackPort()) as port:
        away = refusal(f"127.0.0.1:{port.number}")
    assert away.reason == "broker_away"
    assert "Connection refused" in str(away)
    assert refusal("no-such-host.invalid:9092").reason == "broker_unknown"
    # Someone listens there, and speaks no TLS.
    assert refusal(kafka.address, **{"security.protocol": "SSL"}).reason in ("tls", "broker_away")


def test_settings_that_the_library_refuses_are_said_without_secrets() -> None:
    for properties, said in (
        ({"no.such.thing": "x"}, 'No such configuration property: "no.such.thing"'),
        ({"compression.type": "zip"}, "compression."),
        ({"ssl.ca.location": "/no/such/file", "security.protocol": "SSL"}, "ssl.ca.location"),
        (
            {"security.protocol": "SSL", "ssl.key.pem": "hunter2-key", "ssl.certificate.pem": "hunter2-cert"},
            "pem",
        ),
    ):
        with pytest.raises(ConfigurationError) as caught:
            KafkaClient(settings("127.0.0.1:9092", properties), "node-1")
        assert said in str(caught.value)
        assert "hunter2" not in str(caught.value)
    for reserved in ("acks", "enable.idempotence", "transactional.id", "bootstrap.servers"):
        with pytest.raises(ValueError, match=f"'{reserved}' is ModelMeter's own"):
            settings("127.0.0.1:9092", {reserved: "x"})


def test_nobody_needs_the_library_who_does_not_use_kafka(tmp_path: Path) -> None:
    command = "import sys; sys.modules['confluent_kafka'] = None; from mmsensor.cli import main; main()"
    config = tmp_path / "sensor.yaml"
    results = []
    for sink in ("ingest", "kafka://127.0.0.1:9092"):
        config.write_text(f"sink: {sink}\n")
        argv = [sys.executable, "-c", command, "config", "validate", "--config", str(config)]
        results.append(subprocess.run(argv, capture_output=True, text=True, check=False))
    without, needed = results
    assert without.returncode == 0, without.stderr
    assert needed.returncode == 78
    assert needed.stderr == (
        "mmsensor: kafka: the Python package confluent-kafka is not installed; "
        "install it, e.g. pip install 'modelmeter[kafka]'\n"
    )


def test_a_refused_batch_is_not_repeated_for_what_has_landed(kafka: Kafka, make_topic: MakeTopic) -> None:
    """Two partitions, one post: what the first took stands there once, however often the other refuses."""
    topic = make_topic(2, {"max.message.bytes": "4000"})
    large = call("large", "tenant-1", model="".join(str(number * 7919 % 10007) for number in range(4000)))
    seen: list[Delivered] = []
    with client(kafka, topic, seen) as posting:
        for _ in range(3):
            with pytest.raises(Rejected) as caught:
                posting.post([*calls("landed", 10), large])
            assert caught.value.reason == "message_too_large"
        posting.post(calls("landed", 10))
    messages = read_topic(kafka.address, topic, 10)
    assert len(messages) == len(set(ids(messages))) == len(seen) == 10
