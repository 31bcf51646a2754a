"""Budgets, their crossings and the ledger's totals against the charges, all in one snapshot of the store."""

from __future__ import annotations

from collections.abc import Iterable
from uuid import UUID

from sqlalchemy import Connection

from mmpipeline.budgets.model import Budget, reached
from mmpipeline.budgets.periods import local_day
from mmpipeline.store.control import budgets as rows
from mmpipeline.store.control import charged, ledger
from mmpipeline.store.control.charged import Sums
from mmpipeline.store.control.database import use_tenant
from mmpipeline.verify.findings import Difference, Findings
from mmproto.callform import format_time

# Calls that are charged other than once are named up to here: one is a defect already.
_NAMED = 20


def check(connection: Connection, findings: Findings, tenants: Iterable[str], *, are_all: bool) -> None:
    """Hold what the store keeps of `tenants` against their charges; `are_all`: there are no others."""
    kept_from = charged.kept_from(connection)
    sums = Sums()
    for tenant in tenants:
        use_tenant(connection, tenant)
        for budget in rows.all_of(connection, tenant):
            _check_budget(connection, findings, budget, kept_from)
        for key, times in charged.not_once(connection, tenant, kept_from, _NAMED):
            name = str(UUID(bytes=key)) if len(key) == 16 else key.hex()
            findings.differences.append(Difference("charge", tenant, name, "calls", times, 1))
        sums = sums.plus(charged.total(connection, tenant))
    if kept_from:
        findings.not_compared.append(
            f"what lies before {format_time(kept_from)[:10]}: single charges of that time are dropped"
        )
    totals = ledger.totals(connection)
    kept = Sums(totals.cost_nano_usd, totals.calls, totals.unpriced_calls)
    if not are_all:
        findings.not_compared.append("the ledger's totals: they are of all tenants together")
    elif kept_from and kept != sums:
        findings.not_compared.append("the ledger's totals: they are of dropped charges as well")
    else:
        findings.hold("totals", "", "all tenants", kept, sums)


def _check_budget(connection: Connection, findings: Findings, budget: Budget, kept_from: int) -> None:
    kept = rows.spend_of(connection, budget.tenant, budget.id)
    counted = rows.count(connection, budget, kept_from)
    for start in sorted({*kept, *counted}):
        if start >= kept_from:
            subject = f"{budget.name}, {budget.period.value} from {local_day(start, budget.time_zone)}"
            findings.hold(
                "budget", budget.tenant, subject, kept.get(start, Sums()), counted.get(start, Sums())
            )
    period = budget.bounds(findings.at_unix_ns)
    if period[0] < kept_from:
        findings.not_compared.append(
            f"budget {budget.name} of tenant {budget.tenant} in its running {budget.period.value}: it began "
            "before the time of which single charges are kept"
        )
    key = (budget.id, period[0])
    recorded = {
        crossing.percent for crossing in rows.crossings(connection, budget.tenant, [key]).get(key, ())
    }
    spent = kept.get(period[0], Sums()).nano_usd
    limit = budget.limit_in(period, findings.at_unix_ns)
    for percent in sorted(recorded | {threshold.percent for threshold in budget.thresholds}):
        holds = percent in {t.percent for t in budget.thresholds} and reached(limit, spent, percent)
        findings.count("crossing")
        if holds != (percent in recorded):
            told = {True: "reached", False: "not reached"}
            subject = f"{budget.name}, {budget.period.value} from {local_day(period[0], budget.time_zone)}"
            findings.differences.append(
                Difference(
                    "crossing", budget.tenant, subject, f"{percent} %", told[percent in recorded], told[holds]
                )
            )
