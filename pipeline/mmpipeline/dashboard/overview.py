"""What the overview page shows: asked of the warehouse once, then drawn as HTML, JSON or CSV.

Sums come from roll-ups, budgets from the ledger's counters, single calls from the top of the raw table;
nothing here grows with the number of calls.
"""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from mmpipeline.api.calls import call_form
from mmpipeline.api.spend import cost_form, group_form
from mmpipeline.budgets.model import BudgetStatus
from mmpipeline.budgets.periods import Period, bounds
from mmpipeline.dashboard.series import Series, grain_of, over_time
from mmpipeline.dashboard.view import UNALLOCATED, View
from mmpipeline.ingest.statistics import ingest_statistics
from mmpipeline.services import Services
from mmpipeline.status import budget_form
from mmpipeline.store.warehouse.shapes import (
    DAY_NS,
    CostRow,
    Dimension,
    ErrorShare,
    Facets,
    ObserverSeen,
    QualityShare,
    Span,
    SpendRow,
    StoredCall,
    UnpricedShare,
)
from mmproto.callform import format_time
from mmproto.rating import usd

LATEST: Final = 15
TOP: Final = 6
CALLER_KINDS: Final[tuple[Dimension, ...]] = ("application", "user", "process")
_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Overview:
    """Everything on the page. Sums keep unpriced calls apart; see SpendRow."""

    view: View
    now_unix_ns: int
    total: SpendRow
    previous: CostRow
    month: CostRow
    month_projected_nano_usd: int | None
    by_team: Series
    by_model: Series
    budgets: Sequence[BudgetStatus]
    callers: dict[Dimension, list[CostRow]]
    qualities: list[QualityShare]
    unpriced: list[UnpricedShare]
    errors: list[ErrorShare]
    unallocated: CostRow | None
    observers: list[ObserverSeen]
    latest: tuple[StoredCall, ...]
    facets: Facets
    waiting_rows: int
    rejected: dict[str, int]

    @property
    def ever_seen(self) -> bool:
        """Whether any call of the tenant was ever recorded."""
        return bool(self.observers)


def gather(services: Services, view: View) -> Overview:
    """Ask everything that the page shows."""
    warehouse, tenant, span, filters = services.warehouse, view.tenant, view.span, view.filters
    now = services.clock()
    grain = grain_of(view)
    teams = warehouse.costs(tenant, span, (grain, "team"), filters)
    month_span = Span(bounds(Period.MONTH, now)[0], (now // DAY_NS + 1) * DAY_NS)
    month = warehouse.cost(tenant, month_span, filters)
    statistics = ingest_statistics(services.control, tenant)
    return Overview(
        view=view,
        now_unix_ns=now,
        total=warehouse.total(tenant, span, filters),
        previous=warehouse.cost(tenant, view.previous, filters),
        month=month,
        month_projected_nano_usd=_projected(month, now),
        by_team=over_time(teams, view, UNALLOCATED),
        by_model=over_time(
            warehouse.costs(tenant, span, (grain, "model"), filters), view, "(model not reported)"
        ),
        budgets=services.budgets.list(tenant),
        callers={
            kind: warehouse.costs(tenant, span, (kind,), filters, largest_first=True, limit=TOP)
            for kind in CALLER_KINDS
        },
        qualities=warehouse.qualities(tenant, span, filters),
        unpriced=warehouse.unpriced(tenant, span, filters),
        errors=warehouse.errors(tenant, span, filters),
        unallocated=_unallocated(teams),
        observers=warehouse.observers(tenant),
        latest=warehouse.calls(tenant, span, filters, limit=LATEST).calls,
        facets=warehouse.facets(tenant, span),
        waiting_rows=statistics.outbox.rows,
        rejected={
            name.removeprefix("rejected:"): number
            for name, number in statistics.counters.items()
            if name.startswith("rejected:") and number
        },
    )


def as_json(page: Overview) -> dict[str, Any]:
    """The page's numbers, in the forms of the API."""
    view = page.view
    return {
        "as_of": format_time(page.now_unix_ns),
        "from": format_time(view.span.from_unix_ns),
        "to": format_time(view.span.to_unix_ns),
        "filters": view.filters.chosen(),
        "total": group_form(page.total, ()),
        "month_to_date": cost_form(page.month, ()),
        "month_projected_usd": (
            None if page.month_projected_nano_usd is None else usd(page.month_projected_nano_usd)
        ),
        "spend_by_team": _series_form(page.by_team),
        "spend_by_model": _series_form(page.by_model),
        "budgets": [budget_form(status) for status in page.budgets],
        "top_callers": {
            kind: [cost_form(row, (kind,)) for row in rows] for kind, rows in page.callers.items()
        },
        "data_quality": {
            "qualities": {share.quality: share.calls for share in page.qualities},
            "unpriced": [
                {"provider": s.provider, "model": s.model, "reason": s.reason, "calls": s.calls}
                for s in page.unpriced
            ],
            "errors": [
                {"provider": s.provider, "error_type": s.error_type, "calls": s.calls} for s in page.errors
            ],
            "unallocated": None if page.unallocated is None else cost_form(page.unallocated, ()),
            "observers": [
                {
                    "node": seen.node,
                    "observer": seen.observer,
                    "calls": seen.calls,
                    "last_call_at": format_time(seen.last_call_unix_ns),
                }
                for seen in page.observers
            ],
            "waiting_rows": page.waiting_rows,
            "rejected": page.rejected,
        },
        "latest_calls": [call_form(stored) for stored in page.latest],
    }


def _series_form(series: Series) -> dict[str, Any]:
    return {
        "grain": series.grain,
        "points": series.points,
        "lines": [{"name": line.name, "usd": [usd(n) for n in line.amounts]} for line in series.lines],
    }


def _unallocated(teams: list[CostRow]) -> CostRow | None:
    """The calls without a team, of all points together; None where there are none."""
    rows = [row for row in teams if row.group[1] == ""]
    if not rows:
        return None
    return CostRow(
        (),
        sum(row.calls for row in rows),
        sum(row.unpriced_calls for row in rows),
        sum(row.priced_nano_usd for row in rows),
    )


def _projected(month: CostRow, now_ns: int) -> int | None:
    """Month to date / time elapsed x length of the month; None in its first day, where that is noise."""
    start, end = bounds(Period.MONTH, now_ns)
    elapsed = now_ns - start
    at = datetime.fromtimestamp(now_ns // _NS, UTC)
    day_ns = (end - start) // monthrange(at.year, at.month)[1]
    if elapsed < day_ns or month.cost_nano_usd is None:
        return None
    return month.priced_nano_usd * (end - start) // elapsed
