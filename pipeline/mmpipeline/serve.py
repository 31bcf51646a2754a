"""`mmpipeline serve`: ingest, rating, budgets, warehouse, API and dashboards in one process.

With control.url it is API and dashboards alone: calls come by Kafka to `mmpipeline work`, and reach the
warehouse by `mmpipeline sink`.

Order matters at both ends. Everything that can fail is opened before the port is announced, so that
whoever reads `listening on` can send at once. At the end no new request is taken, what was taken is
answered, then rows that wait are delivered, then the stores are closed; a kill in between costs nothing,
since what was answered is in the ledger and the outbox.

Errors: `StartError`, one line with what to do.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

import uvicorn

from mmpipeline.budgets.service import BudgetService
from mmpipeline.budgets.watch import AmountWatch
from mmpipeline.config import PipelineSettings
from mmpipeline.ingest.authority import TokenError, ingest_token
from mmpipeline.ingest.service import IngestService
from mmpipeline.ingest.writer import WarehouseWriter
from mmpipeline.rating.service import RatingService
from mmpipeline.services import Services
from mmpipeline.store.control.database import Database, DatabaseError, StoreBusy
from mmpipeline.store.warehouse.errors import WarehouseError
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmproto.exits import Exit

_log = logging.getLogger(__name__)

# How long requests that are under way may take once the process is told to end.
_GRACE_S = 5


class StartError(Exception):
    """The pipeline cannot start: str() is one line, `code` the exit code."""

    def __init__(self, message: str, code: Exit = Exit.UNHEALTHY) -> None:
        super().__init__(message)
        self.code = code


def serve(settings: PipelineSettings) -> None:
    """Run until SIGTERM or SIGINT. Raises StartError."""
    from mmpipeline.api.app import create_app  # noqa: PLC0415 - templates and routes: only for serving

    logging.basicConfig(
        level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    _usable_folder(settings.folder)
    with ExitStack() as closing:
        listener = closing.enter_context(_bind(settings.listen.host, settings.listen.port))
        services = _open(settings, closing)
        try:
            app = create_app(services)
        except TokenError as error:
            raise StartError(str(error), Exit.PERMISSION) from error
        _calm_collector()
        config = uvicorn.Config(
            app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=_GRACE_S
        )
        # uvicorn raises the signal again after its own end; without a handler that would end us here.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _ended_by)
        closing.callback(settings.address_file.unlink, missing_ok=True)
        _Server(config, settings.address_file).run(sockets=[listener])
        _log.info("no more requests; delivering what waits")


def _open(settings: PipelineSettings, closing: ExitStack) -> Services:
    """Stores and threads, closed in the opposite order. Raises StartError, ConfigurationError."""
    try:
        token = ingest_token(settings.token_file)
        control = Database.open(settings.control_url, "app")
        closing.callback(control.close)
        warehouse = Warehouse.open(settings.warehouse_folder, settings.warehouse)
        closing.callback(warehouse.close)
        rating = RatingService.stored(control, settings.rating.overrides, time.time_ns())
    except TokenError as error:
        raise StartError(str(error), Exit.PERMISSION) from error
    except (DatabaseError, StoreBusy, WarehouseError) as error:
        raise StartError(str(error)) from error
    budgets = BudgetService(control, time.time_ns)
    writer = ingest = None
    if control.dialect == "sqlite":
        writer = WarehouseWriter(
            control, lambda _: warehouse, settings.warehouse.gather, settings.warehouse.batch_rows
        )
        ingest = IngestService(control, rating, time.time_ns, on_commit=writer.wake)
        writer.start()
        closing.callback(writer.stop)
        writer.wake()  # rows may wait since the last run
        ingest.start()
        closing.callback(ingest.stop)
        watch = AmountWatch(budgets)
        watch.start()
        closing.callback(watch.stop)
    return Services(
        warehouse=warehouse,
        control=control,
        folder=settings.folder,
        budgets=budgets,
        rating=rating,
        ingest=ingest,
        writer=writer,
        clock=time.time_ns,
        ingest_token=token,
    )


def _calm_collector() -> None:
    """Spare the collector what lives until the end, and batches of calls: they have no cycles to find."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


class _Server(uvicorn.Server):
    """Announces its address once it takes requests."""

    def __init__(self, config: uvicorn.Config, address_file: Path) -> None:
        super().__init__(config)
        self._address_file = address_file

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            host, port = sockets[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            url = f"http://{shown}:{port}"
            draft = self._address_file.with_suffix(".draft")
            draft.write_text(url + "\n", encoding="ascii")
            draft.replace(self._address_file)
            print(f"listening on {url}", flush=True)


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(512)
    except OSError as error:
        listener.close()
        if isinstance(error, PermissionError):
            raise StartError(
                f"port {port} needs a privilege: choose one above 1023", Exit.PERMISSION
            ) from error
        raise StartError(
            f"cannot listen on {host}:{port}: {error.strerror}; is a pipeline running already? "
            "set listen.port or --port to another one"
        ) from error
    return listener


def _usable_folder(folder: Path) -> None:
    hint = "run as its owner, or choose another with --state-dir or MODELMETER_STATE_DIR"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"state folder {folder} cannot be made: {error.strerror}; {hint}", Exit.PERMISSION
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StartError(f"state folder {folder} is not writable; {hint}", Exit.PERMISSION)


def _ended_by(number: int, frame: FrameType | None) -> None:
    _log.info("ended by %s", signal.Signals(number).name)
