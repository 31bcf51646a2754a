"""Posts spool records to Kafka: what `IngestClient` is for HTTP, for the same sender and the same spool.

One record is one message of modelmeter.calls.v1. Its key is whose budget it counts against (`kafka.key_by`),
so that one budget's spend stays on one partition. A post returns when the delivery report of every message is
in, acknowledged by all replicas in sync (acks=all): only then does the spool forget the records.

The producer is idempotent: what librdkafka itself repeats stands in the topic once. A post that failed is
repeated by the sender, as a new attempt: of its messages those whose reports had come are not sent again; one
whose fate was not known may stand in the topic twice, and the worker knows it by its id.

Errors, as for `IngestClient`: `Retry` for what is mended at the brokers or in the configuration, `Rejected`
for messages that the brokers find too large. `ConfigurationError` from the constructor.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mmproto.delivery.errors import Rejected, Retry
from mmproto.delivery.ingest_client import Receipt
from mmproto.delivery.records import SCHEMA_VERSION, Item, items
from mmproto.kafka.connection import connection_properties, settings_taken
from mmproto.kafka.settings import KafkaSettings
from mmproto.kafka.topics import CALLS, CONTENT_TYPE_HEADER, SCHEMA_HEADER, SCHEMA_VERSION_HEADER
from mmproto.kafka.troubles import TOO_LARGE, Heard, Trouble, trouble

HEADERS: Final[list[tuple[str, str | bytes | None]]] = [
    (CONTENT_TYPE_HEADER, b"application/x-protobuf"),
    (SCHEMA_HEADER, b"modelmeter.v1.IngestBatch"),
    (SCHEMA_VERSION_HEADER, str(SCHEMA_VERSION).encode()),
]
#: A record whose tenant is not told counts against this one, as the pipeline has it.
DEFAULT_TENANT: Final = "default"
# What `kafka.properties` may set otherwise.
_DEFAULTS: Final = {
    # librdkafka gives a message up after this.
    "message.timeout.ms": 10_000,
    "compression.type": "zstd",
    "linger.ms": 5,
    # As Java's clients place keys, so that other producers of the topic agree with us.
    "partitioner": "murmur2_random",
    # A topic that is not there is said before the messages time out.
    "topic.metadata.propagation.max.ms": 5_000,
}
# How long reports may outlast the messages' own time-out.
_GRACE_S: Final = 5.0
_KEY_FIELDS: Final = {"tenant": 1, "team": 2, "application": 3}


@dataclass(frozen=True, slots=True)
class Delivered:
    """Where an item stands in the topic: who has read `partition` past `offset` has seen it."""

    id: str
    partition: int
    offset: int


class KafkaClient:
    """A `Client` of `Sender`. Not for use by several threads at once.

    `on_delivered` is called by the thread that posts, before the post returns or raises, with the items whose
    reports have come. Every item is told once, unless a post of it failed with its fate unknown.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        node: str,
        *,
        topic: str = CALLS,
        on_delivered: Callable[[Sequence[Delivered]], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._topic = topic
        self._on_delivered = on_delivered
        self._key_fields = _KEY_FIELDS[settings.key_by]
        self._heard = Heard()
        self._properties = {
            **_DEFAULTS,
            **connection_properties(settings, f"modelmeter-{node}"),
            "acks": "all",
            "enable.idempotence": True,
            "error_cb": self._heard,
        }
        # Ids of items whose reports came in posts that failed for others: they are not sent again.
        self._landed: set[str] = set()
        # At once, so that wrong settings are said at the start. Nothing is connected before the first post.
        self._producer: Producer | None = self._made()
        self._patience_s = int(self._properties["message.timeout.ms"]) / 1000 + _GRACE_S

    def post(self, records: Sequence[bytes]) -> Receipt:
        """Sends one batch and returns when all of it is acknowledged. Raises Retry or Rejected."""
        if self._producer is None:
            self._producer = self._made()
        self._heard.forget()
        post = _Post(items(records))
        try:
            self._send(self._producer, records, post)
            self._await(self._producer, post)
        finally:
            self._landed.update(item.id for item in post.delivered)
            if post.delivered:
                self._on_delivered(post.delivered)
        if post.failed:
            self._refuse(post.failed)
        self._landed.difference_update(item.id for item in post.items)
        return Receipt(len(records) - post.unsent, 0, post.rejected)

    def partitions(self, within_s: float) -> int:
        """How many the topic has: asks the brokers and sends nothing. Raises Retry."""
        if self._producer is None:
            self._producer = self._made()
        self._heard.forget()
        try:
            listed = self._producer.list_topics(self._topic, timeout=within_s).topics[self._topic]
        except KafkaException as error:
            self._producer.poll(0)  # hears why
            found = self._trouble(error.args[0])
            raise Retry(found.reason, found.message) from None
        if listed.error is not None:
            found = self._trouble(listed.error)
            raise Retry(found.reason, found.message)
        return len(listed.partitions)

    def close(self) -> None:
        """Lets the connections go; the next post makes others."""
        self._producer = None

    def _made(self) -> Producer:
        self._heard.fatal = None
        with settings_taken(self._settings):
            return Producer(self._properties)

    def _send(self, producer: Producer, records: Sequence[bytes], post: _Post) -> None:
        """Hands over what does not stand in the topic yet. Raises Retry."""
        for number, (record, item) in enumerate(zip(records, post.items, strict=True)):
            if item.id in self._landed:
                continue
            if not item.id:
                post.reject(item, "no_id")
                continue
            key = "/".join((item.tenant or DEFAULT_TENANT, item.team, item.application)[: self._key_fields])
            report = functools.partial(post.report, number)
            try:
                self._produce(producer, record, key, report)
                post.sent += 1
            except KafkaException as error:
                found = self._trouble(error.args[0])
                if found.reason != TOO_LARGE:
                    raise self._given_up(Retry(found.reason, found.message)) from None
                post.reject(item, TOO_LARGE)

    def _produce(self, producer: Producer, record: bytes, key: str, report: _Report) -> None:
        """Raises KafkaException, or Retry where there is no room for it in time."""
        until = time.monotonic() + self._patience_s
        while True:
            try:
                producer.produce(self._topic, record, key, on_delivery=report, headers=HEADERS)
                return
            except BufferError:
                if time.monotonic() > until:
                    text = "librdkafka's queue is full and nothing leaves it"
                    raise self._given_up(Retry("queue_full", text)) from None
                producer.poll(0.1)

    def _await(self, producer: Producer, post: _Post) -> None:
        """Returns when all reports are in. Raises Retry where they do not come."""
        until = time.monotonic() + self._patience_s
        while post.reported < post.sent:
            # Unlike poll, it has librdkafka send at once what would linger.
            producer.flush(0.5)
            fatal = self._heard.fatal
            if fatal is not None:
                found = self._trouble(fatal)
                raise self._given_up(Retry(found.reason, found.message))
            if time.monotonic() > until:
                missing = post.sent - post.reported
                raise self._given_up(
                    Retry("no_report", f"{missing} messages have no delivery report in time")
                )

    def _given_up(self, error: Retry) -> Retry:
        """The producer with all that it still holds: the next post makes another."""
        if self._producer is not None:
            self._producer.purge()
            self._producer = None
        return error

    def _refuse(self, errors: Sequence[KafkaError]) -> None:
        """Raises what the sender makes of failed messages: Rejected only for what is theirs alone."""
        for error in errors:
            found = self._trouble(error)
            if found.reason != TOO_LARGE:
                raise Retry(found.reason, found.message)
        raise Rejected(TOO_LARGE, self._trouble(errors[0]).message)

    def _trouble(self, error: KafkaError) -> Trouble:
        return trouble(error, self._heard, brokers=self._settings.brokers, topic=self._topic)


_Report = Callable[[KafkaError | None, Message], None]


@dataclass(slots=True)
class _Post:
    """One batch on its way."""

    items: list[Item]
    sent: int = 0
    reported: int = 0
    unsent: int = 0
    delivered: list[Delivered] = field(default_factory=list)
    failed: list[KafkaError] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)

    def report(self, number: int, error: KafkaError | None, message: Message) -> None:
        """The delivery report of the item `number`."""
        self.reported += 1
        partition, offset = message.partition(), message.offset()
        if error is not None:
            self.failed.append(error)
        elif partition is None or offset is None or offset < 0:
            # librdkafka repeated it, and the broker no longer knows where the first one stands. It is sent
            # again, for what depends on the offset would wait for ever.
            self.failed.append(KafkaError(KafkaError._NO_OFFSET))
        else:
            self.delivered.append(Delivered(self.items[number].id, partition, offset))

    def reject(self, item: Item, reason: str) -> None:
        self.unsent += 1
        self.rejected[item.id] = reason
