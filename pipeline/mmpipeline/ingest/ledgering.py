"""One transaction of ingest: from posted calls to charges, budgets, outbox and positions.

A call is known by its id. Of several reports of one call the better observer's holds (router before SDK
before sensor: it knows more about who made the call), with the usage of the better quality among them; so
the outcome is the same in whatever order they come. What a later report changes is taken back by a charge
of sign -1 and charged anew; what it does not change is a duplicate.

Other processes may charge at the same time. A call is claimed before it is charged (store/control/ledger.py),
and whoever comes second decides again by what the first wrote. Everything that others may wait for is taken
in one order (positions, ids, then the counters of budgets at the very end), so that nobody waits in a circle
and nobody for long; where PostgreSQL breaks a circle all the same, the transaction is done again.

Errors of `write`: StoreBusy, and PositionMoved where a partition is somebody else's by now. Nothing is
written then.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from sqlalchemy import Connection

from mmpipeline.ingest.accounting import Accounting, count_unpriced
from mmpipeline.ingest.admission import Rejected, is_credible_time, key_of
from mmpipeline.ingest.charging import Charging, Report
from mmpipeline.ingest.posts import Lane, Post, Rejection
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import ledger, outbox, positions
from mmpipeline.store.control.database import Database, use_tenant
from mmpipeline.store.control.ledger import DAY_NS, Charge, DecisionRow, Held
from mmpipeline.store.control.outbox import HTTP_LANE, Block
from mmpipeline.store.warehouse.blocks import WarehouseRow, block_of
from mmproto.v1.routing_pb2 import RoutingDecision

_log = logging.getLogger(__name__)

# Of one block, so that it fits into a message with room to spare.
_BLOCK_ROWS = 5_000
_BLOCK_BYTES = 2 << 20

DEFAULT_TENANT = "default"

# Told which posts hold what is refused, and why (admission.py); returns how many it has put aside.
PutAside = Callable[[Sequence[tuple[Post, str]]], int]
# The counter of what was put aside.
DEAD_LETTERS = "dead_letters"


class PositionMoved(Exception):
    """A partition is charged to another offset than its reader thinks: it is somebody else's by now."""

    def __init__(self, lane: Lane) -> None:
        super().__init__(f"{lane.topic}/{lane.partition} is not at {lane.expected} any more")
        self.lane = lane


class Ledgering:
    """Writes groups of posts. Not thread-safe: the ingest thread's or the worker's own."""

    def __init__(self, database: Database, rating: RatingService) -> None:
        self._database = database
        self._rating = rating
        self._accounting = Accounting()
        self._days: set[int] = set()

    def write(
        self,
        posts: Sequence[Post],
        now_unix_ns: int,
        lanes: Iterable[Lane] = (),
        *,
        undecodable: int = 0,
        put_aside: PutAside | None = None,
    ) -> None:
        """Write all `posts` or none, with the positions of `lanes`, and fill the posts' results.

        `undecodable` is counted beside them. `put_aside` is called before anything is written, with what is
        refused; it says how many messages it has put aside, and what it raises ends the transaction. Raises
        StoreBusy, PositionMoved.
        """
        taken = sorted(lanes)
        reports, counts, refused = _reports(posts)
        counts["undecodable"] += undecodable
        decisions = [decision for post in posts for decision in post.batch.routing_decisions]
        self._make_days(reports, now_unix_ns)
        with self._database.write() as connection:
            for lane in taken:
                if not positions.take(connection, lane.topic, lane.partition, lane.expected):
                    raise PositionMoved(lane)
            self._rating.refresh(connection)
            numbers = ledger.Numbers(connection)
            charging = self._charge(connection, numbers, reports, now_unix_ns)
            _tally(reports, counts)
            if put_aside is not None:
                refused += [(report.post, report.rejected) for report in reports if report.rejected]
                counts[DEAD_LETTERS] += put_aside(refused)
            counts["routing_decisions"] += len(decisions)
            self._write(connection, charging, decisions, counts, taken)
        for report in reports:
            report.tell()

    def _make_days(self, reports: Sequence[Report], now: int) -> None:
        """Make room for the days of these calls, where that was not done yet."""
        if self._database.dialect != "postgresql":
            return
        wanted = {day for report in reports for day in ledger.claimed_days(report.credible_time(now))}
        if wanted <= self._days:
            return
        with self._database.write() as connection:
            horizon = ledger.horizon(connection)
            ledger.make_days(connection, [day for day in wanted if day > horizon])
        self._days |= wanted

    def _charge(
        self, connection: Connection, numbers: ledger.Numbers, reports: Sequence[Report], now: int
    ) -> Charging:
        """Decide what is charged, and claim it."""
        horizon = ledger.horizon(connection)
        charging = Charging(self._rating, now, horizon, numbers.taken(len(reports)))
        pending = reports
        while pending:
            charging.held.update(_known(connection, pending, now))
            for report in pending:
                charging.take(report)
            self._load(connection, charging)
            new = [(entry.held, entry.row.started_at_unix_ns) for entry in charging.fresh()]
            pending = charging.give_up(ledger.claim(connection, new, horizon))
        return charging

    def _load(self, connection: Connection, charging: Charging) -> None:
        """Lock the calls that better reports came for, and give these what they are to replace."""
        if not charging.waiting:
            return
        locked = ledger.lock(connection, [charging.held[key] for key in charging.waiting])
        by_tenant: dict[str, list[Held]] = {}
        for held in locked.values():
            by_tenant.setdefault(held.tenant_id, []).append(held)
        stored: dict[bytes, Charge] = {}
        for tenant in sorted(by_tenant):
            use_tenant(connection, tenant)
            stored.update(ledger.charges_of(connection, tenant, by_tenant[tenant]))
        charging.resume(locked, stored)

    def _write(
        self,
        connection: Connection,
        charging: Charging,
        decisions: Sequence[RoutingDecision],
        counts: Counter[str],
        lanes: Sequence[Lane],
    ) -> None:
        now = charging.now
        ledger.replace(connection, [entry.held for entry in charging.entries.values() if entry.stored])
        by_tenant: dict[str, list[Charge]] = {}
        blocks: dict[int, _Blocks] = {}
        for entry in charging.entries.values():
            lane = entry.post.lane
            rows = blocks.get(lane)
            if rows is None:
                rows = blocks[lane] = _Blocks(lane)
            if entry.stored is not None:
                charge, out = entry.takes_back(entry.stored, next(charging.numbers))
                by_tenant.setdefault(charge.tenant_id, []).append(charge)
                rows.add(out, entry.post.offset)
            charge = entry.row
            of_tenant = by_tenant.get(charge.tenant_id)
            if of_tenant is None:
                of_tenant = by_tenant[charge.tenant_id] = []
            of_tenant.append(charge)
            rows.add(entry.out, entry.post.offset)
        decided: dict[str, list[DecisionRow]] = {}
        for decision in decisions:
            row = _decision_row(decision)
            decided.setdefault(row.tenant_id, []).append(row)
        for tenant in sorted(by_tenant.keys() | decided.keys()):
            use_tenant(connection, tenant)
            charges = by_tenant.get(tenant, [])
            ledger.append(connection, charges)
            counts.update(ledger.sums_of(charges))
            count_unpriced(connection, self._rating, tenant, charges, now)
            ledger.decide(connection, decided.get(tenant, []))
        for lane in sorted(blocks):
            for block in blocks[lane].made():
                outbox.queue(connection, block, now)
        ledger.count(connection, lanes[0].partition if lanes else HTTP_LANE, counts)
        for charged in lanes:
            positions.advance(connection, charged.topic, charged.partition, charged.next_offset, now)
        self._accounting.account(connection, by_tenant, now)


def _reports(posts: Sequence[Post]) -> tuple[list[Report], Counter[str], list[tuple[Post, str]]]:
    """The reports of all posts, and what is rejected at first sight: counted, and with its post."""
    reports: list[Report] = []
    counts: Counter[str] = Counter()
    refused: list[tuple[Post, str]] = []
    for post in posts:
        result = post.result
        result.rejected.clear()
        for call in post.batch.calls:
            try:
                reports.append(Report(key_of(call), call, post))
            except Rejected as reason:
                counts[f"rejected:{reason}"] += 1
                result.rejected.append(Rejection(call.id, str(reason)))
                refused.append((post, str(reason)))
    return reports, counts, refused


def _known(connection: Connection, reports: Sequence[Report], now: int) -> dict[bytes, Held]:
    """Which of these calls are charged. The same call can be filed a day earlier or later than reported."""
    keys: list[bytes] = []
    at_any_time: list[bytes] = []
    days: set[int] = set()
    for report in reports:
        at = report.call.started_at_unix_ns
        if is_credible_time(at, now):
            keys.append(report.key)
            days.add(at // DAY_NS)
        else:
            at_any_time.append(report.key)
    found = ledger.known(connection, keys, (min(days) - 1, max(days) + 1)) if keys else {}
    if at_any_time:
        found.update(ledger.known(connection, at_any_time, None))
    return found


def _tally(reports: Sequence[Report], counts: Counter[str]) -> None:
    """What became of the reports, added to the counters."""
    accepted = replaced = 0
    for report in reports:
        if report.taken:
            accepted += 1
            replaced += report.replaces
        elif report.rejected:
            counts[f"rejected:{report.rejected}"] += 1
        else:
            counts["duplicates"] += 1
        if report.adjusted:
            counts.update(report.adjusted)
    counts["accepted"] += accepted
    counts["replaced"] += replaced


class _Blocks:
    """Rows of a lane for the warehouse, cut into blocks."""

    def __init__(self, lane: int) -> None:
        self._lane = lane
        self._full: list[list[WarehouseRow]] = []
        self._rows: list[WarehouseRow] = []
        self._size = 0
        self._offsets: set[int] = set()

    def add(self, row: WarehouseRow, offset: int) -> None:
        self._rows.append(row)
        self._size += len(row.message)
        self._offsets.add(offset)
        if len(self._rows) >= _BLOCK_ROWS or self._size >= _BLOCK_BYTES:
            self._full.append(self._rows)
            self._rows, self._size = [], 0

    def made(self) -> Iterable[Block]:
        """The blocks, each with the offsets between which all of them lie."""
        first, last = min(self._offsets), max(self._offsets)
        for rows in (*self._full, self._rows):
            if rows:
                yield Block(self._lane, len(rows), block_of(rows), first, last)


def _decision_row(decision: RoutingDecision) -> DecisionRow:
    return DecisionRow(
        _plain(decision.id),
        _plain(decision.tenant) or DEFAULT_TENANT,
        decision.decided_at_unix_ns,
        decision.outcome,
        _plain(decision.team),
        _plain(decision.application),
        _plain(decision.budget_id),
        _plain(decision.reason),
        _plain(decision.requested_model),
        decision.SerializeToString(),
    )


def _plain(text: str) -> str:
    """A text that every engine has place for."""
    return text.replace("\0", "\ufffd") if "\0" in text else text
