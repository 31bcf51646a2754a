"""How the pipeline is: a verdict with its reasons, and the numbers behind it.

`GET /v1/status` serves it and `mmpipeline status` prints it. healthy: calls come in and reach the
warehouse. degraded: it works and something needs a person (calls without a price, calls rejected, budgets
that refuse, a warehouse that lags). unhealthy: calls do not reach the warehouse.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmpipeline.budgets.model import BudgetStatus
from mmpipeline.ingest.statistics import IngestStatistics
from mmproto.callform import format_time
from mmproto.exits import Exit
from mmproto.rating import usd

_NS = 1_000_000_000

# Rows that wait longer than this are not on dashboards that people take for current.
LAG_DEGRADED_S = 30.0

VERDICT_EXITS = {"healthy": Exit.OK, "degraded": Exit.DEGRADED, "unhealthy": Exit.UNHEALTHY}


def status_form(
    statistics: IngestStatistics,
    budgets: Sequence[BudgetStatus],
    rate_cards_version: str,
    warehouse_error: str,
    now_unix_ns: int,
) -> dict[str, Any]:
    """The status as JSON: verdict, reasons, ingest, outbox, unpriced, budgets."""
    oldest = statistics.outbox.oldest_unix_ns
    lag_s = 0.0 if oldest is None else max(0.0, (now_unix_ns - oldest) / _NS)
    verdict, reasons = _judge(statistics, budgets, warehouse_error, lag_s)
    counters = statistics.counters
    return {
        "verdict": verdict,
        "reasons": reasons,
        "as_of": format_time(now_unix_ns),
        "rate_cards_version": rate_cards_version,
        "ingest": {
            "accepted": counters.get("accepted", 0),
            "duplicates": counters.get("duplicates", 0),
            "replaced": counters.get("replaced", 0),
            "rejected": _named(counters, "rejected:"),
            "adjusted": _named(counters, "adjusted:"),
            "undecodable_batches": counters.get("undecodable", 0),
            "routing_decisions": counters.get("routing_decisions", 0),
        },
        "ledger": {
            "calls": statistics.totals.calls,
            "cost_usd": usd(statistics.totals.cost_nano_usd),
            "unpriced_calls": statistics.totals.unpriced_calls,
        },
        "warehouse": {
            "waiting_rows": statistics.outbox.rows,
            "lag_s": round(lag_s, 3),
            "last_error": warehouse_error,
        },
        "unpriced": [
            {"provider": u.provider, "model": u.model, "reason": u.reason, "calls": u.calls}
            for u in statistics.unpriced
        ],
        "budgets": [budget_form(status) for status in budgets],
    }


def budget_form(status: BudgetStatus) -> dict[str, Any]:
    """A budget with its spend for people and scripts: amounts in USD as decimal strings."""
    budget = status.budget
    return {
        "name": budget.name,
        "tenant": budget.tenant,
        "scope": dict(budget.scope),
        "period": budget.period.value,
        "time_zone": budget.time_zone,
        "period_start": format_time(status.period_start_unix_ns),
        "resets_at": format_time(status.resets_at_unix_ns),
        "limit_usd": None if status.limit_nano_usd is None else usd(status.limit_nano_usd),
        "spent_usd": usd(status.spent_nano_usd),
        "percent": None if status.percent is None else round(status.percent, 2),
        "calls": status.calls,
        "unpriced_calls": status.unpriced_calls,
        "state": budget_state(status),
        "amounts": [
            {"from": format_time(a.from_unix_ns), "limit_usd": usd(a.limit_nano_usd)} for a in budget.amounts
        ],
        "thresholds": [{"percent": t.percent, "action": t.action.value} for t in budget.thresholds],
        "crossed": [
            {
                "percent": c.percent,
                "action": c.action.value,
                "spent_usd": usd(c.spent_nano_usd),
                "at": format_time(c.at_unix_ns),
            }
            for c in status.crossings
        ],
    }


def budget_state(status: BudgetStatus) -> str:
    """blocked: calls are refused; pending: no amount is in force yet; open."""
    if status.blocked:
        return "blocked"
    return "pending" if status.limit_nano_usd is None else "open"


def _judge(
    statistics: IngestStatistics, budgets: Sequence[BudgetStatus], warehouse_error: str, lag_s: float
) -> tuple[str, list[str]]:
    degraded = []
    if lag_s > LAG_DEGRADED_S:
        degraded.append(f"{statistics.outbox.rows} rows wait for the warehouse, the oldest for {lag_s:.0f} s")
    if statistics.totals.unpriced_calls:
        degraded.append(f"{statistics.totals.unpriced_calls} calls have no known price")
    for name, count in statistics.counters.items():
        if name.startswith("rejected:"):
            degraded.append(f"{count} calls were rejected: {name.removeprefix('rejected:')}")
    for status in budgets:
        if status.blocked:
            degraded.append(f"budget {status.budget.name} is used up and refuses calls")
    if warehouse_error:
        return "unhealthy", [f"the warehouse does not take rows: {warehouse_error}", *degraded]
    return ("degraded" if degraded else "healthy"), degraded


def _named(counters: dict[str, int], prefix: str) -> dict[str, int]:
    return {name.removeprefix(prefix): n for name, n in counters.items() if name.startswith(prefix)}
