"""The warehouse's roll-ups against the charges, by tenant and day.

Rows are on their way all the time: out of the outbox, distributed also through Kafka. A day of which charges
= warehouse + outbox holds agrees. Where that is not so the day is looked at again, a little later: a
difference is one where nothing has moved meanwhile, on either side. A day on which something always moves is
said to be not compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from mmpipeline.store.control import charged
from mmpipeline.store.control.charged import DAY_NS, Sums
from mmpipeline.store.control.database import Database, use_tenant
from mmpipeline.store.warehouse.shapes import Dimension, Span
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmpipeline.verify import waiting
from mmpipeline.verify.findings import Findings
from mmproto.callform import parse_time

# Longer than rows gather before an insert.
PAUSE_S: Final = 2.0
_LOOKS: Final = 8

# By what each roll-up is asked, so that this and no other answers; the day or the hour comes first.
_ROLL_UPS: Final[dict[str, tuple[Dimension, ...]]] = {
    "usage_daily": ("day",),
    "usage_hourly": ("hour",),
    "users_daily": ("day", "user"),
    "processes_daily": ("day", "process"),
}
# All that the roll-ups' 32-bit seconds can hold, in whole days.
_END_NS: Final = 2**32 // 86_400 * DAY_NS
_MOST: Final = 1_000_000

Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Ledger:
    """By tenant and day: what is charged, and what of it waits in the outbox (None: it cannot be read)."""

    charged: dict[Key, Sums]
    waiting: dict[Key, Sums] | None


def check(
    database: Database,
    warehouse: Warehouse,
    findings: Findings,
    tenants: Iterable[str],
    pause: Callable[[float], None],
) -> None:
    """Hold the roll-ups of `tenants` against their charges. Raises StoreBusy, WarehouseError."""
    tenants = tuple(tenants)
    before: dict[tuple[str, Key], tuple[Sums, Sums]] = {}
    for look in range(_LOOKS):
        if look:
            pause(PAUSE_S)
        since, ledger = _read_ledger(database, tenants)
        rolled = {name: _read(warehouse, name, tenants, since) for name in _ROLL_UPS}
        now: dict[tuple[str, Key], tuple[Sums, Sums]] = {}
        for name, found in rolled.items():
            for key in {*found, *ledger.charged, *(ledger.waiting or {})}:
                on_its_way = (ledger.waiting or {}).get(key, Sums())
                kept = found.get(key, Sums()).plus(on_its_way)
                charges = ledger.charged.get(key, Sums())
                if kept != charges:
                    now[name, key] = kept, charges
        moving = {place for place, sums in now.items() if before.get(place) != sums}
        before = now
        if not moving:
            break
    for name in _ROLL_UPS:
        findings.count(f"warehouse {name}", len({*rolled[name], *ledger.charged}))
    if ledger.waiting is None:
        findings.not_compared.append(
            "rows that wait in the outbox: this role cannot read them, and they are missing in the warehouse"
        )
    for (name, (tenant, day)), (kept, charges) in sorted(before.items()):
        date = datetime.fromtimestamp(day * 86_400, UTC).date().isoformat()
        if (name, (tenant, day)) in moving:
            findings.not_compared.append(
                f"{name} of tenant {tenant} on {date}: calls come in faster than they can be compared"
            )
        else:
            findings.hold("warehouse", tenant, f"{name} {date}", kept, charges)


def _read_ledger(database: Database, tenants: tuple[str, ...]) -> tuple[int, _Ledger]:
    with database.read() as connection:
        since = charged.kept_from(connection)
        blocks = charged.waiting(connection)
        on_their_way = None
        if blocks is not None:
            chosen, first = set(tenants), since // DAY_NS
            on_their_way = {
                key: sums
                for key, sums in waiting.by_day(blocks).items()
                if key[0] in chosen and key[1] >= first
            }
        found: dict[Key, Sums] = {}
        for tenant in tenants:
            use_tenant(connection, tenant)
            for day, sums in charged.by_day(connection, tenant, since).items():
                found[tenant, day] = sums
    return since, _Ledger(found, on_their_way)


def _read(warehouse: Warehouse, name: str, tenants: tuple[str, ...], since: int) -> dict[Key, Sums]:
    found: dict[Key, Sums] = {}
    for tenant in tenants:
        for row in warehouse.costs(tenant, Span(since, _END_NS), _ROLL_UPS[name], limit=_MOST):
            at = row.group[0]
            key = (tenant, parse_time(at if "T" in at else f"{at}T00:00:00Z") // DAY_NS)
            sums = Sums(row.priced_nano_usd, row.calls, row.unpriced_calls)
            found[key] = found.get(key, Sums()).plus(sums)
    return found
