"""The OpenAPI document as it is committed: `python -m mmpipeline.api.openapi` prints it.

It comes from the running code alone, so that a test can hold the committed file against it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import orjson

from mmpipeline.api.app import create_app
from mmpipeline.budgets.service import BudgetService
from mmpipeline.ingest.service import IngestService
from mmpipeline.ingest.writer import WarehouseWriter
from mmpipeline.rating.service import RatingService
from mmpipeline.services import Services
from mmpipeline.store.control.database import Database, file_url
from mmpipeline.store.warehouse.warehouse import Warehouse


def document() -> bytes:
    """The document of an application over empty stores."""
    with (
        tempfile.TemporaryDirectory(prefix="mmpipeline-openapi-") as folder,
        Warehouse.open(Path(folder, "warehouse")) as warehouse,
    ):
        control = Database.open(file_url(Path(folder, "control.sqlite")))
        try:
            rating = RatingService.open()
            services = Services(
                warehouse=warehouse,
                control=control,
                folder=Path(folder),
                budgets=BudgetService(control, time.time_ns),
                rating=rating,
                ingest=IngestService(control, rating, time.time_ns),
                writer=WarehouseWriter(control, lambda _: warehouse),
                clock=time.time_ns,
                ingest_token="",
            )
            form = create_app(services).openapi()
        finally:
            control.close()
    return orjson.dumps(form, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


if __name__ == "__main__":
    sys.stdout.buffer.write(document())
