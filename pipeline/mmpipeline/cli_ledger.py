"""`mmpipeline ledger`: looks after the ledger itself."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import click

from mmpipeline import client
from mmpipeline.cli_context import Context, configured, fail
from mmpipeline.config import PipelineSettings
from mmpipeline.output import output_option, structured, table
from mmproto.callform import format_time
from mmproto.exits import Exit

if TYPE_CHECKING:
    from sqlalchemy import Engine

_COLUMNS = ["what", "tenant", "subject", "field", "kept", "charged"]

_DAY_NS = 86_400_000_000_000

# All charges are read: on a large ledger that takes minutes.
_TIMEOUT_S = 3600.0


@click.group()
def ledger() -> None:
    """Look after the ledger."""


@ledger.command()
@click.option("--tenant", "tenants", multiple=True, help="Only of this tenant; may be repeated.")
@click.option("--url", help="Ask the pipeline at this address.")
@output_option
@configured
def verify(context: Context, tenants: tuple[str, ...], url: str | None, output: str) -> None:
    """Hold budgets, totals and the warehouse against the charges, and print every difference.

    Reads all charges. Rows that wait for the warehouse count as if they were there. Exit code 0 where
    everything agrees, 1 where something differs; what could not be compared is said.
    """
    form = _verification(context.settings(), tenants, url)
    if output != "table":
        click.echo(structured(form, output))
    else:
        click.echo(_text(form))
    sys.exit(Exit.OK if form["agrees"] else Exit.UNHEALTHY)


@ledger.command()
@configured
def migrate(context: Context) -> None:
    """Bring the control store's tables up to this version.

    PostgreSQL: as the role of control.owner_url, which makes the roles modelmeter_owner, modelmeter_worker
    and modelmeter_app where they are missing; grant one of the latter two to each role that logs in. SQLite
    is brought up to date whenever it is opened.
    """
    from mmpipeline.store.control import schema  # noqa: PLC0415
    from mmpipeline.store.control.database import Database  # noqa: PLC0415

    settings = context.settings()
    with _owned(settings) as owner:
        if owner is None:
            Database.open(settings.control_url).close()
        else:
            schema.migrate(owner)
    click.echo(f"the control store has schema {schema.HEAD}")


@ledger.command()
@configured
def prune(context: Context) -> None:
    """Drop call ids and single charges that are older than ledger.keep_ids_days and keep_charges_days.

    Run it once a day. What was spent of budgets stays. Calls from before the ids that are kept are refused
    from then on, since nobody knows whether they are duplicates. PostgreSQL: as the role of
    control.owner_url.
    """
    from mmpipeline.store.control import pruning  # noqa: PLC0415
    from mmpipeline.store.control.database import Database  # noqa: PLC0415

    settings = context.settings()
    keep = settings.ledger.keep_ids_days, settings.ledger.keep_charges_days
    with _owned(settings) as owner:
        if owner is None:
            with closing(Database.open(settings.control_url)) as database:
                pruned = pruning.prune_sqlite(database, time.time_ns(), *keep)
            what = "rows"
        else:
            pruned = pruning.prune_postgresql(owner, time.time_ns(), *keep)
            what = "days"
    ids, charges = (format_time((day + 1) * _DAY_NS)[:10] for day in (pruned.ids, pruned.charges))
    click.echo(f"{pruned.dropped} {what} dropped; ids are kept from {ids} on, charges from {charges} on")


@contextmanager
def _owned(settings: PipelineSettings) -> Iterator[Engine | None]:
    """PostgreSQL as its owner, None for SQLite; ends the process with one line where that fails."""
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    from mmpipeline.store.control.database import (  # noqa: PLC0415
        DatabaseError,
        StoreBusy,
        postgresql_engine,
        said,
    )
    from mmpipeline.store.control.schema import SchemaError  # noqa: PLC0415

    if settings.control.url and not settings.control.owner_url:
        fail("control.owner_url is not set; it is the address of the role that owns the tables", Exit.USAGE)
    owner = None
    try:
        if settings.control.owner_url:
            owner = postgresql_engine(settings.control.owner_url.reveal())
        yield owner
    except SchemaError as error:
        fail(f"{error}; {error.hint}")
    except (DatabaseError, StoreBusy) as error:
        fail(str(error), Exit.UNREACHABLE)
    except SQLAlchemyError as error:
        fail(f"the control store refused: {said(error)}; check control.owner_url", Exit.UNREACHABLE)
    finally:
        if owner is not None:
            owner.dispose()


def _verification(settings: PipelineSettings, tenants: tuple[str, ...], url: str | None) -> dict[str, Any]:
    """From whoever has the warehouse: chDB's folder is the running pipeline's, a server is anybody's."""
    from mmpipeline.store.control.database import DatabaseError, StoreBusy  # noqa: PLC0415
    from mmpipeline.store.warehouse.errors import WarehouseError  # noqa: PLC0415
    from mmpipeline.verify.run import UnknownTenants  # noqa: PLC0415

    is_embedded = not settings.warehouse.url
    try:
        try:
            if url is None and not is_embedded:
                return _here(settings, tenants)
            where = url or client.address(settings.address_file)
            return dict(client.get(where, "/v1/ledger/verify", {"tenant": list(tenants)}, _TIMEOUT_S))
        except client.NotRunning as error:
            if url is not None:
                fail(str(error), Exit.UNREACHABLE)
            if not settings.control.url and not settings.control_file.exists():
                fail(f"{error}; {settings.folder} holds no data either", Exit.UNREACHABLE)
            return _here(settings, tenants)
    except (client.Refused, UnknownTenants) as error:
        fail(str(error), Exit.USAGE if isinstance(error, UnknownTenants) else Exit.UNHEALTHY)
    except (DatabaseError, StoreBusy, WarehouseError) as error:
        fail(str(error), Exit.UNREACHABLE)


def _here(settings: PipelineSettings, tenants: tuple[str, ...]) -> dict[str, Any]:
    from mmpipeline.store.control.database import Database  # noqa: PLC0415
    from mmpipeline.store.warehouse.warehouse import Warehouse  # noqa: PLC0415
    from mmpipeline.verify.run import verify as run  # noqa: PLC0415

    with (
        closing(Database.open(settings.control_url)) as database,
        closing(Warehouse.open(settings.warehouse_folder, settings.warehouse)) as warehouse,
    ):
        return run(database, warehouse, tenants, time.time_ns()).form()


def _text(form: dict[str, Any]) -> str:
    lines = []
    if form["differences"]:
        lines += [table(form["differences"], _COLUMNS, frozenset({"kept", "charged"})), ""]
    lines += [f"not compared: {reason}" for reason in form["not_compared"]]
    compared = ", ".join(f"{number} {what}" for what, number in form["compared"].items()) or "nothing"
    count = len(form["differences"])
    verdict = (
        "everything agrees" if form["agrees"] else f"{count} {'difference' if count == 1 else 'differences'}"
    )
    lines.append(f"{verdict}; compared for {len(form['tenants'])} tenants: {compared}")
    return "\n".join(lines)
