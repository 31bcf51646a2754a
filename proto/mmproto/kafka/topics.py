"""The topics of ModelMeter: what is in them, by what they are keyed, how long they keep it.

modelmeter.calls.v1       IngestBatch of one item   key: whose budget      sensors and routers ▸ workers
modelmeter.rated.v1       block of rated rows       partition as its calls workers ▸ warehouse sinks
modelmeter.actions.v1     BudgetStates              key: tenant, compacted workers ▸ routers
modelmeter.rates.v1       rate book of a provider   key: provider, compacted  workers ▸ routers
modelmeter.deadletter.v1  what could not be read    key: where it came from   workers ▸ people
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

_DAY_MS: Final = 24 * 3600 * 1000


@dataclass(frozen=True, slots=True)
class Topic:
    """`partitioned`: it has as many partitions as the installation scales to; the others have one.

    `settings` are the broker's own names (https://kafka.apache.org/documentation/#topicconfigs).
    """

    name: str
    partitioned: bool
    settings: Mapping[str, str] = field(default_factory=dict)


CALLS: Final = "modelmeter.calls.v1"
RATED: Final = "modelmeter.rated.v1"
ACTIONS: Final = "modelmeter.actions.v1"
RATES: Final = "modelmeter.rates.v1"
DEADLETTER: Final = "modelmeter.deadletter.v1"

TOPICS: Final = (
    Topic(CALLS, True, {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS)}),
    Topic(
        RATED,
        True,
        {"cleanup.policy": "delete", "retention.ms": str(7 * _DAY_MS), "max.message.bytes": str(8 << 20)},
    ),
    Topic(ACTIONS, False, {"cleanup.policy": "compact", "max.message.bytes": str(8 << 20)}),
    Topic(RATES, False, {"cleanup.policy": "compact", "max.message.bytes": str(8 << 20)}),
    # Whatever was too much for a worker must fit in here.
    Topic(
        DEADLETTER,
        False,
        {"cleanup.policy": "delete", "retention.ms": str(30 * _DAY_MS), "max.message.bytes": str(8 << 20)},
    ),
)

#: Header names of every message.
CONTENT_TYPE_HEADER: Final = "content-type"
SCHEMA_HEADER: Final = "schema"
SCHEMA_VERSION_HEADER: Final = "schema-version"
#: Of a state on ACTIONS: the moment it holds for, unix nanoseconds in decimal, by the store's clock.
AS_OF_HEADER: Final = "as-of"
#: Of a book on RATES: its version.
VERSION_HEADER: Final = "version"
