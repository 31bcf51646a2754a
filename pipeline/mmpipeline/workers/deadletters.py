"""Puts messages aside that cannot be worked, so that those behind them go on: the dead letter topic.

A dead letter is the message as it was (value, headers) under the key `topic/partition/offset`, with headers
of ours that say where it stood, when it was written, what its key was and why it is here. It is delivered
before the position of its partition passes it. A crash between the two delivers it again; the key says
that it is the same, and whoever reads the topic counts it once.

The same topic remembers what was sent back: a letter with REPLAYED in its headers and no value, under the
key of the letter that it is about.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mmpipeline.workers.headers import Header, headers_of
from mmproto.kafka.topics import DEADLETTER

_log = logging.getLogger(__name__)

#: What our headers begin with.
PREFIX: Final = "deadletter-"
TOPIC: Final = PREFIX + "topic"
PARTITION: Final = PREFIX + "partition"
OFFSET: Final = PREFIX + "offset"
TIMESTAMP: Final = PREFIX + "timestamp-ms"
KEY: Final = PREFIX + "key"
REASON: Final = PREFIX + "reason"
#: How many bytes the value had, where it was too large to be kept here.
OMITTED: Final = PREFIX + "omitted-bytes"
REPLAYED: Final = PREFIX + "replayed-at-unix-ns"

DELIVERY_TIMEOUT_S = 30.0


class Undelivered(Exception):
    """Kafka did not take a message in time; nothing may be passed that depends on it."""


class DeadLetters:
    """Writes the topic. One thread's own."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._delivered: set[str] = set()
        self.put = 0

    def put_aside(self, letters: Sequence[tuple[Message, str]]) -> None:
        """Deliver each message with its reason, durable on return. Raises Undelivered.

        What was delivered before is not delivered again until `passed` is called.
        """
        fresh = [(message, reason) for message, reason in letters if key_of(message) not in self._delivered]
        failed: list[KafkaError] = []
        too_large: list[tuple[Message, str]] = []
        for message, reason in fresh:
            self._produce(message, reason, message.value(), failed, too_large)
        self._flush(failed)
        for message, reason in too_large:
            self._produce(message, reason, None, failed, [])
        self._flush(failed)
        self._delivered.update(key_of(message) for message, _ in fresh)
        self.put += len(fresh)
        for message, reason in fresh[:20]:
            _log.error("put aside as a dead letter: %s (%s)", key_of(message), reason)
        if len(fresh) > 20:
            _log.error("... and %d more", len(fresh) - 20)

    def passed(self) -> None:
        """The positions are behind all that was put aside."""
        self._delivered.clear()

    def _produce(
        self,
        message: Message,
        reason: str,
        value: bytes | None,
        failed: list[KafkaError],
        too_large: list[tuple[Message, str]],
    ) -> None:
        def done(error: KafkaError | None, _: Message) -> None:
            if error is None:
                return
            if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                too_large.append((message, reason))
            else:
                failed.append(error)

        headers = letter_headers(message, reason, omitted=value is None)
        try:
            self._producer.produce(
                DEADLETTER, value, key_of(message), on_delivery=done, headers=headers, partition=0
            )
        except BufferError as error:
            raise Undelivered("too many messages wait for Kafka") from error
        except KafkaException as error:
            done(error.args[0], message)

    def _flush(self, failed: Sequence[KafkaError]) -> None:
        if self._producer.flush(DELIVERY_TIMEOUT_S):
            self._producer.purge()
            self._producer.flush(1.0)
            raise Undelivered(f"{DEADLETTER} did not take a dead letter in {DELIVERY_TIMEOUT_S:.0f} s")
        if failed:
            raise Undelivered(f"{DEADLETTER} did not take a dead letter: {failed[0].str()}")


def key_of(message: Message) -> str:
    """Where a message stands, as the key of its dead letter."""
    return f"{message.topic()}/{message.partition()}/{message.offset()}"


def letter_headers(message: Message, reason: str, *, omitted: bool) -> list[Header]:
    """The message's own headers, and ours behind them."""
    headers = [(name, value) for name, value in headers_of(message) if not name.startswith(PREFIX)]
    headers += [
        (TOPIC, str(message.topic())),
        (PARTITION, str(message.partition())),
        (OFFSET, str(message.offset())),
        (TIMESTAMP, str(message.timestamp()[1])),
        (REASON, reason),
    ]
    if (key := message.key()) is not None:
        headers.append((KEY, key))
    if omitted and (value := message.value()) is not None:
        headers.append((OMITTED, str(len(value))))
    return headers
