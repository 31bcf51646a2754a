"""`mmpipeline budgets`: reads and writes budgets in the control store.

These commands and a running pipeline use the store side by side, in SQLite (WAL) as in PostgreSQL, and the
pipeline heeds a change with the next batch of calls.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal, InvalidOperation

import click

from mmpipeline.budgets.model import DEFAULT_THRESHOLDS, SCOPE_KEYS, Action, BudgetStatus, Threshold
from mmpipeline.budgets.periods import DEFAULT_TIME_ZONE, Period, local_day, moment_of
from mmpipeline.budgets.service import BudgetError, BudgetService, UnknownBudget
from mmpipeline.cli_context import Context, configured, fail
from mmpipeline.output import output_option, structured, table
from mmpipeline.status import budget_form
from mmpipeline.store.control.database import Database, DatabaseError, StoreBusy
from mmproto.exits import Exit
from mmproto.rating import usd

_COLUMNS = [
    "name",
    "scope",
    "period",
    "time_zone",
    "spent_usd",
    "limit_usd",
    "percent",
    "unpriced_calls",
    "state",
]
_NUMERIC = frozenset({"spent_usd", "limit_usd", "percent", "unpriced_calls"})

_tenant_option = click.option("--tenant", default="default", show_default=True, help="Whose budget.")


@click.group()
def budgets() -> None:
    """Set and show budgets."""


@budgets.command("list")
@_tenant_option
@output_option
@configured
def list_(context: Context, tenant: str, output: str) -> None:
    """List the budgets of a tenant with what is spent of them in the current period."""
    with _service(context) as service:
        forms = [budget_form(status) for status in service.list(tenant)]
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
    "--from",
    "since",
    help="From when on the amount holds: a day of the budget's time zone, such as 2026-12-01, or a time; "
    "from now by default.",
)
@click.option(
    "--period", type=click.Choice([p.value for p in Period]), help="Calendar period; month by default."
)
@click.option("--time-zone", help="Where the period's days begin, such as Europe/Berlin; UTC by default.")
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
    since: str | None,
    period: str | None,
    time_zone: str | None,
    alert_at: tuple[int, ...],
    block_at: int | None,
    no_block: bool,
    tenant: str,
    output: str,
    **scope_options: str | None,
) -> None:
    """Create the budget NAME, or change it: options that are not given keep their value.

    A new budget starts from what its scope has spent in the current period already, and its amount holds
    for the whole of it. Without --team, --application, --user, --model and --key it covers the whole tenant.
    An amount that is set later holds from then on: earlier ones stay on record.

    \b
    Examples:
      mmpipeline budgets set payments-monthly --team payments --amount 100 --block-at 100
      mmpipeline budgets set payments-monthly --amount 150 --from 2026-12-01
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
        if since is not None and amount is None:
            fail("--from says from when on an amount holds: give the --amount", Exit.USAGE)
        zone = time_zone or (before.time_zone if before else DEFAULT_TIME_ZONE)
        status = service.set(
            name,
            tenant=tenant,
            limit_nano_usd=None if amount is None else _nano(amount),
            from_unix_ns=None if since is None else _moment(since, zone),
            time_zone=zone,
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
        database = Database.open(context.settings().control_url, "app")
    except DatabaseError as error:
        fail(str(error))
    try:
        yield BudgetService(database, time.time_ns)
    except BudgetError as error:
        fail(str(error), Exit.USAGE)
    except StoreBusy as error:
        fail(f"{error}; try again in a moment")
    finally:
        database.close()


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
        dollars = Decimal(amount.strip().removeprefix("$"))
        nano = dollars.scaleb(9)
        if not dollars.is_finite() or nano != nano.to_integral_value():
            raise InvalidOperation
    except InvalidOperation:
        fail(f"'{amount}' is no amount in USD; such as 100 or 99.50 is expected", Exit.USAGE)
    return int(nano)


def _moment(text: str, time_zone: str) -> int:
    try:
        return moment_of(text, time_zone)
    except ValueError as error:
        fail(f"--from: {error}", Exit.USAGE)


def _scope_text(scope: dict[str, str]) -> str:
    return ", ".join(f"{key} {name or '(unallocated)'}" for key, name in scope.items()) or "whole tenant"


def _text(status: BudgetStatus) -> str:
    form = budget_form(status)
    spent = f"{form['spent_usd']} of {form['limit_usd']} USD ({form['percent']} %)"
    if status.limit_nano_usd is None:
        spent = f"{form['spent_usd']} USD, no amount in force"
    period = f"{form['period']} from {form['period_start']}, resets at {form['resets_at']}"
    if form["time_zone"] != DEFAULT_TIME_ZONE:
        period += f" ({form['time_zone']})"
    lines = [
        f"{form['name']}: {spent}, {form['state']}",
        f"  covers   {_scope_text(form['scope'])}, tenant {form['tenant']}",
        f"  period   {period}",
        f"  calls    {form['calls']}, {form['unpriced_calls']} of them without a known price",
    ]
    crossed = {c["percent"]: c for c in form["crossed"]}
    for threshold in form["thresholds"]:
        hit = crossed.get(threshold["percent"])
        when = f"reached at {hit['at']} with {hit['spent_usd']} USD" if hit else "not reached"
        lines.append(f"  {threshold['action']:8} at {threshold['percent']} %: {when}")
    if len(form["amounts"]) > 1 or status.limit_nano_usd is None:
        zone = status.budget.time_zone
        lines += [
            f"  amount   {usd(amount.limit_nano_usd)} USD from {local_day(amount.from_unix_ns, zone)}"
            for amount in status.budget.amounts
        ]
    return "\n".join(lines)
