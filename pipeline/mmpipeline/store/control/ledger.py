"""Which calls are charged, and every charge: what one ingest transaction writes, and its sums.

`call_ids` says which charge of a call holds now; `charges` is appended and never changed. A call is filed
under the day on which its first report says that it started, and stays there: all its charges have that
`day`, whatever a later report says.

Of several processes that charge at once on PostgreSQL each call is claimed by one: its id goes in before its
charge, and whoever comes second waits for the first and then sees what it wrote. Reports of one call can
stand on both sides of midnight; so an id within an hour of it is claimed in both days, in the other one by
a row that only marks it (`seq` 0).

Functions take the connection of a running transaction.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, func, select, text

from mmpipeline.store.control import bulk, tables
from mmpipeline.store.control.tables import call_ids, charges, meta, routing_decisions

DAY_NS = 86_400_000_000_000
_HOUR_NS = 3_600_000_000_000

# meta: calls of this day and of those before are not known any more.
IDS_HORIZON = "ids_from_day"
# Numbers that one step of PostgreSQL's sequence reserves.
_SEQ_BLOCK = 1_000
# Charges of one look-up.
_AT_ONCE = 1_000


class Held(NamedTuple):
    """A call that is charged: `seq` is the charge that holds, `day` where both are filed."""

    id: bytes
    day: int
    tenant_id: str
    observer: int
    quality: int
    seq: int


class Charge(NamedTuple):
    """One row of `charges`, in the order of its columns."""

    seq: int
    day: int
    id: bytes
    tenant_id: str
    sign: int
    started_at_unix_ns: int
    charged_at_unix_ns: int
    cost_nano_usd: int | None
    unpriced_reason: str
    rate_card: str
    team: str
    application: str
    user: str
    provider: str
    request_model: str
    response_model: str
    virtual_key_id: str
    call: bytes


_HELD = ", ".join(Held._fields)
_KNOWN = f"SELECT {_HELD} FROM call_ids WHERE id"  # noqa: S608 - of our own names
_REPLACE = (
    "ON CONFLICT (id, day) DO UPDATE SET tenant_id = excluded.tenant_id, observer = excluded.observer, "
    "quality = excluded.quality, seq = excluded.seq"
)


def horizon(connection: Connection) -> int:
    """The newest day whose calls are not known any more."""
    value = connection.execute(select(meta.c.value).where(meta.c.key == IDS_HORIZON)).scalar()
    return 0 if value is None else int(value)


def make_days(connection: Connection, days: Iterable[int]) -> None:
    """Make room for calls of `days`, in a transaction of its own: others wait for it."""
    if bulk.is_postgresql(connection):
        connection.execute(text("SELECT modelmeter_make_days(:days)"), {"days": sorted(days)})


def claimed_days(started_at_unix_ns: int) -> tuple[int, ...]:
    """The day of a call, and the neighbour's where it is within an hour of midnight."""
    day, since = divmod(started_at_unix_ns, DAY_NS)
    if since < _HOUR_NS:
        return day, day - 1
    return (day, day + 1) if since >= DAY_NS - _HOUR_NS else (day,)


def known(connection: Connection, ids: Sequence[bytes], days: tuple[int, int] | None) -> dict[bytes, Held]:
    """Which of `ids` are charged, as filed in `days` (first and last) or, with None, ever."""
    if days is None or not bulk.is_postgresql(connection):  # SQLite's key begins with the id
        rows = bulk.by_ids(connection, _KNOWN, ids, "AND seq > 0")
    else:
        rows = bulk.by_ids(connection, _KNOWN, ids, "AND seq > 0 AND day BETWEEN ? AND ?", *days)
    return {row[0]: Held._make(row) for row in rows}


def lock(connection: Connection, held: Iterable[Held]) -> dict[bytes, Held]:
    """Keep others from changing which charge holds, and say which does now."""
    chosen = sorted(held)
    if not bulk.is_postgresql(connection):
        return {one.id: one for one in chosen}
    statement = _KNOWN + " = ANY(%s::bytea[]) AND day = ANY(%s) AND seq > 0 ORDER BY id, day FOR UPDATE"
    found = connection.exec_driver_sql(
        statement, ([one.id for one in chosen], sorted({one.day for one in chosen}))
    )
    return {row[0]: Held._make(row) for row in found}


def claim(connection: Connection, new: Sequence[tuple[Held, int]], horizon_day: int) -> set[bytes]:
    """Write down calls that are about to be charged; the ids that somebody else has claimed meanwhile.

    With each its start time. Ids are claimed in the order of their bytes, so that no two wait for each other.
    """
    if not bulk.is_postgresql(connection):
        # In the order of the index: neighbours share its pages.
        bulk.insert(connection, call_ids, Held._fields, sorted(held for held, _ in new))
        return set()
    rows = []
    for held, started_at in new:
        rows.append(held)
        for day in claimed_days(started_at)[1:]:
            if day != held.day and day > horizon_day:
                rows.append(held._replace(day=day, seq=0))
    rows.sort()
    if bulk.insert(connection, call_ids, Held._fields, rows, "ON CONFLICT DO NOTHING") == len(rows):
        return set()
    # Numbers of charges are nobody else's: a row that does not carry ours is another's claim.
    ours = {held.id: held.seq for held, _ in new}
    days = min(row.day for row in rows), max(row.day for row in rows)
    found = known(connection, list(ours), days)
    return {key for key, seq in ours.items() if key not in found or found[key].seq != seq}


def replace(connection: Connection, rows: Sequence[Held]) -> None:
    """Say that another charge of these calls holds now."""
    bulk.insert(connection, call_ids, Held._fields, sorted(rows), _REPLACE)


class Numbers:
    """Numbers for the charges of one transaction, that nobody else has or gets."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._last: int | None = None

    def taken(self, at_once: int) -> Iterator[int]:
        """One after the other, without end; taken from the store `at_once`, and what is left over is lost."""
        while True:
            yield from self.take(max(1, at_once))

    def take(self, count: int) -> list[int]:
        """The next `count`."""
        if bulk.is_postgresql(self._connection):
            blocks = {"blocks": -(-count // _SEQ_BLOCK)}
            query = text("SELECT nextval('charges_seq') FROM generate_series(1, :blocks)")
            firsts = self._connection.execute(query, blocks).scalars()
            return [first + place for first in firsts for place in range(_SEQ_BLOCK)][:count]
        if self._last is None:
            highest = select(func.coalesce(func.max(charges.c.seq), 0))
            self._last = int(self._connection.execute(highest).scalar_one())
        first, self._last = self._last + 1, self._last + count
        return list(range(first, first + count))


def append(connection: Connection, rows: Sequence[Charge]) -> None:
    """Append charges of one tenant."""
    bulk.insert(connection, charges, Charge._fields, rows)


def charges_of(connection: Connection, tenant: str, held: Iterable[Held]) -> dict[bytes, Charge]:
    """The charges of a tenant that hold for these calls."""
    chosen = {one.id: one for one in held}
    if not chosen:
        return {}
    c = charges.c
    days = sorted({one.day for one in chosen.values()})
    seqs = sorted(one.seq for one in chosen.values())
    found: dict[bytes, Charge] = {}
    for start in range(0, len(seqs), _AT_ONCE):
        query = select(*(c[name] for name in Charge._fields)).where(
            c.tenant_id == tenant, c.seq.in_(seqs[start : start + _AT_ONCE]), c.day.in_(days)
        )
        for row in connection.execute(query):
            found[row.id] = Charge._make(row)
    return found


class DecisionRow(NamedTuple):
    """A routing decision, in the order of its columns."""

    id: str
    tenant_id: str
    decided_at_unix_ns: int
    outcome: int
    team: str
    application: str
    budget_id: str
    reason: str
    requested_model: str
    decision: bytes


def decide(connection: Connection, decisions: Sequence[DecisionRow]) -> None:
    """Record what the router decided; a decision that is on record already is left as it is."""
    bulk.insert(
        connection, routing_decisions, DecisionRow._fields, sorted(decisions), "ON CONFLICT DO NOTHING"
    )


def count(connection: Connection, lane: int, counts: Mapping[str, int]) -> None:
    """Add to the counters of a lane."""
    rows = [(name, lane, value) for name, value in sorted(counts.items()) if value]
    bulk.insert(
        connection,
        tables.counters,
        ("name", "lane", "value"),
        rows,
        "ON CONFLICT (name, lane) DO UPDATE SET value = counters.value + excluded.value",
    )


def count_unpriced(
    connection: Connection, tenant: str, counts: Mapping[tuple[str, str, str], int], at_unix_ns: int
) -> list[tuple[str, str, str]]:
    """Add to a tenant's calls without a price by (provider, model, reason); returns those seen first now."""
    c = tables.unpriced.c
    models = {model for _, model, _ in counts}
    before = {
        tuple(row)
        for row in connection.execute(
            select(c.provider, c.model, c.reason).where(c.tenant_id == tenant, c.model.in_(models))
        )
    }
    bulk.insert(
        connection,
        tables.unpriced,
        ("tenant_id", "provider", "model", "reason", "calls", "last_at_unix_ns"),
        [(tenant, *key, calls, at_unix_ns) for key, calls in sorted(counts.items())],
        "ON CONFLICT (tenant_id, provider, model, reason) DO UPDATE SET "
        "calls = unpriced.calls + excluded.calls, last_at_unix_ns = excluded.last_at_unix_ns",
    )
    return [key for key, calls in sorted(counts.items()) if calls > 0 and key not in before]


@dataclass(frozen=True, slots=True)
class LedgerTotals:
    """Sums over the whole ledger: what every other view of the money must agree with."""

    calls: int
    cost_nano_usd: int
    unpriced_calls: int


# The ledger's sums are kept as counters of these names: reading them must not read the whole ledger.
_SUMS = ("ledger.calls", "ledger.cost_nano_usd", "ledger.unpriced_calls")


def sums_of(rows: Iterable[Charge]) -> Counter[str]:
    """What these charges add to the counters that hold the ledger's sums."""
    calls = cost = without_price = 0
    for row in rows:
        calls += row.sign
        if row.cost_nano_usd is None:
            without_price += row.sign
        else:
            cost += row.sign * row.cost_nano_usd
    return Counter(dict(zip(_SUMS, (calls, cost, without_price), strict=True)))


def totals(connection: Connection) -> LedgerTotals:
    """The ledger's sums as they are kept: those of all tenants."""
    kept = _counted(connection, "ledger.%", is_like=True)
    return LedgerTotals(*(kept.get(name, 0) for name in _SUMS))


def summed(connection: Connection, tenant: str | None = None) -> LedgerTotals:
    """The sums as the charges give them, of one tenant or of all that this connection may see.

    Reads all of them, to hold other numbers against.
    """
    c = charges.c
    query = select(
        func.coalesce(func.sum(c.sign), 0),
        func.coalesce(func.sum(c.cost_nano_usd * c.sign), 0),
        func.coalesce(func.sum(c.sign).filter(c.cost_nano_usd.is_(None)), 0),
    )
    if tenant is not None:
        query = query.where(c.tenant_id == tenant)
    return LedgerTotals(*(int(value) for value in connection.execute(query).one()))


def counters(connection: Connection) -> dict[str, int]:
    """What ingest counted, by name, over all lanes."""
    return _counted(connection, "ledger.%", is_like=False)


def _counted(connection: Connection, pattern: str, *, is_like: bool) -> dict[str, int]:
    c = tables.counters.c
    chosen = c.name.like(pattern) if is_like else c.name.not_like(pattern)
    query = select(c.name, func.sum(c.value)).where(chosen).group_by(c.name).order_by(c.name)
    return {name: int(value) for name, value in connection.execute(query)}


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Calls without a price, by what has none."""

    provider: str
    model: str
    reason: str
    calls: int
    last_at_unix_ns: int


def unpriced(connection: Connection, tenant: str | None, limit: int = 100) -> list[Unpriced]:
    """What of a tenant, or of all that this connection may see, has no price, the most calls first."""
    c = tables.unpriced.c
    calls = func.sum(c.calls)
    query = select(c.provider, c.model, c.reason, calls, func.max(c.last_at_unix_ns))
    if tenant is not None:
        query = query.where(c.tenant_id == tenant)
    rows = connection.execute(
        query.group_by(c.provider, c.model, c.reason)
        .having(calls > 0)
        .order_by(calls.desc(), c.provider, c.model, c.reason)
        .limit(limit)
    )
    return [Unpriced(provider, model, why, int(n), at) for provider, model, why, n, at in rows]
