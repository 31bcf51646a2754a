"""Tables of the warehouse and the numbered steps that make them.

Raw calls live in a CollapsingMergeTree: a row of sign -1 takes an earlier row back, so history is never
edited and every sum over `value * sign` is right before and after the engine has merged the pair. The
whole contract message is kept beside the columns (`message`, without content by contract), so a call can
be shown exactly as it was reported, absent fields included, and later steps can fill new columns from it;
the columns are what filters and roll-ups need, and their 0 means "nothing to add", not "reported as 0".

Dashboards read only roll-ups. They are filled by materialized views into explicit target tables:
explicit, because a target needs its own `non_replicated_deduplication_window` for a re-sent batch to be
recognised there as well. Each is as short as its questions allow, since what a page costs is rows read:

- `usage_hourly`     who (team, application) spent what on which model, in what quality, by the hour
- `usage_daily`      the same by the day: a twentieth of the rows, and what nearly every chart needs
- `users_daily`      by user, whose number grows with the company
- `processes_daily`  by node and process; apart from users, because together they would multiply
- `observers`        which node's sensor or router was last heard of, and when

The same statements run on a ClickHouse server; there a later step swaps the engines for their Replicated
siblings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from mmproto.usage import (
    CACHE_READ_BUCKETS,
    CACHE_WRITE_BUCKETS,
    INPUT_BUCKETS,
    OUTPUT_BUCKETS,
    REASONING_BUCKETS,
)

TOKEN_COLUMNS: Final = tuple(f"tokens_{name}" for name in INPUT_BUCKETS + OUTPUT_BUCKETS)
# Buckets that a newer sensor reports and this version has no column for: counted, not dropped.
OTHER_TOKENS: Final = "tokens_other"

_SUMMED_TOKENS: Final = (*TOKEN_COLUMNS, OTHER_TOKENS)

# Every table with a tenant's rows: each query is confined to one tenant on all of them.
TENANT_TABLES: Final = (
    "calls",
    "usage_hourly",
    "usage_daily",
    "users_daily",
    "processes_daily",
    "observers",
)

# Batches remembered for recognising a re-sent one. The writer re-sends only the batch that a crash
# interrupted; a thousand leaves room for several writers and for manual repair.
_DEDUPLICATION_WINDOW: Final = 1000

# A batch is durable when `insert` returns, also if the machine loses power a moment later.
_DURABLE: Final = (
    f"non_replicated_deduplication_window = {_DEDUPLICATION_WINDOW}, "
    "fsync_after_insert = 1, fsync_part_directory = 1"
)

_TEXT: Final = "LowCardinality(String)"


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered step; applied once, in order, and never changed after it was released."""

    version: int
    statements: tuple[str, ...]


def _lines(*lines: str) -> str:
    return ",\n    ".join(lines)


def _raw_calls() -> str:
    columns = _lines(
        f"tenant_id {_TEXT}",
        "started_at DateTime64(9, 'UTC') CODEC(Delta(8), ZSTD(1))",
        "id String CODEC(ZSTD(1))",
        "sign Int8",
        *(f"{name} {_TEXT}" for name in ("team", "application", "user", "provider", "model")),
        *(f"{name} {_TEXT}" for name in ("node", "process", "observer", "quality", "error_type")),
        "duration_s Nullable(Float64)",
        "cost_nano_usd Nullable(Int64)",
        f"unpriced_reason {_TEXT}",
        f"rate_card {_TEXT}",
        *(f"{name} Int64 CODEC(ZSTD(1))" for name in _SUMMED_TOKENS),
        "message String CODEC(ZSTD(3))",
        "INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 1",
    )
    return (
        f"CREATE TABLE IF NOT EXISTS calls (\n    {columns}\n)\n"
        "ENGINE = CollapsingMergeTree(sign)\n"
        "PARTITION BY toYYYYMM(started_at)\n"
        "ORDER BY (tenant_id, started_at, id)\n"
        # Single calls are read a few at a time: small granules keep what is unpacked for them small.
        f"SETTINGS {_DURABLE}, index_granularity = 1024"
    )


def summed(buckets: tuple[str, ...], prefix: str = "") -> str:
    """The expression that adds up those bucket columns of a row."""
    return " + ".join(f"{prefix}tokens_{name}" for name in buckets)


# The totals that people ask for, as sums over disjoint buckets.
TOKEN_TOTALS: Final = {
    "input_tokens": INPUT_BUCKETS,
    "cache_read_input_tokens": CACHE_READ_BUCKETS,
    "cache_write_input_tokens": CACHE_WRITE_BUCKETS,
    "output_tokens": OUTPUT_BUCKETS,
    "reasoning_output_tokens": REASONING_BUCKETS,
}

# What both roll-ups of spend add up: name and the expression over raw rows (qualified, since the sums take
# the names of the columns that they add up).
_MEASURES: Final = {
    "calls": "sum(toInt64(sign))",
    "unpriced_calls": "sum(if(isNull(raw.cost_nano_usd), sign, 0))",
    "errors": "sum(if(raw.error_type != '', sign, 0))",
    "cost_nano_usd": "sum(ifNull(raw.cost_nano_usd, 0) * sign)",
    "duration_s": "sum(ifNull(raw.duration_s, 0) * sign)",
    "timed_calls": "sum(if(isNull(raw.duration_s), 0, sign))",
}
_USAGE_KEY: Final = ("team", "application", "provider", "model", "quality", "unpriced_reason", "error_type")
_USAGE_MEASURES: Final = _MEASURES | {name: f"sum(raw.{name} * sign)" for name in _SUMMED_TOKENS}

# The longest roll-ups: totals instead of buckets halve what they cost.
_USERS_KEY: Final = ("team", "application", "user", "provider", "model")
_PROCESSES_KEY: Final = ("team", "application", "node", "process", "provider", "model")
_CALLERS_MEASURES: Final = _MEASURES | {
    name: f"sum(({summed(buckets, 'raw.')}) * sign)" for name, buckets in TOKEN_TOTALS.items()
}


def _roll_up(table: str, start: str, key: tuple[str, ...], measured: dict[str, str]) -> tuple[str, str]:
    """Target table and materialized view of one roll-up; `start` is the function that gives `at`."""
    columns = _lines(
        f"tenant_id {_TEXT}",
        "at DateTime('UTC') CODEC(Delta(4), ZSTD(1))",
        *(f"{name} {_TEXT}" for name in key),
        *(
            f"{name} SimpleAggregateFunction(sum, {'Float64' if name == 'duration_s' else 'Int64'})"
            for name in measured
        ),
    )
    dimensions = ", ".join(("tenant_id", "at", *key))
    target = (
        f"CREATE TABLE IF NOT EXISTS {table} (\n    {columns}\n)\n"
        "ENGINE = AggregatingMergeTree\n"
        "PARTITION BY toYYYYMM(at)\n"
        f"ORDER BY ({dimensions})\n"
        f"SETTINGS {_DURABLE}"
    )
    measures = _lines(*(f"{expression} AS {name}" for name, expression in measured.items()))
    view = (
        f"CREATE MATERIALIZED VIEW IF NOT EXISTS {table}_view TO {table} AS\n"
        f"SELECT tenant_id, {start}(started_at) AS at, {', '.join(key)},\n    {measures}\n"
        f"FROM calls AS raw GROUP BY {dimensions}"
    )
    return target, view


def _observers() -> tuple[str, str]:
    target = (
        "CREATE TABLE IF NOT EXISTS observers (\n    "
        + _lines(
            f"tenant_id {_TEXT}",
            f"node {_TEXT}",
            f"observer {_TEXT}",
            "calls SimpleAggregateFunction(sum, Int64)",
            "last_call_at SimpleAggregateFunction(max, DateTime64(9, 'UTC'))",
        )
        + "\n)\nENGINE = AggregatingMergeTree\nORDER BY (tenant_id, node, observer)\n"
        + f"SETTINGS {_DURABLE}"
    )
    view = (
        "CREATE MATERIALIZED VIEW IF NOT EXISTS observers_view TO observers AS\n"
        "SELECT tenant_id, node, observer, sum(toInt64(sign)) AS calls, max(started_at) AS last_call_at\n"
        "FROM calls GROUP BY tenant_id, node, observer"
    )
    return target, view


MIGRATIONS: Final = (
    Migration(
        1,
        (
            _raw_calls(),
            *_roll_up("usage_hourly", "toStartOfHour", _USAGE_KEY, _USAGE_MEASURES),
            *_roll_up("usage_daily", "toStartOfDay", _USAGE_KEY, _USAGE_MEASURES),
            *_roll_up("users_daily", "toStartOfDay", _USERS_KEY, _CALLERS_MEASURES),
            *_roll_up("processes_daily", "toStartOfDay", _PROCESSES_KEY, _CALLERS_MEASURES),
            *_observers(),
        ),
    ),
)

VERSIONS_TABLE: Final = (
    "CREATE TABLE IF NOT EXISTS schema_versions (version UInt32, applied_at DateTime('UTC')) "
    "ENGINE = MergeTree ORDER BY version"
)
