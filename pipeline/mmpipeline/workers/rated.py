"""Sealed batches of rated rows on their way over Kafka: what the relay writes and the warehouse sink reads.

One message of modelmeter.rated.v1 is one sealed batch, on the partition of its lane. Its token stands in a
header, not in the position: a batch that was published twice has one token, and the warehouse drops the
second. What did not come from Kafka (a reprice, calls of HTTP ingest) goes by partition 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mmpipeline.workers.deadletters import Undelivered
from mmpipeline.workers.headers import Header, texts_of
from mmproto.kafka.topics import CONTENT_TYPE_HEADER, RATED, SCHEMA_HEADER, SCHEMA_VERSION_HEADER

if TYPE_CHECKING:
    from confluent_kafka._types import HeadersType

CONTENT_TYPE = "application/vnd.clickhouse.native"
SCHEMA = "modelmeter.calls"
#: Of the table's columns: a sink takes what it knows.
SCHEMA_VERSION = 1
TOKEN_HEADER = "token"  # noqa: S105 - it names a batch and opens nothing
ROWS_HEADER = "rows"

DELIVERY_TIMEOUT_S = 30.0


class RatedTopic:
    """Publishes sealed batches. One thread's own."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self.published = 0

    def lane(self, lane: int) -> RatedLane:
        """Where the batches of a lane go."""
        return RatedLane(self, max(lane, 0))

    def publish(self, partition: int, blocks: Sequence[bytes], token: str) -> None:
        """Publish a batch; on return all replicas in sync have it. Raises Undelivered."""
        failed: list[KafkaError] = []

        def done(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                failed.append(error)

        headers: list[Header] = [
            (CONTENT_TYPE_HEADER, CONTENT_TYPE),
            (SCHEMA_HEADER, SCHEMA),
            (SCHEMA_VERSION_HEADER, str(SCHEMA_VERSION)),
            (TOKEN_HEADER, token),
            (ROWS_HEADER, str(sum(map(rows_of_block, blocks)))),
        ]
        try:
            self._producer.produce(
                RATED, b"".join(blocks), token, partition, on_delivery=done, headers=headers
            )
        except (BufferError, KafkaException) as error:
            raise Undelivered(f"{RATED} did not take a batch: {error}") from error
        if self._producer.flush(DELIVERY_TIMEOUT_S):
            # It may still arrive. Then it stands there twice, under one token.
            self._producer.purge()
            self._producer.flush(1.0)
            raise Undelivered(f"{RATED} did not take a batch in {DELIVERY_TIMEOUT_S:.0f} s")
        if failed:
            raise Undelivered(f"{RATED} did not take a batch: {failed[0].str()}")
        self.published += 1


@dataclass(frozen=True, slots=True)
class RatedLane:
    """One lane of the topic, as `WarehouseWriter` knows its sinks."""

    topic: RatedTopic
    partition: int

    def insert_blocks(self, blocks: Sequence[bytes], token: str) -> None:
        """Publish a batch. Raises Undelivered."""
        self.topic.publish(self.partition, blocks, token)


def rows_of_block(block: bytes) -> int:
    """How many rows a block in Native format has: it begins with columns and rows, as varints."""
    numbers = []
    value = shift = 0
    for byte in block[:20]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            numbers.append(value)
            value = shift = 0
            if len(numbers) == 2:
                return numbers[1]
    raise ValueError("not a block in Native format")


class RatedMessage(Protocol):
    """What is needed of a Kafka message."""

    def value(self) -> bytes | None: ...

    def headers(self) -> HeadersType | None: ...


@dataclass(frozen=True, slots=True)
class RatedBlock:
    """What a message of the topic carries."""

    token: str
    rows: int
    payload: bytes


class Unreadable(Exception):
    """The message is no sealed batch; str() is the reason's name."""


def block_of(message: RatedMessage) -> RatedBlock:
    """The batch in a message. Raises Unreadable."""
    said = texts_of(message)
    if said.get(CONTENT_TYPE_HEADER) != CONTENT_TYPE:
        raise Unreadable("content_type")
    if said.get(SCHEMA_HEADER) != SCHEMA:
        raise Unreadable("schema")
    version = said.get(SCHEMA_VERSION_HEADER, "")
    if not version.isdecimal() or not 1 <= int(version) <= SCHEMA_VERSION:
        raise Unreadable("schema_version")
    token, rows, payload = said.get(TOKEN_HEADER, ""), said.get(ROWS_HEADER, ""), message.value()
    if not token or not rows.isdecimal():
        raise Unreadable("no_token")
    if not payload:
        raise Unreadable("empty")
    return RatedBlock(token, int(rows), payload)
