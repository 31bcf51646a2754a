"""Tables of the warehouse, in any layout.

Raw calls live in a VersionedCollapsingMergeTree: a row of sign -1 takes another row back, so history is never
edited and every sum over `value * sign` is right before and after the engine has merged the pair. Which row
it takes back is said by `version`, a digest of all that a charge says: the reports of one call come over
different partitions, so the row that takes a charge back may be here before that charge is.

The whole contract message is kept beside the columns (`message`, without content by contract), so a call can
be shown exactly as it was reported, absent fields included, and later steps can fill new columns from it;
the columns are what filters, roll-ups and relations need, and a 0 in a bucket means "nothing to add", not
"reported as 0": `reported` says which sides of the usage were reported at all.

Dashboards read only roll-ups. They are filled by materialized views into explicit target tables:
explicit, because a target needs its own window of tokens for a re-sent batch to be recognised there as well.
Each is as short as its questions allow, since what a page costs is rows read:

- `usage_hourly`     who (team, application) spent what on which model, in what quality, by the hour
- `usage_daily`      the same by the day: a twentieth of the rows, and what nearly every chart needs
- `users_daily`      by user, whose number grows with the company
- `processes_daily`  by node and process; apart from users, because together they would multiply
- `observers`        which node's sensor or router was last heard of, and when

`relations` has the names and columns under which the product's data model is documented.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from mmpipeline.store.warehouse.layouts import Kind, Layout
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

# The bits of `reported`.
INPUT_REPORTED: Final = 1
OUTPUT_REPORTED: Final = 2

_SUMMED_TOKENS: Final = (*TOKEN_COLUMNS, OTHER_TOKENS)

TEXT: Final = "LowCardinality(String)"

Columns = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Table:
    """One table with tenants' rows. `codecs` are by column; `extra` are indexes.

    `sharded_by` is what decides where an inserted row lies on a cluster; "" where only views write.
    """

    name: str
    columns: Columns
    kind: Kind
    order: Sequence[str]
    partition: str = ""
    codecs: tuple[tuple[str, str], ...] = ()
    extra: tuple[str, ...] = ()
    settings: str = ""
    sharded_by: str = ""

    def statements(self, layout: Layout) -> tuple[str, ...]:
        """What makes it: the table with the rows and, on a cluster, the one over all shards."""
        codecs = dict(self.codecs)
        columns = [
            f"{name} {kind}" + (f" CODEC({codecs[name]})" if name in codecs else "")
            for name, kind in self.columns
        ]
        stored = (
            f"CREATE TABLE IF NOT EXISTS {layout.local(self.name)}{layout.everywhere} (\n"
            f"    {_lines(*columns, *self.extra)}\n)\n"
            f"ENGINE = {layout.engines[self.kind]}\n"
            + (f"PARTITION BY {self.partition}\n" if self.partition else "")
            + f"ORDER BY ({', '.join(self.order)})\n"
            + f"SETTINGS {layout.table_settings}{self.settings}"
        )
        if not layout.cluster:
            return (stored,)
        over = (
            f"CREATE TABLE IF NOT EXISTS {self.name}{layout.everywhere} (\n"
            f"    {_lines(*(f'{name} {kind}' for name, kind in self.columns))}\n)\n"
            f"ENGINE = {layout.distributed(self.name, self.sharded_by)}"
        )
        return (stored, over)


def _lines(*lines: str) -> str:
    return ",\n    ".join(lines)


_CHARGED: Final[Columns] = (
    *((name, TEXT) for name in ("team", "application", "user", "provider", "model", "request_model")),
    *((name, TEXT) for name in ("operation", "virtual_key", "node", "process", "observer", "quality")),
    ("error_type", TEXT),
    ("session", "String"),
    ("streaming", "Bool"),
    ("duration_s", "Nullable(Float64)"),
    ("first_token_s", "Nullable(Float64)"),
    ("cost_nano_usd", "Nullable(Int64)"),
    ("unpriced_reason", TEXT),
    ("rate_card", TEXT),
    ("reported", "UInt8"),
    *((name, "Int64") for name in _SUMMED_TOKENS),
)
# Not of `message`: the bytes of a message are not the same whenever it is serialized. The digest of an absent
# value would be absent. 32 bits tell the few charges of one call apart. A column that is added later stays
# out of it: the row that takes a charge back may know a value that the charge's own row never had.
_VERSION: Final = ", ".join(
    f"isNull({name}), ifNull({name}, 0)" if kind.startswith("Nullable") else name for name, kind in _CHARGED
)

CALLS: Final = Table(
    "calls",
    (
        ("tenant_id", TEXT),
        ("started_at", "DateTime64(9, 'UTC')"),
        ("id", "String"),
        ("sign", "Int8"),
        *_CHARGED,
        ("message", "String"),
        ("version", f"UInt32 MATERIALIZED toUInt32(cityHash64({_VERSION}))"),
    ),
    "collapsing",
    ("tenant_id", "started_at", "id"),
    partition="toYYYYMM(started_at)",
    codecs=(
        ("started_at", "Delta(8), ZSTD(1)"),
        ("id", "ZSTD(1)"),
        ("session", "ZSTD(1)"),
        *((name, "ZSTD(1)") for name in _SUMMED_TOKENS),
        ("message", "ZSTD(3)"),
    ),
    extra=("INDEX by_id id TYPE bloom_filter(0.01) GRANULARITY 1",),
    # Single calls are read a few at a time: small granules keep what is unpacked for them small.
    settings=", index_granularity = 1024",
    sharded_by="cityHash64(id)",
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


@dataclass(frozen=True, slots=True)
class RollUp:
    """A table with the query over raw calls that fills it, as calls are inserted."""

    table: Table
    select: str
    group_by: tuple[str, ...]

    def statements(self, layout: Layout) -> tuple[str, ...]:
        """The target, the view that fills it on each shard from that shard's calls."""
        view = (
            f"CREATE MATERIALIZED VIEW IF NOT EXISTS {self.table.name}_view{layout.everywhere} "
            f"TO {layout.local(self.table.name)} AS\n"
            f"SELECT {self.select}\n"
            f"FROM {layout.local(CALLS.name)} AS raw GROUP BY {', '.join(self.group_by)}"
        )
        stored, *over = self.table.statements(layout)
        return (stored, view, *over)


def _roll_up(table: str, start: str, key: tuple[str, ...], measured: dict[str, str]) -> RollUp:
    """`start` is the function that gives `at`."""
    columns = (
        ("tenant_id", TEXT),
        ("at", "DateTime('UTC')"),
        *((name, TEXT) for name in key),
        *(
            (name, f"SimpleAggregateFunction(sum, {'Float64' if name == 'duration_s' else 'Int64'})")
            for name in measured
        ),
    )
    dimensions = ("tenant_id", "at", *key)
    measures = _lines(*(f"{expression} AS {name}" for name, expression in measured.items()))
    return RollUp(
        Table(
            table,
            columns,
            "aggregating",
            dimensions,
            partition="toYYYYMM(at)",
            codecs=(("at", "Delta(4), ZSTD(1)"),),
        ),
        f"tenant_id, {start}(started_at) AS at, {', '.join(key)},\n    {measures}",
        dimensions,
    )


ROLL_UPS: Final = (
    _roll_up("usage_hourly", "toStartOfHour", _USAGE_KEY, _USAGE_MEASURES),
    _roll_up("usage_daily", "toStartOfDay", _USAGE_KEY, _USAGE_MEASURES),
    _roll_up("users_daily", "toStartOfDay", _USERS_KEY, _CALLERS_MEASURES),
    _roll_up("processes_daily", "toStartOfDay", _PROCESSES_KEY, _CALLERS_MEASURES),
    RollUp(
        Table(
            "observers",
            (
                ("tenant_id", TEXT),
                ("node", TEXT),
                ("observer", TEXT),
                ("calls", "SimpleAggregateFunction(sum, Int64)"),
                ("last_call_at", "SimpleAggregateFunction(max, DateTime64(9, 'UTC'))"),
            ),
            "aggregating",
            ("tenant_id", "node", "observer"),
        ),
        "tenant_id, node, observer, sum(toInt64(sign)) AS calls, max(started_at) AS last_call_at",
        ("tenant_id", "node", "observer"),
    ),
)
