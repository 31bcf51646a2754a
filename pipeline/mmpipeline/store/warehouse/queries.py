"""The statements of the warehouse's questions. Values are always bound, never written into the text.

Dimensions and measures come from closed tables here, so nothing that a caller says becomes SQL.
"""

# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mmpipeline.store.warehouse.relations import KEYS, RELATIONS
from mmpipeline.store.warehouse.schema import TOKEN_TOTALS, summed
from mmpipeline.store.warehouse.shapes import CallCursor, Dimension, Filters, ScopeField, Span, Unanswerable

_TIME_GROUPS: Final = {
    "hour": "formatDateTime(at, '%Y-%m-%dT%H:00:00Z')",
    "day": "toString(toDate(at))",
    "month": "formatDateTime(at, '%Y-%m')",
}

# In the order of CostRow, and of what SpendRow has besides.
COST_MEASURES: Final = ("calls", "unpriced_calls", "cost_nano_usd")
SPEND_MEASURES: Final = (*COST_MEASURES, "errors", "duration_s", "timed_calls", *TOKEN_TOTALS)


@dataclass(slots=True)
class Conditions:
    """A WHERE clause under construction with the values it binds."""

    clauses: list[str] = field(default_factory=lambda: ["tenant_id = {tenant:String}"])
    parameters: dict[str, Any] = field(default_factory=dict)

    def add(self, clause: str, **parameters: Any) -> None:
        self.clauses.append(clause)
        self.parameters.update(parameters)

    def where(self) -> str:
        return "WHERE " + " AND ".join(self.clauses)


def rolled_up(span: Span, filters: Filters) -> Conditions:
    """Conditions on a roll-up. Bounds beyond the 32-bit seconds of `at` are cut to them."""
    conditions = Conditions()
    conditions.add(
        "at >= toDateTime({from_s:UInt32}, 'UTC') AND at < toDateTime({to_s:UInt32}, 'UTC')",
        from_s=_seconds(span.from_unix_ns),
        to_s=_seconds(span.to_unix_ns),
    )
    _filter(conditions, filters)
    return conditions


def raw(span: Span, filters: Filters) -> Conditions:
    """Conditions on the raw table."""
    conditions = _within("started_at", span.from_unix_ns, span.to_unix_ns)
    _filter(conditions, filters)
    return conditions


def usage_table(span: Span) -> str:
    """The shorter of the two roll-ups of usage that has the grain of `span`."""
    return "usage_daily" if span.whole_days else "usage_hourly"


def spend_table(span: Span, dimensions: Sequence[Dimension], filters: Filters) -> str:
    """The shortest roll-up that can answer. Raises Unanswerable."""
    by_user = "user" in dimensions or filters.user is not None
    by_process = "node" in dimensions or "process" in dimensions
    if by_user and by_process:
        raise Unanswerable("spend is not kept by user and process (or node) together; ask for one of them")
    if (by_user or by_process) and ("hour" in dimensions or not span.whole_days):
        raise Unanswerable("spend by user, node or process is kept by the day; ask for whole days in UTC")
    if by_user:
        return "users_daily"
    if by_process:
        return "processes_daily"
    return "usage_hourly" if "hour" in dimensions else usage_table(span)


def spend(
    span: Span,
    filters: Filters,
    group_by: Sequence[Dimension],
    measures: Sequence[str],
    *,
    largest_first: bool,
    after: Sequence[str],
    limit: int,
) -> tuple[str, dict[str, Any]]:
    """Sums of `measures` by group: largest first, or in the order of the groups from behind `after` on.

    Raises Unanswerable.
    """
    conditions = rolled_up(span, filters)
    table = spend_table(span, group_by, filters)
    keys = [f"{_TIME_GROUPS.get(name, name)} AS g{index}" for index, name in enumerate(group_by)]
    names = [f"g{index}" for index in range(len(group_by))]
    # Summed under other names: an alias equal to a column would be taken for it inside the next sum.
    sums = [f"sum({_column(table, name)}) AS s_{name}" for name in measures]
    having = "s_calls != 0"
    parameters = dict(conditions.parameters)
    if after:
        row = ", ".join(f"{{after{index}:String}}" for index in range(len(after)))
        having += f" AND ({', '.join(f'toString({name})' for name in names)}) > ({row})"
        parameters |= {f"after{index}": value for index, value in enumerate(after)}
    order = ["s_cost_nano_usd DESC", "s_calls DESC", *names] if largest_first else names
    sql = (
        f"SELECT {', '.join(keys + sums)} FROM {table} {conditions.where()}"
        + (f" GROUP BY {', '.join(names)}" if names else "")
        + f" HAVING {having}"
        + (f" ORDER BY {', '.join(order)}" if names else "")
        + " LIMIT {limit:UInt32}"
    )
    return sql, parameters | {"limit": limit}


STORED_CALL: Final = "message, cost_nano_usd, unpriced_reason, rate_card"


def depth(conditions: Conditions, rows: int) -> tuple[str, dict[str, Any]]:
    """Start of the call `rows` rows down the raw table: read backwards along its key, without merging."""
    sql = (
        f"SELECT toUnixTimestamp64Nano(started_at) FROM calls {conditions.where()} "
        "ORDER BY started_at DESC, id DESC LIMIT 1 OFFSET {rows:UInt32}"
    )
    return sql, {**conditions.parameters, "rows": rows}


def latest(conditions: Conditions, limit: int) -> tuple[str, dict[str, Any]]:
    """Calls that stand, merged (FINAL), latest first; `conditions` should reach no deeper than needed."""
    sql = (
        f"SELECT {STORED_CALL}, toUnixTimestamp64Nano(started_at), id "
        f"FROM calls FINAL {conditions.where()} AND sign > 0 "
        "ORDER BY started_at DESC, id DESC LIMIT {limit:UInt32}"
    )
    return sql, {**conditions.parameters, "limit": limit}


def before(conditions: Conditions, cursor: CallCursor) -> None:
    """Leave only what stands behind `cursor` in the order latest first."""
    conditions.add(
        "(started_at, id) < (fromUnixTimestamp64Nano({at_ns:Int64}, 'UTC'), {at_id:String})",
        at_ns=cursor.started_at_unix_ns,
        at_id=cursor.id,
    )


def charged(
    from_unix_ns: int, to_unix_ns: int, scope: Mapping[ScopeField, str]
) -> tuple[str, dict[str, Any]]:
    """Nano-dollars of single calls in a time and a scope; rows that were taken back cancel in the sum."""
    conditions = _within("started_at", from_unix_ns, to_unix_ns)
    for name, value in scope.items():
        column = (
            f"{{s_{name}:String}} IN (model, request_model)"
            if name == "model"
            else f"{name} = {{s_{name}:String}}"
        )
        conditions.add(column, **{f"s_{name}": value})
    statement = f"SELECT sum(ifNull(cost_nano_usd, 0) * sign) FROM calls {conditions.where()}"
    return statement, conditions.parameters


def relation(
    name: str, merged: bool, from_unix_ns: int, to_unix_ns: int, limit: int
) -> tuple[str, dict[str, Any]]:
    """Rows of a relation; `merged` where it is a table whose rows may be there more than once."""
    conditions = _within("timestamp", from_unix_ns, to_unix_ns)
    statement = (
        f"SELECT {', '.join(RELATIONS[name])} FROM {name}{' FINAL' if merged else ''} {conditions.where()} "
        f"ORDER BY timestamp, {KEYS[name]} LIMIT {{limit:UInt32}}"
    )
    return statement, {**conditions.parameters, "limit": limit}


def _within(column: str, from_unix_ns: int, to_unix_ns: int) -> Conditions:
    conditions = Conditions()
    conditions.add(
        f"{column} >= fromUnixTimestamp64Nano({{from_ns:Int64}}, 'UTC') "
        f"AND {column} < fromUnixTimestamp64Nano({{to_ns:Int64}}, 'UTC')",
        from_ns=max(from_unix_ns, 0),
        to_ns=max(to_unix_ns, 0),
    )
    return conditions


def _column(table: str, measure: str) -> str:
    """A measure in a table: the roll-ups of usage have buckets where the others have totals."""
    buckets = TOKEN_TOTALS.get(measure)
    return measure if buckets is None or not table.startswith("usage") else summed(buckets)


def _filter(conditions: Conditions, filters: Filters) -> None:
    for column, value in filters.chosen().items():
        conditions.add(f"{column} = {{f_{column}:String}}", **{f"f_{column}": value})


def _seconds(unix_ns: int) -> int:
    return min(max(unix_ns // 1_000_000_000, 0), 2**32 - 1)
