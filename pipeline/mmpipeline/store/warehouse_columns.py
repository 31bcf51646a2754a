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

# As they are sent, not as they are kept: the engine makes dictionaries of repeated texts faster than we do.
COLUMN_TYPES: Final[dict[str, str]] = {
    "tenant_id": "String",
    "started_at": "DateTime64(9, 'UTC')",
    "id": "String",
    "sign": "Int8",
    "team": "String",
    "application": "String",
    "user": "String",
    "provider": "String",
    "model": "String",
    "node": "String",
    "process": "String",
    "observer": "String",
    "quality": "String",
    "error_type": "String",
    "duration_s": "Nullable(Float64)",
    "cost_nano_usd": "Nullable(Int64)",
    "unpriced_reason": "String",
    "rate_card": "String",
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
    usages = [call.usage for call in calls]
    tokens: dict[str, list[int]] = {}
    size = len(rows)
    for index, usage in enumerate(usages):
        reported = usage.tokens
        # By key: the mapping's own `items` is Python code that costs more than all other columns.
        for bucket in reported:
            column = _BUCKET_COLUMNS.get(bucket, OTHER_TOKENS)
            if column not in tokens:
                tokens[column] = [0] * size
            tokens[column][index] += reported[bucket]
    nothing = [0] * size
    return [
        [call.tenant for call in calls],
        [at if 0 <= (at := call.started_at_unix_ns) <= _LATEST_NS else _nearest(at) for call in calls],
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
        [QUALITIES.get(usage.quality, "UNKNOWN") for usage in usages],
        [call.error_type for call in calls],
        [call.duration_s if call.HasField("duration_s") else None for call in calls],
        [row.cost_nano_usd for row in rows],
        [row.unpriced_reason for row in rows],
        [row.rate_card for row in rows],
        *(tokens.get(column, nothing) for column in TOKEN_COLUMNS),
        tokens.get(OTHER_TOKENS, nothing),
        [call.SerializeToString() for call in calls],
    ]


def _nearest(unix_ns: int) -> int:
    return 0 if unix_ns < 0 else _LATEST_NS
