"""What ingest did since the store exists, what waits on the way to the warehouse, and what has no price."""

from __future__ import annotations

from dataclasses import dataclass

from mmpipeline.store.control import ledger, outbox
from mmpipeline.store.control.database import Database


@dataclass(frozen=True, slots=True)
class IngestStatistics:
    """Counters and totals are those of all tenants."""

    counters: dict[str, int]
    outbox: outbox.OutboxState
    totals: ledger.LedgerTotals
    unpriced: list[ledger.Unpriced]


def ingest_statistics(database: Database, tenant: str | None, unpriced_limit: int = 20) -> IngestStatistics:
    """The present state, of one moment; without a price is what a tenant has, or all. Raises StoreBusy."""
    with database.read(tenant) as connection:
        return IngestStatistics(
            ledger.counters(connection),
            outbox.state(connection),
            ledger.totals(connection),
            ledger.unpriced(connection, tenant, unpriced_limit),
        )
