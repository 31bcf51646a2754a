"""Rows of the ledger turned into the columns of the raw table.

The insert path is the pipeline's hot path, so it is column-oriented: one pass over the rows a column, no
dict a row, and a column of zeros is shared by every bucket that no call of the batch reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from mmpipeline.rating.rated import RatedCall
from mmpipeline.store.schema import OTHER_TOKENS, TOKEN_COLUMNS
from mmproto.v1.call_pb2 import Observer
from mmproto.v1.usage_pb2 import Quality

COLUMN_TYPES: Final[dict[str, str]] = {
    "tenant_id": "LowCardinality(String)",
    "started_at": "DateTime64(9, 'UTC')",
    "id": "String",
    "sign": "Int8",
    "team": "LowCardinality(String)",
    "application": "LowCardinality(String)",
    "user": "LowCardinality(String)",
    "provider": "LowCardinality(String)",
    "model": "LowCardinality(String)",
    "node": "LowCardinality(String)",
    "process": "LowCardinality(String)",
    "observer": "LowCardinality(String)",
    "quality": "LowCardinality(String)",
    "error_type": "LowCardinality(String)",
    "duration_s": "Nullable(Float64)",
    "cost_nano_usd": "Nullable(Int64)",
    "unpriced_reason": "LowCardinality(String)",
    "rate_card": "LowCardinality(String)",
    **dict.fromkeys((*TOKEN_COLUMNS, OTHER_TOKENS), "Int64"),
    "message": "String",
}

OBSERVERS: Final = {n: Observer.Name(n).removeprefix("OBSERVER_").lower() for n in Observer.values()}
QUALITIES: Final = {n: Quality.Name(n).removeprefix("QUALITY_") for n in Quality.values()}

_TOKEN_PREFIX: Final = len("tokens_")
_BUCKET_COLUMNS: Final = {name[_TOKEN_PREFIX:]: name for name in TOKEN_COLUMNS}
_NS: Final = 1_000_000_000
# Hours are 32-bit seconds in the roll-ups: a time outside of them would wrap to another year.
_LATEST_NS: Final = (2**32 - 1) * _NS


def columns_of(rows: Sequence[RatedCall]) -> list[Sequence[Any]]:
    """The columns of `rows`, in the order of COLUMN_TYPES.

    A start time that the roll-ups cannot hold (before 1970, after 2106) counts in the nearest hour that
    they can; the message beside it keeps what was reported.
    """
    calls = [row.call for row in rows]
    tokens: dict[str, list[int]] = {}
    size = len(rows)
    for index, call in enumerate(calls):
        reported = call.usage.tokens
        # By key: the mapping's own `items` is Python code that costs more than all other columns.
        for bucket in reported:
            column = _BUCKET_COLUMNS.get(bucket, OTHER_TOKENS)
            if column not in tokens:
                tokens[column] = [0] * size
            tokens[column][index] += reported[bucket]
    nothing = [0] * size
    return [
        [call.tenant for call in calls],
        [min(max(call.started_at_unix_ns, 0), _LATEST_NS) for call in calls],
        [call.id for call in calls],
        [row.sign for row in rows],
        [call.team for call in calls],
        [call.application for call in calls],
        [call.user for call in calls],
        [call.provider for call in calls],
        # The model that served the call is what was paid for; the requested one may be an alias.
        [call.response_model or call.request_model for call in calls],
        [call.node for call in calls],
        [call.process.command for call in calls],
        [OBSERVERS.get(call.observer, "unspecified") for call in calls],
        [QUALITIES.get(call.usage.quality, "UNKNOWN") for call in calls],
        [call.error_type for call in calls],
        [call.duration_s if call.HasField("duration_s") else None for call in calls],
        [row.cost_nano_usd for row in rows],
        [row.unpriced_reason for row in rows],
        [row.rate_card for row in rows],
        *(tokens.get(column, nothing) for column in TOKEN_COLUMNS),
        tokens.get(OTHER_TOKENS, nothing),
        [call.SerializeToString() for call in calls],
    ]
