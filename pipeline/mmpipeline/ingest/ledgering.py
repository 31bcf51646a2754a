"""One transaction of ingest: from posted calls to ledger rows, budgets and outbox.

A call is known by its id. Of several reports of one call the better observer's holds (router before SDK
before sensor: it knows more about who made the call), with the usage of the better quality among them; so
the outcome is the same in whatever order they come. What a later report changes is taken back by a row of
sign -1 and charged anew; what it does not change is a duplicate.
"""

from __future__ import annotations

import logging
import sqlite3
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmpipeline.budgets.matching import BudgetMatcher, CallScope
from mmpipeline.budgets.service import record_crossings
from mmpipeline.ingest.admission import Admitted, Rejected, admit, key_of
from mmpipeline.ingest.results import IngestResult, Rejection
from mmpipeline.rating.rated import RatedCall
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import budgets as control_budgets
from mmpipeline.store.control import ledger as control_ledger
from mmpipeline.store.control.budgets import AlertRow, SpendDelta
from mmpipeline.store.control.ledger import DecisionRow, LedgerRow
from mmpipeline.store.control.store import ControlStore
from mmpipeline.store.warehouse.blocks import WarehouseRow, block_of, row_of, row_of_rated
from mmproto.v1.call_pb2 import Call
from mmproto.v1.ingest_pb2 import IngestBatch
from mmproto.v1.routing_pb2 import RoutingDecision
from mmproto.v1.usage_pb2 import QUALITY_ESTIMATED, QUALITY_EXACT, QUALITY_PARTIAL, QUALITY_UNKNOWN

_log = logging.getLogger(__name__)

# How far the numbers of a usage can be trusted, as an order.
_TRUST: dict[int, int] = {QUALITY_UNKNOWN: 0, QUALITY_ESTIMATED: 1, QUALITY_PARTIAL: 2, QUALITY_EXACT: 3}

_BLOCK_ROWS = 5_000

# No call costs a million dollars; a sum of such would overflow long before anyone saw it.
_ABSURD_NANO_USD = 10**15


@dataclass(slots=True)
class _Work:
    """What a transaction is going to write."""

    now: int
    held: dict[bytes, tuple[int, int]]
    rows: list[LedgerRow] = field(default_factory=list)
    # The same rows as the warehouse gets them.
    outgoing: list[WarehouseRow] = field(default_factory=list)
    # Calls of this very transaction by id: where their row is in `rows`.
    fresh: dict[bytes, int] = field(default_factory=dict)
    spend: dict[tuple[str, int], list[int]] = field(default_factory=dict)
    unpriced: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)


class Ledgering:
    """Writes groups of posts. Not thread-safe: the ingest thread's own."""

    def __init__(self, store: ControlStore, rating: RatingService) -> None:
        self._store = store
        self._rating = rating
        self._matcher = BudgetMatcher(())
        self._budgets_version = -1

    def write(
        self, posts: Sequence[tuple[IngestBatch, IngestResult]], now_unix_ns: int, undecodable: int
    ) -> None:
        """Write all `posts` or none, and fill their results. Raises StoreBusy, sqlite3.Error."""
        with self._store.write() as connection:
            self._refresh_budgets(connection)
            keyed: list[tuple[bytes, Call, IngestResult]] = []
            counts: Counter[str] = Counter()
            for batch, result in posts:
                for call in batch.calls:
                    try:
                        keyed.append((key_of(call), call, result))
                    except Rejected as reason:
                        counts[f"rejected:{reason}"] += 1
                        result.rejected.append(Rejection(call.id, str(reason)))
            held = control_ledger.known(connection, [key for key, _, _ in keyed])
            work = _Work(now_unix_ns, held, counts=counts)
            for key, call, result in keyed:
                try:
                    taken = self._take(connection, work, key, call)
                except Rejected as reason:
                    work.counts[f"rejected:{reason}"] += 1
                    result.rejected.append(Rejection(call.id, str(reason)))
                    continue
                if taken:
                    result.accepted += 1
                else:
                    result.duplicates += 1
            work.counts["accepted"] += sum(result.accepted for _, result in posts)
            work.counts["duplicates"] += sum(result.duplicates for _, result in posts)
            work.counts["undecodable"] += undecodable
            decisions = [decision for batch, _ in posts for decision in batch.routing_decisions]
            self._finish(connection, work, decisions)

    def _refresh_budgets(self, connection: sqlite3.Connection) -> None:
        version = control_budgets.version(connection)
        if version != self._budgets_version:
            # Nobody else can commit while this transaction runs: what a reader sees is what holds.
            self._matcher = BudgetMatcher(control_budgets.budgets(self._store))
            self._budgets_version = version

    def _take(self, connection: sqlite3.Connection, work: _Work, key: bytes, call: Call) -> bool:
        """Charge `call`; False where it says nothing new. Raises Rejected."""
        held = work.held.get(key)
        if held is None:
            self._charge(work, key, call)
            return True
        observer, quality = held
        better_observer = call.observer > observer
        trust, held_trust = _trust(call), _TRUST.get(quality, 0)
        if not better_observer and trust <= held_trust:
            return False
        report = Call()
        report.CopyFrom(call)
        self._admit(work, report)  # before anything is taken back: a bad report replaces nothing
        before = self._take_back(connection, work, key)
        earlier = Call.FromString(before.call)
        merged = _merged(report, earlier, better_observer)
        self._charge(work, key, merged)
        work.counts["replaced"] += 1
        return True

    def _admit(self, work: _Work, call: Call) -> Admitted:
        try:
            admitted = admit(call, work.now)
        except Rejected:
            raise
        except Exception as error:
            _log.error("call %s cannot be read: %s", call.id[:64], error)
            raise Rejected("malformed") from error
        for adjustment in admitted.adjusted:
            work.counts[adjustment] += 1
        return admitted

    def _charge(self, work: _Work, key: bytes, call: Call) -> None:
        admitted = self._admit(work, call)
        try:
            cost, reason, card = self._rating.rate_call(call, admitted.tokens)
        except Exception as error:  # a defect of ours must not cost the neighbours their charge
            _log.error("call %s cannot be rated: %r", call.id, error)
            cost, reason, card = None, "rating_failed", ""
        if cost is not None and cost > _ABSURD_NANO_USD:
            cost, reason, card = None, "absurd_cost", ""
        observer, quality = call.observer, call.usage.quality
        out = row_of(
            call,
            admitted.data,
            admitted.tokens,
            sign=1,
            cost_nano_usd=cost,
            unpriced_reason=reason,
            rate_card=card,
        )
        row = LedgerRow(
            key,
            1,
            1,
            observer,
            quality,
            call.started_at_unix_ns,
            cost,
            reason,
            card,
            out.tenant_id,
            out.team,
            out.application,
            out.user,
            call.request_model,
            call.response_model,
            call.virtual_key_id,
            admitted.data,
        )
        work.held[key] = (observer, quality)
        work.fresh[key] = len(work.rows)
        work.rows.append(row)
        work.outgoing.append(out)
        if cost is None:
            self._count_unpriced(work, row, out.provider)
        self._account(work, row)

    def _take_back(self, connection: sqlite3.Connection, work: _Work, key: bytes) -> LedgerRow:
        """Append the row that takes back the one that holds for `key`; returns that one."""
        index = work.fresh.pop(key, None)
        if index is None:
            before = control_ledger.take_out(connection, key)
        else:
            before = work.rows[index] = work.rows[index]._replace(live=0)
        back = before._replace(live=0, sign=-1)
        out = row_of_rated(
            RatedCall(
                Call.FromString(back.call), -1, back.cost_nano_usd, back.unpriced_reason, back.rate_card
            )
        )
        work.rows.append(back)
        work.outgoing.append(out)
        if back.cost_nano_usd is None:
            self._count_unpriced(work, back, out.provider)
        self._account(work, back)
        return before

    def _count_unpriced(self, work: _Work, row: LedgerRow, provider: str) -> None:
        model = row.response_model or row.request_model
        work.unpriced[provider, model, row.unpriced_reason] += row.sign

    def _account(self, work: _Work, row: LedgerRow) -> None:
        """Add a row to the counters of its budgets."""
        budgets = self._matcher.matching(CallScope._make(row[9:16]))
        if not budgets:
            return
        sign, cost = row.sign, row.cost_nano_usd
        for budget in budgets:
            start = self._matcher.period_start(budget, row.started_at_unix_ns)
            sums = work.spend.setdefault((budget.id, start), [0, 0, 0])
            sums[0] += sign * (cost or 0)
            sums[1] += sign
            sums[2] += sign * (cost is None)

    def _finish(
        self, connection: sqlite3.Connection, work: _Work, decisions: Sequence[RoutingDecision]
    ) -> None:
        if work.rows:
            control_ledger.append(connection, work.rows)
            control_ledger.add_to_totals(connection, work.rows)
            for start in range(0, len(work.outgoing), _BLOCK_ROWS):
                chunk = work.outgoing[start : start + _BLOCK_ROWS]
                control_ledger.queue(connection, len(chunk), block_of(chunk), work.now)
        if work.spend:
            control_budgets.add_spend(connection, [SpendDelta(*key, *s) for key, s in work.spend.items()])
            touched = [(self._matcher.budgets[budget_id], start) for budget_id, start in work.spend]
            record_crossings(connection, touched, work.now)
        if work.unpriced:
            new = control_ledger.count_unpriced(connection, work.unpriced, work.now)
            for provider, model, reason in new:
                _alert_unpriced(connection, provider, model, reason, work.now)
        if decisions:
            control_ledger.decide(connection, map(_decision_row, decisions))
            work.counts["routing_decisions"] += len(decisions)
        control_ledger.count(connection, {name: n for name, n in work.counts.items() if n})


def _merged(report: Call, earlier: Call, better_observer: bool) -> Call:
    """One call of two reports: who made it by the better observer, what it used by the better usage."""
    merged = report if better_observer else earlier
    usage = report if _trust(report) >= _trust(earlier) else earlier
    if usage is not merged:
        merged.usage.CopyFrom(usage.usage)
        merged.billable = usage.billable
        for name in ("response_model", "response_id", "service_tier"):
            if value := getattr(usage, name):
                setattr(merged, name, value)
    for report_of in (report, earlier):
        if report_of.HasField("reported_cost_nano_usd") and not merged.HasField("reported_cost_nano_usd"):
            merged.reported_cost_nano_usd = report_of.reported_cost_nano_usd
    return merged


def _trust(call: Call) -> int:
    return _TRUST.get(call.usage.quality, 0)


def _alert_unpriced(
    connection: sqlite3.Connection, provider: str, model: str, reason: str, now_unix_ns: int
) -> None:
    control_budgets.alert(
        connection,
        AlertRow(
            dedup_key=f"unpriced/{provider}/{model}/{reason}",
            kind="unpriced_model",
            tenant="",
            summary=f"calls of {provider or '(no provider)'} {model or '(no model)'} have no price: {reason}",
            at_unix_ns=now_unix_ns,
        ),
    )


def _decision_row(decision: RoutingDecision) -> DecisionRow:
    return DecisionRow(
        decision.id,
        decision.decided_at_unix_ns,
        decision.outcome,
        decision.tenant or "default",
        decision.team,
        decision.application,
        decision.budget_id,
        decision.reason,
        decision.requested_model,
        decision.SerializeToString(),
    )
