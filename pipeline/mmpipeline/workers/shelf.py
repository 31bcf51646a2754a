"""The dead letter topic for people: what is in it, and sending letters back to where they came from.

`read` goes through the whole topic once. What was sent back is remembered in the topic itself, so that a
second replay leaves it alone. A crash between sending and remembering sends a letter twice, which is
harmless: a call that comes again is a duplicate.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, Producer, TopicPartition

from mmpipeline.workers import deadletters as dead
from mmpipeline.workers.clients import OnError, client_properties, producer_properties
from mmpipeline.workers.headers import Header, headers_of, texts_of
from mmproto.kafka.settings import KafkaSettings
from mmproto.kafka.topics import DEADLETTER

#: How often a message was sent back: the header that a replayed message carries.
REPLAYS = "replays"

_TIMEOUT_S = 15.0


class ShelfError(Exception):
    """The topic cannot be read or written; str() is one line with what to do."""


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter, without its content. `replayed`: it was sent back already."""

    topic: str
    partition: int
    offset: int
    reason: str
    written_at_unix_ms: int
    put_aside_at_unix_ms: int
    size: int
    omitted: bool
    replays: int
    replayed: bool
    message: Message

    @property
    def where(self) -> str:
        return f"{self.topic}/{self.partition}/{self.offset}"


def read(settings: KafkaSettings) -> list[Letter]:
    """All dead letters that the topic still has, each once, oldest first. Raises ShelfError."""
    problems: list[str] = []
    properties = client_properties(settings, _collect(problems)) | {
        "group.id": "modelmeter.deadletter",  # librdkafka wants a name; nothing is ever committed under it
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
    }
    consumer = Consumer(properties)
    try:
        messages: dict[str, Message] = {}
        replayed: set[str] = set()
        for message in _all(consumer, problems):
            key = (message.key() or b"").decode("utf-8", "replace")
            headers = texts_of(message)
            if dead.REPLAYED in headers:
                replayed.add(key)
            elif dead.OFFSET in headers:
                messages.setdefault(key, message)
    finally:
        consumer.close()
    return [_letter(message, key in replayed) for key, message in messages.items()]


def replay(settings: KafkaSettings, letters: Sequence[Letter]) -> None:
    """Send `letters` back to the topics and partitions they came from, and remember it. Raises ShelfError."""
    problems: list[str] = []
    producer = Producer(producer_properties(settings, _collect(problems)))
    for letter in letters:
        original, key = _original(letter)
        _produce(producer, Outgoing(letter.topic, letter.partition, letter.message.value(), key, original))
    _flush(producer, problems)
    now = str(time.time_ns())
    for letter in letters:
        remembered: list[Header] = [(dead.REPLAYED, now)]
        _produce(producer, Outgoing(DEADLETTER, 0, None, letter.where.encode(), remembered))
    _flush(producer, problems)


def _original(letter: Letter) -> tuple[list[Header], bytes | None]:
    """The headers and the key that the message had, its count of replays one higher."""
    key: bytes | None = None
    headers: list[Header] = []
    for name, value in headers_of(letter.message):
        raw = value.encode() if isinstance(value, str) else value or b""
        if name == dead.KEY:
            key = raw
        elif name != REPLAYS and not name.startswith(dead.PREFIX):
            headers.append((name, raw))
    return [*headers, (REPLAYS, str(letter.replays + 1).encode())], key


class Outgoing(NamedTuple):
    """A message to write."""

    topic: str
    partition: int
    value: bytes | None
    key: bytes | None
    headers: list[Header]


def _produce(producer: Producer, message: Outgoing) -> None:
    topic, partition, value, key, headers = message

    def done(error: object, _: Message) -> None:
        if error is not None:
            raise ShelfError(f"{topic} did not take a message: {error}")

    while True:
        try:
            producer.produce(topic, value, key, partition, done, headers=headers)
        except BufferError:
            producer.poll(0.1)
        except KafkaException as error:
            raise ShelfError(f"{topic} did not take a message: {error.args[0].str()}") from error
        else:
            producer.poll(0)
            return


def _flush(producer: Producer, problems: Sequence[str]) -> None:
    if producer.flush(_TIMEOUT_S):
        why = problems[-1] if problems else f"no answer in {_TIMEOUT_S:.0f} s"
        raise ShelfError(f"Kafka did not take everything: {why}; send again what is not marked as replayed")


def _all(consumer: Consumer, problems: Sequence[str]) -> Iterator[Message]:
    partition = TopicPartition(DEADLETTER, 0, OFFSET_BEGINNING)
    try:
        low, high = consumer.get_watermark_offsets(partition, _TIMEOUT_S)
    except KafkaException as error:
        why = problems[-1] if problems else error.args[0].str()
        raise ShelfError(f"{DEADLETTER} cannot be read: {why}; see kafka.brokers") from error
    consumer.assign([partition])
    reached, until = low, time.monotonic() + _TIMEOUT_S
    while reached < high:
        for message in consumer.consume(1_000, 0.2):
            if (problem := message.error()) is not None:
                raise ShelfError(f"{DEADLETTER} cannot be read: {problem.str()}")
            reached = (message.offset() or 0) + 1
            until = time.monotonic() + _TIMEOUT_S
            if reached <= high:
                yield message
        if time.monotonic() > until:
            raise ShelfError(f"{DEADLETTER} cannot be read beyond offset {reached}: no answer")


def _letter(message: Message, replayed: bool) -> Letter:
    said = texts_of(message)
    return Letter(
        topic=said[dead.TOPIC],
        partition=int(said[dead.PARTITION]),
        offset=int(said[dead.OFFSET]),
        reason=said.get(dead.REASON, ""),
        written_at_unix_ms=int(said.get(dead.TIMESTAMP) or 0),
        put_aside_at_unix_ms=message.timestamp()[1],
        size=int(said.get(dead.OMITTED) or len(message.value() or b"")),
        omitted=bool(said.get(dead.OMITTED)),
        replays=int(said.get(REPLAYS) or 0),
        replayed=replayed,
        message=message,
    )


def _collect(problems: list[str]) -> OnError:
    return lambda error: problems.append(error.str())
