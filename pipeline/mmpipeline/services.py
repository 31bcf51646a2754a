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
    from mmpipeline.rating.service import RatingService
    from mmpipeline.store.control import ControlStore
    from mmpipeline.store.warehouse import Warehouse

# Now, in nanoseconds since the epoch.
Clock = Callable[[], int]


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of a running pipeline.

    budgets:  `list(tenant=None) -> list[BudgetStatus]`, `get(name, tenant)`, `set(...)`, `delete(...)`,
              `alerts(limit) -> list[AlertRow]` (see budgets/model.py for the shapes).
    rating:   `price(...)` of one usage, `cards(provider, model, at)` for the prices page, and
              `catalogue_version`.
    ingest:   `ingest(batch) -> IngestResult` and `statistics() -> IngestStatistics` (accepted,
              duplicates, rejected by reason, outbox rows and lag, unpriced calls by reason and model).
    control:  the SQLite store behind them; only its own module speaks SQL.
    """

    warehouse: Warehouse
    control: ControlStore
    budgets: BudgetService
    rating: RatingService
    ingest: IngestService
    clock: Clock
    ingest_token: str
