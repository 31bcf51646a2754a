"""What charges change beside themselves: counters of budgets, thresholds, what has no price, and its alert.

Whoever appends charges does this in the same transaction, be it ingest or a reprice. The counters of budgets
come last of all, since others wait for them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from mmpipeline.budgets.matching import BudgetMatcher, CallScope
from mmpipeline.budgets.service import record_crossings
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import budgets, ledger, locks
from mmpipeline.store.control.budgets import AlertRow, SpendDelta
from mmpipeline.store.control.database import use_tenant
from mmpipeline.store.control.ledger import Charge
from mmproto.v1.call_pb2 import Call

# No period of any time zone begins within a quarter of an hour.
_QUARTER_NS = 900 * 10**9
# The texts of a charge.
_TEXTS = slice(Charge._fields.index("team"), Charge._fields.index("call"))


class Accounting:
    """Keeps what it knows of budgets from one transaction to the next. Not thread-safe."""

    def __init__(self) -> None:
        self._matchers: dict[str, BudgetMatcher] = {}
        self._version = -1

    def account(self, connection: Connection, by_tenant: Mapping[str, Sequence[Charge]], now: int) -> None:
        """Add charges to the counters of their budgets: last of all, since others wait for these."""
        for tenant in sorted(by_tenant):
            locks.counting(connection, tenant)
        version = budgets.version(connection)
        if version != self._version:
            self._matchers.clear()
            self._version = version
        for tenant, charges in sorted(by_tenant.items()):
            use_tenant(connection, tenant)
            matcher = self._matchers.get(tenant)
            if matcher is None:
                if len(self._matchers) > 10_000:  # tenants come from outside: never let them fill the memory
                    self._matchers.clear()
                matcher = self._matchers[tenant] = BudgetMatcher(budgets.all_of(connection, tenant))
            spend = _spend(matcher, charges) if matcher.budgets else {}
            if spend:
                budgets.add_spend(
                    connection, tenant, [SpendDelta(*key, *sums) for key, sums in spend.items()]
                )
                touched = [(matcher.budgets[budget_id], start) for budget_id, start in spend]
                record_crossings(connection, tenant, touched, now)


def count_unpriced(
    connection: Connection, rating: RatingService, tenant: str, charges: Sequence[Charge], now: int
) -> None:
    """Count a tenant's calls without a price by what has none; what is new to the tenant raises an alert."""
    counts: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], Charge] = {}
    for charge in charges:
        if charge.cost_nano_usd is None:
            key = (charge.provider, charge.response_model or charge.request_model, charge.unpriced_reason)
            counts[key] += charge.sign
            examples[key] = charge
    if not counts:
        return
    for key in ledger.count_unpriced(connection, tenant, counts, now):
        provider, model, reason = key
        budgets.alert(
            connection,
            AlertRow(
                dedup_key=f"unpriced/{provider}/{model}/{reason}",
                kind="unpriced_model",
                tenant=tenant,
                summary=rating.why_unpriced(Call.FromString(examples[key].call), reason),
                at_unix_ns=now,
            ),
        )


def _spend(matcher: BudgetMatcher, charges: Iterable[Charge]) -> dict[tuple[str, int], list[int]]:
    """What charges add to budgets, by budget and period: nano-dollars, calls, calls without a price."""
    alike: dict[tuple[CallScope, int], list[int]] = {}
    scopes: dict[Any, CallScope] = {}
    for charge in charges:
        texts: Any = charge[_TEXTS]
        scope = scopes.get(texts)
        if scope is None:
            scope = scopes[texts] = CallScope(
                charge.tenant_id,
                charge.team,
                charge.application,
                charge.user,
                charge.request_model,
                charge.response_model,
                charge.virtual_key_id,
            )
        key = (scope, charge.started_at_unix_ns // _QUARTER_NS)
        sums = alike.get(key)
        if sums is None:
            sums = alike[key] = [0, 0, 0]
        sign, cost = charge.sign, charge.cost_nano_usd
        sums[1] += sign
        if cost is None:
            sums[2] += sign
        else:
            sums[0] += sign * cost
    spend: dict[tuple[str, int], list[int]] = {}
    for (scope, quarter), sums in alike.items():
        for budget in matcher.matching(scope):
            start = matcher.period_start(budget, quarter * _QUARTER_NS)
            total = spend.setdefault((budget.id, start), [0, 0, 0])
            for place in range(3):
                total[place] += sums[place]
    return spend
