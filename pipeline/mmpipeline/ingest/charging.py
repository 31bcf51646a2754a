"""Decides what one transaction charges: of each call the report that holds, admitted and rated.

A machine without a store: what is known of a call is told to it (`held`), a report that may replace what is
stored waits until that is loaded (`waiting`, `resume`), and a call that somebody else has claimed meanwhile
is given up and its reports decided anew (`give_up`). Each call ends as one `Entry`, however many reports of
it came.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from mmpipeline.ingest.admission import Admitted, Rejected, admit, is_credible_time
from mmpipeline.ingest.posts import Post, Rejection
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control.ledger import DAY_NS, Charge, Held
from mmpipeline.store.warehouse.blocks import WarehouseRow, row_of
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import QUALITY_ESTIMATED, QUALITY_EXACT, QUALITY_PARTIAL, QUALITY_UNKNOWN

_log = logging.getLogger(__name__)

# How far the numbers of a usage can be trusted, as an order.
_TRUST: dict[int, int] = {QUALITY_UNKNOWN: 0, QUALITY_ESTIMATED: 1, QUALITY_PARTIAL: 2, QUALITY_EXACT: 3}


class Report:
    """One call of one post, and what became of it."""

    __slots__ = ("adjusted", "call", "key", "post", "rejected", "replaces", "taken")

    def __init__(self, key: bytes, call: Call, post: Post) -> None:
        self.key = key
        self.call = call
        self.post = post
        self.taken = False
        self.replaces = False
        self.rejected = ""
        # Kept where it is decided anew: what was corrected in place is not found again.
        self.adjusted: tuple[str, ...] = ()

    def credible_time(self, now: int) -> int:
        """When the call started, or now where its clock cannot be right."""
        at = self.call.started_at_unix_ns
        return at if is_credible_time(at, now) else now

    def tell(self) -> None:
        """Add the outcome to the post's result."""
        result = self.post.result
        if self.rejected:
            result.rejected.append(Rejection(self.call.id, self.rejected))
        elif self.taken:
            result.accepted += 1
        else:
            result.duplicates += 1


@dataclass(slots=True, eq=False)
class Entry:
    """A call that is charged: by `row`, in place of `stored` where that is not None.

    `held` is what `call_ids` is to say of it, `out` the row for the warehouse.
    """

    call: Call
    held: Held
    row: Charge
    out: WarehouseRow
    post: Post
    stored: Charge | None
    claimed: bool

    def takes_back(self, old: Charge, seq: int) -> tuple[Charge, WarehouseRow]:
        """The rows that take back what was stored."""
        call = Call.FromString(old.call)
        tokens = call.usage.tokens
        out = row_of(
            call,
            old.call,  # the very bytes that went to the warehouse
            {bucket: tokens[bucket] for bucket in tokens},
            sign=-1,
            cost_nano_usd=old.cost_nano_usd,
            unpriced_reason=old.unpriced_reason,
            rate_card=old.rate_card,
        )
        return old._replace(seq=seq, sign=-1, charged_at_unix_ns=self.row.charged_at_unix_ns), out


class Charging:
    """What a transaction charges. `horizon`: calls of that day and of those before are not known any more."""

    def __init__(self, rating: RatingService, now: int, horizon: int, numbers: Iterator[int]) -> None:
        self.now = now
        self.horizon = horizon
        # Of charges: each is taken by one.
        self.numbers = numbers
        self.held: dict[bytes, Held] = {}
        self.entries: dict[bytes, Entry] = {}
        self.waiting: dict[bytes, list[Report]] = {}
        self._rating = rating
        # All reports of calls that are entries: they are decided anew where the call is given up.
        self._reports: dict[bytes, list[Report]] = {}

    def take(self, report: Report) -> None:
        """Decide a report, or let it wait for what it may replace."""
        key = report.key
        if key in self.waiting:
            self.waiting[key].append(report)
            return
        entry = self.entries.get(key)
        if entry is not None:
            self._reports[key].append(report)
            self._improve(report, entry.call, entry.row.day, entry.stored)
            return
        held = self.held.get(key)
        if held is None:
            self._begin(report)
        elif report.call.observer > held.observer or _trust(report.call) > _TRUST.get(held.quality, 0):
            self.waiting[key] = [report]

    def resume(self, locked: Mapping[bytes, Held], stored: Mapping[bytes, Charge]) -> None:
        """Decide the reports that wait, by what holds of their calls now."""
        self.held.update(locked)
        waiting, self.waiting = self.waiting, {}
        for key, reports in waiting.items():
            before = stored.get(key)
            if before is None:
                # The charge itself is dropped already, and with it what a better report would take back.
                continue
            call = Call.FromString(before.call)
            for report in reports:
                entry = self.entries.get(key)
                self._improve(report, call if entry is None else entry.call, before.day, before)

    def fresh(self) -> list[Entry]:
        """What is charged for the first time and is not claimed yet."""
        fresh = [entry for entry in self.entries.values() if not entry.claimed]
        for entry in fresh:
            entry.claimed = True
        return fresh

    def give_up(self, keys: Iterable[bytes]) -> list[Report]:
        """Forget these calls; returns their reports, to be taken anew."""
        reports: list[Report] = []
        for key in keys:
            del self.entries[key]
            for report in self._reports.pop(key):
                report.taken = report.replaces = False
                report.rejected = ""
                reports.append(report)
        return reports

    def _begin(self, report: Report) -> None:
        try:
            admitted = self._admit(report, report.call)
        except Rejected as reason:
            report.rejected = str(reason)
            return
        day = admitted.call.started_at_unix_ns // DAY_NS
        if day <= self.horizon:
            # It may be a duplicate of a call whose id is dropped.
            report.rejected = "too_late"
            return
        self._enter(report, admitted, day, None)
        self._reports[report.key] = [report]

    def _improve(self, report: Report, earlier: Call, day: int, stored: Charge | None) -> None:
        """Charge the better of two reports in place of the earlier; nothing where that says it all."""
        call = report.call
        is_better_observer = call.observer > earlier.observer
        if not is_better_observer and _trust(call) <= _trust(earlier):
            return
        try:
            call = self._admit(report, call).call  # before it touches the earlier one: it may be a bad report
            admitted = self._admit(report, _merged(call, earlier, is_better_observer))
        except Rejected as reason:
            report.rejected = str(reason)
            return
        self._enter(report, admitted, day, stored)
        report.replaces = True

    def _admit(self, report: Report, call: Call) -> Admitted:
        if not is_credible_time(call.started_at_unix_ns, self.now):
            # The post keeps its wrong time: where it is written again, that says where to look for the call.
            copy = Call()
            copy.CopyFrom(call)
            call = copy
        try:
            admitted = admit(call, self.now)
        except Rejected:
            raise
        except Exception as error:
            _log.error("call %s cannot be read: %s", call.id[:64], error)
            raise Rejected("malformed") from error
        report.adjusted = report.adjusted or admitted.adjusted
        return admitted

    def _enter(self, report: Report, admitted: Admitted, day: int, stored: Charge | None) -> None:
        call = admitted.call
        cost, reason, card = self._rating.charge(call, admitted.tokens)
        out = row_of(
            call,
            admitted.data,
            admitted.tokens,
            sign=1,
            cost_nano_usd=cost,
            unpriced_reason=reason,
            rate_card=card,
        )
        observer, quality = call.observer, call.usage.quality
        seq = next(self.numbers)
        row = Charge(
            seq,
            day,
            report.key,
            out.tenant_id,
            1,
            call.started_at_unix_ns,
            self.now,
            cost,
            reason,
            card,
            out.team,
            out.application,
            out.user,
            out.provider,
            call.request_model,
            call.response_model,
            call.virtual_key_id,
            admitted.data,
        )
        held = Held(report.key, day, out.tenant_id, observer, quality, seq)
        self.entries[report.key] = Entry(call, held, row, out, report.post, stored, stored is not None)
        report.taken = True


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
