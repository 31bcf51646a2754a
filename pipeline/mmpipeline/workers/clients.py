"""How workers talk to Kafka: librdkafka's settings, what is ours of them and what the configuration may say.

What `kafka.properties` says wins over our defaults; what the guarantees rest on wins over both
(`KafkaSettings` refuses those names in the first place).
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from confluent_kafka import KafkaError

from mmproto.kafka.connection import connection_properties
from mmproto.kafka.settings import KafkaSettings

# Of one message: a sealed batch of rated rows is up to 4 MiB, and its topic takes 8.
MAX_MESSAGE_BYTES = 8 << 20

# How long a worker that is gone keeps its partitions from the others, and how often it says that it is not.
_SESSION_MS = 15_000
_HEARTBEAT_MS = 1_000

# How long a worker may be busy with one batch before the group takes it for stuck.
MAX_POLL_MS = 300_000

OnError = Callable[[KafkaError], None]


def client_properties(settings: KafkaSettings, on_error: OnError | None = None) -> dict[str, Any]:
    """What every client of ours is made with."""
    properties = connection_properties(settings, f"mmpipeline-{socket.gethostname()}")
    return properties if on_error is None else properties | {"error_cb": on_error}


def consumer_properties(settings: KafkaSettings, group: str, on_error: OnError) -> dict[str, Any]:
    """A member of `group` whose offsets are set and stored by hand."""
    defaults = {
        "session.timeout.ms": _SESSION_MS,
        "heartbeat.interval.ms": _HEARTBEAT_MS,
        "max.poll.interval.ms": MAX_POLL_MS,
        # After the local queue was full: do not sleep a second before more is fetched.
        "fetch.queue.backoff.ms": 20,
    }
    ours = {
        "group.id": group,
        "partition.assignment.strategy": "cooperative-sticky",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        # A position that the broker does not have is for us to judge, never to jump over.
        "auto.offset.reset": "error",
    }
    return defaults | client_properties(settings, on_error) | ours


def producer_properties(settings: KafkaSettings, on_error: OnError) -> dict[str, Any]:
    """A producer whose messages stand in the topic once each and in order."""
    defaults = {"compression.type": "zstd", "linger.ms": 5, "message.max.bytes": MAX_MESSAGE_BYTES}
    ours = {"enable.idempotence": True, "acks": "all"}
    return defaults | client_properties(settings, on_error) | ours
