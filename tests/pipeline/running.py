"""A whole pipeline in this process, without its network: stores in a folder, a clock that stands still."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

from mmpipeline.budgets.service import BudgetService
from mmpipeline.ingest.service import IngestService
from mmpipeline.ingest.writer import WarehouseWriter
from mmpipeline.rating.service import RatingService
from mmpipeline.services import Services
from mmpipeline.store.control.database import Database, file_url
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmproto.v1.call_pb2 import Call
from mmproto.v1.ingest_pb2 import IngestBatch

# 2026-11-23T12:34:56Z, a Monday.
NOW_NS = 1_795_437_296 * 1_000_000_000
INGEST_TOKEN = "an-ingest-token-for-tests"


@dataclass(frozen=True, slots=True)
class Pipeline:
    """Services, and how tests bring calls to them."""

    folder: Path
    services: Services

    def take(self, calls: Iterable[Call]) -> None:
        """Ingest calls as a sensor's batch, and deliver them to the warehouse."""
        ingest, writer = self.services.ingest, self.services.writer
        assert ingest is not None and writer is not None
        result = ingest.ingest(IngestBatch(schema_version=1, node="node-1", calls=calls))
        assert not result.rejected
        writer.drain()

    @property
    def admin_token(self) -> str:
        return (self.folder / "admin.token").read_text().strip()


@contextmanager
def pipeline(folder: Path, now_ns: int = NOW_NS) -> Iterator[Pipeline]:
    """A pipeline over `folder`."""
    with ExitStack() as closing:
        control = Database.open(file_url(folder / "control.sqlite"))
        closing.callback(control.close)
        warehouse = closing.enter_context(Warehouse.open(folder / "warehouse"))
        rating = RatingService.open()
        ingest = IngestService(control, rating, lambda: now_ns)
        ingest.start()
        closing.callback(ingest.stop)
        services = Services(
            warehouse=warehouse,
            control=control,
            folder=folder,
            budgets=BudgetService(control, lambda: now_ns),
            rating=rating,
            ingest=ingest,
            writer=WarehouseWriter(control, lambda _: warehouse),
            clock=lambda: now_ns,
            ingest_token=INGEST_TOKEN,
        )
        yield Pipeline(folder, services)


@contextmanager
def served(app: ASGIApp) -> Iterator[str]:
    """An application on a free port of 127.0.0.1; gives its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None))
    thread = threading.Thread(target=server.run)
    started = threading.Event()
    startup = server.startup

    async def announce(sockets: list[object] | None = None) -> None:
        await startup(sockets)  # type: ignore[arg-type]
        started.set()

    server.startup = announce  # type: ignore[method-assign, assignment]
    thread.start()
    try:
        assert started.wait(30)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
