"""Charges the calls of a span anew, by the book of prices in force.

Nothing is edited. Where today's book says otherwise than a charge that holds, the charge is taken back by
one of sign -1 and made anew, with all that depends on it in the same transaction: budgets, sums, what has no
price, the rows for the warehouse. Transactions are small, so that ingest goes on between them, and each
leaves everything consistent: after a kill another run finds what is left to do, and a run over what is done
changes nothing.

A charge holds where `call_ids` says so; it is locked while it is replaced, so that a better report that
comes meanwhile waits, and one that came before is what holds. Ids are dropped earlier than charges. Of older
days the charges themselves say which hold; no report can replace those any more, and two runs at once notice
each other by a number in `meta` that every transaction of a reprice raises. A run charges by one book: it
ends where another one is imported.

Charges that were dropped by their age cannot be made anew: the outcome says which days these are.

Errors: StoreBusy, PricesChanged. What was committed until then holds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sqlalchemy import ColumnElement, Connection, case, func, or_, select

from mmpipeline.ingest.accounting import Accounting, count_unpriced
from mmpipeline.rating.rated import RatedCall
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import bulk, charged, ledger, outbox, prices
from mmpipeline.store.control.database import Database, StoreBusy
from mmpipeline.store.control.ledger import Charge, Held
from mmpipeline.store.control.outbox import HTTP_LANE, Block
from mmpipeline.store.control.tables import charges, meta
from mmpipeline.store.warehouse.blocks import WarehouseRow, block_of, row_of_rated
from mmproto.v1.call_pb2 import Call

DAY_NS = charged.DAY_NS

# Calls of one transaction: a fraction of a second in which ingest waits.
BATCH = 2_000

_BLOCK_ROWS = 5_000
_VERSION = "reprice_version"
_ATTEMPTS = 5
_COLUMNS = tuple(charges.c[name] for name in Charge._fields)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which calls: started in [from, to); "" is all. A model is the requested or the answering one's name."""

    from_unix_ns: int
    to_unix_ns: int
    provider: str = ""
    model: str = ""
    only_unpriced: bool = False

    def condition(self, tenant: str) -> list[ColumnElement[bool]]:
        """As conditions on `charges`."""
        c = charges.c
        where = [
            c.tenant_id == tenant,
            c.sign == 1,
            c.started_at_unix_ns >= self.from_unix_ns,
            c.started_at_unix_ns < self.to_unix_ns,
            # The day a call is filed under can be a neighbour of the one that its charge says.
            c.day >= self.from_unix_ns // DAY_NS - 1,
            c.day <= self.to_unix_ns // DAY_NS + 1,
        ]
        if self.provider:
            where.append(c.provider == self.provider)
        if self.model:
            where.append(or_(c.request_model == self.model, c.response_model == self.model))
        if self.only_unpriced:
            where.append(c.cost_nano_usd.is_(None))
        return where


@dataclass(frozen=True, slots=True)
class Judged:
    """A charge that holds, and what today's book says of its call."""

    charge: Charge
    held: Held | None
    call: Call
    cost: int | None
    reason: str
    card: str

    @property
    def differs(self) -> bool:
        """Whether today's book says otherwise."""
        charge = self.charge
        return (self.cost, self.reason, self.card) != (
            charge.cost_nano_usd,
            charge.unpriced_reason,
            charge.rate_card,
        )

    def anew(self, seq: int, now: int) -> Charge:
        """The charge in place of the one that holds."""
        return self.charge._replace(
            seq=seq,
            charged_at_unix_ns=now,
            cost_nano_usd=self.cost,
            unpriced_reason=self.reason,
            rate_card=self.card,
        )

    def outgoing(self) -> Iterator[WarehouseRow]:
        """Both rows for the warehouse: the one that takes back, and the new one."""
        old = self.charge
        yield row_of_rated(RatedCall(self.call, -1, old.cost_nano_usd, old.unpriced_reason, old.rate_card))
        yield row_of_rated(RatedCall(self.call, 1, self.cost, self.reason, self.card))


@dataclass(slots=True)
class Sums:
    """Calls and what they cost: `old` before, `new` after; without a price they add nothing."""

    calls: int = 0
    changed: int = 0
    old_nano_usd: int = 0
    new_nano_usd: int = 0
    old_unpriced: int = 0
    new_unpriced: int = 0


@dataclass(slots=True)
class Outcome:
    """What a run did, or with dry_run would do."""

    version: str
    dry_run: bool
    tenants: tuple[str, ...] = ()
    total: Sums = field(default_factory=Sums)
    # By provider and model.
    models: dict[tuple[str, str], Sums] = field(default_factory=dict)
    # First and last day of the span whose charges are dropped, in days since 1970.
    dropped_days: tuple[int, int] | None = None

    def add(self, judged: Judged) -> None:
        """Count one call."""
        charge = judged.charge
        key = (charge.provider, charge.response_model or charge.request_model)
        for sums in (self.total, self.models.setdefault(key, Sums())):
            sums.calls += 1
            sums.changed += judged.differs
            sums.old_nano_usd += charge.cost_nano_usd or 0
            sums.new_nano_usd += judged.cost or 0
            sums.old_unpriced += charge.cost_nano_usd is None
            sums.new_unpriced += judged.cost is None


class PricesChanged(Exception):
    """Another book was imported while a run charged by the one before."""

    def __init__(self) -> None:
        super().__init__("another book of prices was imported meanwhile; run it again to charge by that one")


class Repricing:
    """One run. `after_batch` is told the outcome so far after each transaction."""

    def __init__(
        self,
        database: Database,
        rating: RatingService,
        selection: Selection,
        clock: Callable[[], int],
        *,
        dry_run: bool = False,
        batch: int = BATCH,
        after_batch: Callable[[Outcome], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._rating = rating
        self._selection = selection
        self._clock = clock
        self._batch = batch
        self._after_batch = after_batch
        self._accounting = Accounting()
        self._outcome = Outcome(rating.version, dry_run)
        # Of calls whose ids are dropped and that were charged more than once: the charge that holds, or 0.
        self._latest: dict[bytes, int] = {}
        self._latest_of: tuple[int, int] | None = None

    def run(self, tenants: Sequence[str]) -> Outcome:
        """Charge the calls of these tenants anew. Raises StoreBusy, PricesChanged."""
        self._outcome.tenants = tuple(tenants)
        with self._database.read() as connection:
            self._outcome.dropped_days = _dropped(connection, self._selection)
        for tenant in tenants:
            self._latest_of = None
            with self._database.read(tenant) as connection:
                after, last = _span(connection, tenant, self._selection)
            while after < last:
                after = self._patiently(tenant, after, last)
                self._after_batch(self._outcome)
        return self._outcome

    def _patiently(self, tenant: str, after: int, last: int) -> int:
        """A step, tried again where the store is busy: others may be charging."""
        for attempt in range(_ATTEMPTS):
            try:
                return self._step(tenant, after, last)
            except StoreBusy:
                if attempt == _ATTEMPTS - 1:
                    raise
                self._latest_of = None
                time.sleep(0.1 * 2**attempt)
        return last

    def _step(self, tenant: str, after: int, last: int) -> int:
        """One transaction; returns the number of the last charge that it looked at."""
        dry_run = self._outcome.dry_run
        with (self._database.read if dry_run else self._database.write)(tenant) as connection:
            if not dry_run:
                prices.lock(connection)  # no import, and no other run, until the transaction ends
            self._rating.refresh(connection)
            if self._rating.version != self._outcome.version:
                raise PricesChanged
            ids_from = ledger.horizon(connection) + 1
            version = _version(connection)
            if self._latest_of != (version, ids_from):
                self._latest = _charged_again(connection, tenant, self._selection, ids_from)
            page = _page(connection, tenant, self._selection, (after, last), self._batch)
            judged = [self._judge(*held) for held in self._holding(connection, page, ids_from)]
            changes = [one for one in judged if one.differs]
            if changes and not dry_run:
                self._write(connection, tenant, changes)
                version = _raise_version(connection, version)
        self._latest_of = version, ids_from
        for one in judged:
            self._outcome.add(one)
        return page[-1].seq if len(page) == self._batch else last

    def _holding(
        self, connection: Connection, page: Sequence[Charge], ids_from: int
    ) -> Iterator[tuple[Charge, Held | None]]:
        """Those of `page` that hold, with their ids where these are kept; these are locked."""
        recent = [charge for charge in page if charge.day >= ids_from]
        held: dict[bytes, Held] = {}
        if recent:
            days = [charge.day for charge in recent]
            held = ledger.known(connection, [charge.id for charge in recent], (min(days), max(days)))
            if not self._outcome.dry_run:
                held = ledger.lock(connection, held.values())
        for charge in page:
            if charge.day < ids_from:
                if self._latest.get(charge.id, charge.seq) == charge.seq:
                    yield charge, None
            elif charge.id in held and held[charge.id].seq == charge.seq:
                yield charge, held[charge.id]

    def _judge(self, charge: Charge, held: Held | None) -> Judged:
        call = Call.FromString(charge.call)
        tokens = call.usage.tokens
        cost, reason, card = self._rating.charge(call, {bucket: tokens[bucket] for bucket in tokens})
        return Judged(charge, held, call, cost, reason, card)

    def _write(self, connection: Connection, tenant: str, changes: Sequence[Judged]) -> None:
        now = self._clock()
        numbers = iter(ledger.Numbers(connection).take(2 * len(changes)))
        rows: list[Charge] = []
        replaced: list[Held] = []
        for one in changes:
            rows.append(one.charge._replace(seq=next(numbers), sign=-1, charged_at_unix_ns=now))
            rows.append(one.anew(next(numbers), now))
            if one.held is not None:
                replaced.append(one.held._replace(seq=rows[-1].seq))
        ledger.replace(connection, replaced)
        ledger.append(connection, rows)
        count_unpriced(connection, self._rating, tenant, rows, now)
        outgoing = [row for one in changes for row in one.outgoing()]
        for start in range(0, len(outgoing), _BLOCK_ROWS):
            block = outgoing[start : start + _BLOCK_ROWS]
            outbox.queue(connection, Block(HTTP_LANE, len(block), block_of(block)), now)
        counts = ledger.sums_of(rows)
        counts["repriced"] += len(changes)
        ledger.count(connection, HTTP_LANE, counts)
        self._accounting.account(connection, {tenant: rows}, now)


def _dropped(connection: Connection, selection: Selection) -> tuple[int, int] | None:
    """The days of the span whose charges are dropped."""
    first, last = selection.from_unix_ns // DAY_NS, (selection.to_unix_ns - 1) // DAY_NS
    value = connection.execute(select(meta.c.value).where(meta.c.key == charged.CHARGES_HORIZON)).scalar()
    horizon = -1 if value is None else int(value)
    return (first, min(last, horizon)) if first <= horizon else None


def _span(connection: Connection, tenant: str, selection: Selection) -> tuple[int, int]:
    """Before the first charge and the last there is: what comes later is charged by today's book already."""
    seq = charges.c.seq
    query = select(func.min(seq), func.max(seq)).where(*selection.condition(tenant))
    first, last = connection.execute(query).one()
    return (0, 0) if first is None else (first - 1, last)


def _page(
    connection: Connection, tenant: str, selection: Selection, span: tuple[int, int], size: int
) -> list[Charge]:
    seq = charges.c.seq
    query = (
        select(*_COLUMNS)
        .where(*selection.condition(tenant), seq > span[0], seq <= span[1])
        .order_by(seq)
        .limit(size)
    )
    return [Charge._make(row) for row in connection.execute(query)]


def _charged_again(
    connection: Connection, tenant: str, selection: Selection, ids_from: int
) -> dict[bytes, int]:
    """Of the days whose ids are dropped: calls with more than one charge, and the one that holds; 0: none."""
    c = charges.c
    first, last = selection.from_unix_ns // DAY_NS - 1, selection.to_unix_ns // DAY_NS + 1
    if first >= ids_from:
        return {}
    query = (
        select(c.id, func.sum(c.sign), func.max(case((c.sign == 1, c.seq), else_=0)))
        .where(c.tenant_id == tenant, c.day.between(first, min(last, ids_from - 1)))
        .group_by(c.id)
        .having(func.count() > 1)
    )
    return {bytes(key): seq if times > 0 else 0 for key, times, seq in connection.execute(query)}


def _version(connection: Connection) -> int:
    found = connection.execute(select(meta.c.value).where(meta.c.key == _VERSION)).scalar()
    return 0 if found is None else int(found)


def _raise_version(connection: Connection, version: int) -> int:
    """Tell another run that something was charged anew."""
    bulk.insert(
        connection,
        meta,
        ("key", "value"),
        [(_VERSION, str(version + 1))],
        "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
    )
    return version + 1
