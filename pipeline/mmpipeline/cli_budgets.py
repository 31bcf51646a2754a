"""`mmpipeline budgets`: reads and writes budgets in the control store.

The control store is SQLite in WAL mode: these commands and a running pipeline use it side by side, and
the pipeline heeds a change with the next batch of calls.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation

import click

from mmpipeline.budgets.model import DEFAULT_THRESHOLDS, SCOPE_KEYS, Action, BudgetStatus, Threshold
from mmpipeline.budgets.periods import Period
from mmpipeline.budgets.service import BudgetError, BudgetService, UnknownBudget
from mmpipeline.cli_context import Context, configured, fail
from mmpipeline.output import output_option, structured, table
from mmpipeline.status import budget_form
from mmpipeline.store.control.store import ControlStore, ControlStoreError, StoreBusy
from mmproto.exits import Exit

_COLUMNS = ["name", "scope", "period", "spent_usd", "limit_usd", "percent", "unpriced_calls", "state"]
_NUMERIC = frozenset({"spent_usd", "limit_usd", "percent", "unpriced_calls"})

_tenant_option = click.option("--tenant", default="default", show_default=True, help="Whose budget.")


@click.group()
def budgets() -> None:
    """Set and show budgets."""


@budgets.command("list")
@output_option
@configured
def list_(context: Context, output: str) -> None:
    """List all budgets with what is spent of them in the current period."""
    with _service(context) as service:
        forms = [budget_form(status) for status in service.list()]
    if output != "table":
        click.echo(structured(forms, output))
    elif forms:
        rows = [form | {"scope": _scope_text(form["scope"])} for form in forms]
        click.echo(table(rows, _COLUMNS, _NUMERIC))
    else:
        click.echo("no budgets; set one with `mmpipeline budgets set NAME --team TEAM --amount USD`")


@budgets.command()
@click.argument("name")
@_tenant_option
@output_option
@configured
def show(context: Context, name: str, tenant: str, output: str) -> None:
    """Show one budget: spend, thresholds and when each was crossed."""
    with _service(context) as service:
        status = service.get(name, tenant)
    click.echo(_text(status) if output == "table" else structured(budget_form(status), output))


@budgets.command("set")
@click.argument("name")
@click.option("--amount", help="Limit in USD for each period, such as 100 or 99.50.")
@click.option(
    "--period", type=click.Choice([p.value for p in Period]), help="Calendar period in UTC; month by default."
)
@click.option("--team", help="Only calls of this team.")
@click.option("--application", help="Only calls of this application.")
@click.option("--user", help="Only calls of this user.")
@click.option("--model", help="Only calls of this model, by the requested or the answering name.")
@click.option("--key", help="Only calls with this virtual key of the router, by its id.")
@click.option("--alert-at", type=int, multiple=True, help="Alert at this percent; 50, 80 and 100 by default.")
@click.option("--block-at", type=int, help="Refuse calls through the router at this percent.")
@click.option("--no-block", is_flag=True, help="Refuse no calls any more.")
@_tenant_option
@output_option
@configured
def set_(
    context: Context,
    /,
    *,
    name: str,
    amount: str | None,
    period: str | None,
    alert_at: tuple[int, ...],
    block_at: int | None,
    no_block: bool,
    tenant: str,
    output: str,
    **scope_options: str | None,
) -> None:
    """Create the budget NAME, or change it: options that are not given keep their value.

    A new budget starts from what its scope has spent in the current period already. Without --team,
    --application, --user, --model and --key it covers the whole tenant.

    Example: mmpipeline budgets set payments-monthly --team payments --amount 100 --block-at 100
    """
    if no_block and block_at is not None:
        fail("give --block-at or --no-block, not both", Exit.USAGE)
    given = {key: value for key in SCOPE_KEYS if (value := scope_options[key]) is not None}
    with _service(context) as service:
        try:
            before = service.get(name, tenant).budget
        except UnknownBudget:
            before = None
        if before is None and amount is None:
            fail(f"'{name}' is a new budget: give its --amount", Exit.USAGE)
        limit = before.limit_nano_usd if before and amount is None else _nano(amount or "")
        status = service.set(
            name,
            tenant=tenant,
            limit_nano_usd=limit,
            period=Period(period) if period else (before.period if before else Period.MONTH),
            scope={**(before.scope if before else {}), **given},
            thresholds=_thresholds(
                before.thresholds if before else DEFAULT_THRESHOLDS, alert_at, block_at, no_block
            ),
        )
    click.echo(_text(status) if output == "table" else structured(budget_form(status), output))


@budgets.command()
@click.argument("name")
@_tenant_option
@configured
def delete(context: Context, name: str, tenant: str) -> None:
    """Remove a budget. The calls it counted stay in the ledger."""
    with _service(context) as service:
        service.delete(name, tenant)
    click.echo(f"budget {name} is removed")


@contextmanager
def _service(context: Context) -> Iterator[BudgetService]:
    """Budgets over the control store; ends the process with one line where that fails."""
    try:
        store = ControlStore(context.settings().control_file)
    except ControlStoreError as error:
        fail(str(error))
    try:
        yield BudgetService(store, time.time_ns)
    except BudgetError as error:
        fail(str(error), Exit.USAGE)
    except (StoreBusy, sqlite3.Error) as error:
        fail(f"{error}; try again in a moment")
    finally:
        store.close()


def _thresholds(
    before: tuple[Threshold, ...], alert_at: tuple[int, ...], block_at: int | None, no_block: bool
) -> tuple[Threshold, ...]:
    alerts = set(alert_at) or {t.percent for t in before if t.action is Action.ALERT}
    blocks = {t.percent for t in before if t.action is Action.BLOCK}
    if block_at is not None:
        alerts |= {percent for percent in blocks if not alert_at}
        blocks = {block_at}
    elif no_block:
        alerts |= blocks
        blocks = set()
    return tuple(
        Threshold(percent, Action.BLOCK if percent in blocks else Action.ALERT)
        for percent in sorted(alerts | blocks)
    )


def _nano(amount: str) -> int:
    try:
        usd = Decimal(amount.strip().removeprefix("$"))
        nano = usd.scaleb(9)
        if not usd.is_finite() or nano != nano.to_integral_value():
            raise InvalidOperation
    except InvalidOperation:
        fail(f"'{amount}' is no amount in USD; such as 100 or 99.50 is expected", Exit.USAGE)
    return int(nano)


def _scope_text(scope: dict[str, str]) -> str:
    return ", ".join(f"{key} {name or '(unallocated)'}" for key, name in scope.items()) or "whole tenant"


def _text(status: BudgetStatus) -> str:
    form = budget_form(status)
    spent = f"{form['spent_usd']} of {form['limit_usd']} USD ({form['percent']} %)"
    lines = [
        f"{form['name']}: {spent}, {form['state']}",
        f"  covers   {_scope_text(form['scope'])}, tenant {form['tenant']}",
        f"  period   {form['period']} from {form['period_start']}, resets at {form['resets_at']}",
        f"  calls    {form['calls']}, {form['unpriced_calls']} of them without a known price",
    ]
    crossed = {c["percent"]: c for c in form["crossed"]}
    for threshold in form["thresholds"]:
        hit = crossed.get(threshold["percent"])
        when = f"reached at {hit['at']} with {hit['spent_usd']} USD" if hit else "not reached"
        lines.append(f"  {threshold['action']:8} at {threshold['percent']} %: {when}")
    return "\n".join(lines)
