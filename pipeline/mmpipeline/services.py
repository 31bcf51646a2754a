"""What the API and the dashboards are given: the parts of one running pipeline, each behind its own door.

`mmpipeline serve` builds one `Services` and hands it to `mmpipeline.api.app.create_app`; tests build one
over temporary folders and a clock of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmpipeline.budgets.service import BudgetService
    from mmpipeline.ingest.service import IngestService
    from mmpipeline.ingest.writer import WarehouseWriter
    from mmpipeline.rating.service import RatingService
    from mmpipeline.store.control.database import Database
    from mmpipeline.store.warehouse.warehouse import Warehouse

# Now, in nanoseconds since the epoch.
Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running pipeline.

    budgets:  `list(tenant=None) -> list[BudgetStatus]`, `get(name, tenant)`, `set(name, ...)`,
              `delete(name, tenant)`, `alerts(limit) -> Sequence[AlertRow]`; shapes in budgets/model.py and
              store/control/budgets.py. `mmpipeline.status.budget_form` is a budget's JSON form.
    rating:   `explain(provider, model, tier, at, usage) -> Charge`, `book` and `version`; `refresh()`
              first, where a book that was imported meanwhile matters.
    ingest:   `submit(body) -> Future[IngestResult]`; None where calls come by Kafka, to other processes.
    writer:   carries rows to the warehouse; `last_error` is "" while it can. None where others do.
    control:  the store behind them; only store/control/ speaks SQL to it. `ingest_statistics(control,
              tenant)` tells counters, outbox rows and age, ledger totals, and what has no price.
    folder:   what this process keeps in files: the admin token.
    """

    warehouse: Warehouse
    control: Database
    folder: Path
    budgets: BudgetService
    rating: RatingService
    ingest: IngestService | None
    writer: WarehouseWriter | None
    clock: Clock
    ingest_token: str

    @property
    def warehouse_error(self) -> str:
        """Why rows do not get to the warehouse; "" where they do, or where others bring them."""
        return "" if self.writer is None else self.writer.last_error
