"""What the API and the dashboards are given: the parts of one running pipeline, each behind its own door.

`mmpipeline serve` builds one `Services` and hands it to `mmpipeline.api.app.create_app`; tests build one
over temporary folders and a clock of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmpipeline.budgets.service import BudgetService
    from mmpipeline.ingest.service import IngestService
    from mmpipeline.ingest.writer import WarehouseWriter
    from mmpipeline.rating.service import RatingService
    from mmpipeline.store.control.store import ControlStore
    from mmpipeline.store.warehouse.warehouse import Warehouse

# Now, in nanoseconds since the epoch.
Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running pipeline.

    budgets:  `list(tenant=None) -> list[BudgetStatus]`, `get(name, tenant)`, `set(name, ...)`,
              `delete(name, tenant)`, `alerts(limit) -> Sequence[AlertRow]`; shapes in budgets/model.py and
              store/control/budgets.py. `mmpipeline.status.budget_form` is a budget's JSON form.
    rating:   `explain(provider, model, tier, at, usage) -> Charge`, `cards(provider, model)` for the
              prices page, `version`.
    ingest:   `submit(body) -> Future[IngestResult]`, `statistics() -> IngestStatistics` (counters by
              name, outbox rows and age, ledger totals, what has no price).
    writer:   carries rows to the warehouse; `last_error` is "" while it can.
    control:  the SQLite store behind them; only store/control/ speaks SQL to it.
    """

    warehouse: Warehouse
    control: ControlStore
    budgets: BudgetService
    rating: RatingService
    ingest: IngestService
    writer: WarehouseWriter
    clock: Clock
    ingest_token: str
