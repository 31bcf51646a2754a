"""The warehouse: every call with its charge, and the roll-ups that reports and dashboards read.

One door for writing (`insert`, idempotent by token) and one method for each question. Questions about
sums read roll-ups only; only the two that show single calls read the raw table, and those along its key.
"""

# Statements are put together from names in closed tables; values are always bound (see queries).
# ruff: noqa: S608

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

from mmpipeline.config import Warehouse as WarehouseSettings
from mmpipeline.rating.rated import RatedCall
from mmpipeline.store.warehouse import queries as sql
from mmpipeline.store.warehouse.blocks import block_of, row_of_rated
from mmpipeline.store.warehouse.engine import Engine
from mmpipeline.store.warehouse.layouts import quoted
from mmpipeline.store.warehouse.migrations import ROLL_UP_TABLES, TENANT_TABLES, keep, migrate
from mmpipeline.store.warehouse.relations import RELATIONS, REPORTED
from mmpipeline.store.warehouse.schema import CALLS, OTHER_TOKENS, TOKEN_COLUMNS
from mmpipeline.store.warehouse.shapes import (
    CallCursor,
    CallPage,
    CostRow,
    Dimension,
    ErrorShare,
    Facets,
    Filters,
    ObserverSeen,
    QualityShare,
    Relation,
    ScopeField,
    Span,
    SpendRow,
    StoredCall,
    TableSize,
    Unanswerable,
    UnpricedShare,
)
from mmproto.v1.call_pb2 import Call

EMBEDDED: Final = WarehouseSettings()
EVERYTHING: Final = Filters()
_MOST_GROUPS: Final = 100_000
_MOST_FACETS: Final = 500
_TABLES: Final = frozenset(table.name for table in REPORTED)


class Warehouse:
    """The store of calls. Safe to use from any thread; one process a folder when embedded."""

    def __init__(self, engine: Engine, settings: WarehouseSettings) -> None:
        """Bring the schema of `engine` up to date. Raises WarehouseError."""
        self._engine = engine
        migrate(engine)
        engine.confine(TENANT_TABLES)
        keep(engine, settings.keep_days, settings.keep_days_by_tenant)

    @classmethod
    def open(cls, folder: Path, settings: WarehouseSettings = EMBEDDED) -> Self:
        """The warehouse that `settings` name; embedded in `folder` where they name no server.

        Raises WarehouseLocked (another process has the folder), WarehouseAway (the server), WarehouseTooNew,
        WarehouseFailed.
        """
        url = settings.url.reveal()
        engine = Engine.server(url, settings.cluster) if url else Engine.embedded(folder)
        try:
            return cls(engine, settings)
        except BaseException:
            engine.close()
            raise

    def close(self) -> None:
        """Close the engine; nothing may be asked or inserted afterwards. Idempotent."""
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def insert(self, rows: Sequence[RatedCall], token: str) -> None:
        """Append `rows`, durable on return. The same batch under the same `token` again changes nothing,
        in the raw table and in every roll-up, also where a crash came between them.

        Best given 5 to 10 thousand rows at a time. Raises WarehouseFailed; then repeat with the token.
        """
        if rows:
            self.insert_blocks([block_of([row_of_rated(row) for row in rows])], token)

    def insert_blocks(self, blocks: Sequence[bytes], token: str) -> None:
        """Append rows that are blocks already (see blocks), as `insert` does."""
        self._engine.insert("calls", b"".join(blocks), token)

    def spend(
        self,
        tenant: str,
        span: Span,
        group_by: Sequence[Dimension] = (),
        filters: Filters = EVERYTHING,
        *,
        largest_first: bool = False,
        after: Sequence[str] = (),
        limit: int = _MOST_GROUPS,
    ) -> list[SpendRow]:
        """What the calls of a span used and cost, by group.

        In the order of the groups' values, continued behind the values `after`; or with `largest_first`
        the most expensive first (`after` does not go with it). No dimension gives one row for all calls,
        or none where there are no calls. Raises Unanswerable.
        """
        if after and (largest_first or len(after) != len(group_by)):
            raise ValueError("`after` has one value for each dimension and goes with their order")
        statement, parameters = sql.spend(
            span,
            filters,
            group_by,
            sql.SPEND_MEASURES,
            largest_first=largest_first,
            after=after,
            limit=limit,
        )
        rows = self._engine.read(tenant, statement, parameters)
        cut = len(group_by)
        return [SpendRow(tuple(map(str, row[:cut])), *row[cut:]) for row in rows]

    def costs(
        self,
        tenant: str,
        span: Span,
        group_by: Sequence[Dimension],
        filters: Filters = EVERYTHING,
        *,
        largest_first: bool = False,
        limit: int = _MOST_GROUPS,
    ) -> list[CostRow]:
        """As `spend`, but only what the calls cost: a third of the work where nothing else is shown."""
        statement, parameters = sql.spend(
            span, filters, group_by, sql.COST_MEASURES, largest_first=largest_first, after=(), limit=limit
        )
        rows = self._engine.read(tenant, statement, parameters)
        cut = len(group_by)
        return [CostRow(tuple(map(str, row[:cut])), *row[cut:]) for row in rows]

    def total(self, tenant: str, span: Span, filters: Filters = EVERYTHING) -> SpendRow:
        """What all calls of a span used and cost; zeros where there were none."""
        rows = self.spend(tenant, span, (), filters)
        return rows[0] if rows else SpendRow((), 0, 0, 0, 0, 0.0, 0, 0, 0, 0, 0, 0)

    def cost(self, tenant: str, span: Span, filters: Filters = EVERYTHING) -> CostRow:
        """What all calls of a span cost; zeros where there were none."""
        rows = self.costs(tenant, span, (), filters)
        return rows[0] if rows else CostRow((), 0, 0, 0)

    def tokens(self, tenant: str, span: Span, filters: Filters = EVERYTHING) -> dict[str, int]:
        """Tokens by bucket, those above 0. Buckets this version has no name for count as `other`."""
        _not_by_user(filters)
        columns = (*TOKEN_COLUMNS, OTHER_TOKENS)
        conditions = sql.rolled_up(span, filters)
        sums = ", ".join(f"sum({name})" for name in columns)
        statement = f"SELECT {sums} FROM {sql.usage_table(span)} {conditions.where()}"
        counts = self._engine.read(tenant, statement, conditions.parameters)[0]
        return {name.removeprefix("tokens_"): n for name, n in zip(columns, counts, strict=True) if n}

    def qualities(self, tenant: str, span: Span, filters: Filters = EVERYTHING) -> list[QualityShare]:
        """Calls by the quality of their usage, most first."""
        rows = self._shares(tenant, span, filters, ("quality",), ("calls", "cost_nano_usd"))
        return [QualityShare(*row) for row in rows]

    def unpriced(self, tenant: str, span: Span, filters: Filters = EVERYTHING) -> list[UnpricedShare]:
        """Calls without a price by model and reason, most first."""
        keys = ("provider", "model", "unpriced_reason")
        return [UnpricedShare(*row) for row in self._shares(tenant, span, filters, keys, ("unpriced_calls",))]

    def errors(self, tenant: str, span: Span, filters: Filters = EVERYTHING) -> list[ErrorShare]:
        """Failed calls by provider and error, most first."""
        keys = ("provider", "error_type")
        return [ErrorShare(*row) for row in self._shares(tenant, span, filters, keys, ("errors",))]

    def observers(self, tenant: str) -> list[ObserverSeen]:
        """Every observer that ever reported a call of the tenant, by node."""
        rows = self._engine.read(
            tenant,
            "SELECT node, observer, sum(calls) AS n, toUnixTimestamp64Nano(max(last_call_at)) "
            "FROM observers WHERE tenant_id = {tenant:String} GROUP BY node, observer "
            "HAVING n != 0 ORDER BY node, observer",
            {},
        )
        return [ObserverSeen(*row) for row in rows]

    def facets(self, tenant: str, span: Span) -> Facets:
        """The values to filter by."""
        conditions = sql.rolled_up(span, EVERYTHING)
        columns = ("team", "application", "provider", "model")
        values = ", ".join(f"arraySort(groupUniqArray({_MOST_FACETS})({name}))" for name in columns)
        rows = self._engine.read(
            tenant,
            f"SELECT {values} FROM {sql.usage_table(span)} {conditions.where()}",
            conditions.parameters,
        )
        return Facets(*(tuple(column) for column in rows[0]))

    def calls(
        self,
        tenant: str,
        span: Span,
        filters: Filters = EVERYTHING,
        *,
        before: CallCursor | None = None,
        limit: int = 50,
    ) -> CallPage:
        """Calls that started within the span, latest first, from behind the cursor on."""
        reach = 2 * (limit + 1)
        while True:
            conditions = sql.raw(span, filters)
            if before is not None:
                sql.before(conditions, before)
            # Merging a whole month to show fifty calls would be slow: look how far down the key enough
            # rows lie, merge only those, and look further where too many of them took each other back.
            bottom = self._engine.read(tenant, *sql.depth(conditions, reach))
            if bottom:
                conditions.add(
                    "started_at >= fromUnixTimestamp64Nano({floor_ns:Int64}, 'UTC')", floor_ns=bottom[0][0]
                )
            rows = self._engine.read(tenant, *sql.latest(conditions, limit + 1))
            if not bottom or len(rows) > limit:
                break
            reach *= 4
        more = CallCursor(*rows[limit - 1][-2:]) if len(rows) > limit else None
        return CallPage(tuple(_stored(row) for row in rows[:limit]), more)

    def call(self, tenant: str, call_id: str) -> StoredCall | None:
        """One call by its id; None where the tenant has none."""
        rows = self._engine.read(
            tenant,
            f"SELECT {sql.STORED_CALL} FROM calls FINAL "
            "WHERE tenant_id = {tenant:String} AND id = {id:String} AND sign > 0 LIMIT 1",
            {"id": call_id},
        )
        return _stored(rows[0]) if rows else None

    def charged(
        self, tenant: str, from_unix_ns: int, to_unix_ns: int, scope: Mapping[ScopeField, str]
    ) -> int:
        """Nano-dollars of the calls that started in that time, to the nanosecond, in a budget's scope.

        Read from single calls: for checking other sums, not for pages. A scope of a model takes the requested
        and the answering name alike, as budgets do. Calls without a price count nothing.
        """
        statement, parameters = sql.charged(from_unix_ns, to_unix_ns, scope)
        return int(self._engine.read(tenant, statement, parameters)[0][0])

    def relation(
        self, tenant: str, name: str, from_unix_ns: int, to_unix_ns: int, limit: int = _MOST_GROUPS
    ) -> Relation:
        """Rows of one relation of the data model (see relations) in that time, earliest first.

        Raises ValueError where there is no relation of that name.
        """
        if name not in RELATIONS:
            raise ValueError(f"no relation {name!r}: there are {', '.join(RELATIONS)}")
        statement, parameters = sql.relation(name, name in _TABLES, from_unix_ns, to_unix_ns, limit)
        return Relation(RELATIONS[name], tuple(self._engine.read(tenant, statement, parameters)))

    def sizes(self) -> list[TableSize]:
        """Rows and bytes of each table with calls or sums of them; on a cluster of all replicas together."""
        layout = self._engine.layout
        names = {layout.local(name): name for name in (CALLS.name, *ROLL_UP_TABLES)}
        tables = ", ".join(map(quoted, names))
        rows = self._engine.read_meta(
            f"SELECT table, sum(rows), sum(bytes_on_disk) FROM {layout.parts} "
            f"WHERE active AND database = {quoted(layout.database)} AND table IN ({tables}) "
            "GROUP BY table ORDER BY table"
        )
        return [TableSize(names[table], *sizes) for table, *sizes in rows]

    def _shares(
        self, tenant: str, span: Span, filters: Filters, keys: tuple[str, ...], measures: tuple[str, ...]
    ) -> Sequence[tuple[Any, ...]]:
        """Sums of `measures` by `keys`, the largest of the first measure first, without its zeros."""
        _not_by_user(filters)
        conditions = sql.rolled_up(span, filters)
        sums = ", ".join(f"sum({name}) AS s_{name}" for name in measures)
        columns = ", ".join(keys)
        return self._engine.read(
            tenant,
            f"SELECT {columns}, {sums} FROM {sql.usage_table(span)} {conditions.where()} GROUP BY {columns} "
            f"HAVING s_{measures[0]} != 0 ORDER BY s_{measures[0]} DESC, {columns} LIMIT 1000",
            conditions.parameters,
        )


def _not_by_user(filters: Filters) -> None:
    if filters.user is not None:
        raise Unanswerable("buckets and data quality are not kept by user; `spend` knows a user's totals")


def _stored(row: tuple[Any, ...]) -> StoredCall:
    message, cost, reason, card = row[:4]
    return StoredCall(Call.FromString(message), cost, reason, card)
