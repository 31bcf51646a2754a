"""The `kafka` section that the configurations of all three products share.

`properties` go to librdkafka as they are written, under its own names
(https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md): TLS and SASL among them. What
ModelMeter's guarantees rest on (acks, idempotence, offsets) is not theirs to change: `ConfigurationError`
by `ValueError` where they try.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mmproto.settings import Secret, setting

#: What properties may not set, since the guarantees rest on it.
RESERVED = frozenset(
    {
        "acks",
        "request.required.acks",
        "enable.idempotence",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "auto.offset.reset",
        "partition.assignment.strategy",
        "isolation.level",
        "group.id",
        "transactional.id",
        # These are `kafka.brokers`.
        "bootstrap.servers",
        "metadata.broker.list",
    }
)


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """How to reach Kafka. Empty `brokers`: not at all."""

    brokers: str = setting("", about="host:port of one or more brokers, with commas; empty: no Kafka")
    key_by: Literal["tenant", "team", "application"] = setting(
        "tenant",
        about="what of a call keeps it on one partition: its tenant, or more finely team, application",
    )
    properties: Mapping[str, Secret] = setting(
        factory=dict, about="further settings of librdkafka by its own names, TLS and SASL among them"
    )

    def __post_init__(self) -> None:
        if self.brokers:
            check_brokers(self.brokers)
        for name in self.properties:
            if name in RESERVED:
                raise ValueError(f"kafka.properties: '{name}' is ModelMeter's own and cannot be set")


def check_brokers(brokers: str) -> None:
    """Raises ValueError where `brokers` is no list of host:port."""
    for broker in brokers.split(","):
        host, _, port = broker.strip().rpartition(":")
        if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536 or "/" in host:
            raise ValueError(f"brokers: host:port is expected, more of them with commas, found '{broker}'")
