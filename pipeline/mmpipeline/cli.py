"""`mmpipeline`: the pipeline's command line.

Expected failures are one line on standard error and an exit code of mmproto.exits; results go to standard
output, in the same shape whether the pipeline runs or not.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

import click

from mmpipeline import client
from mmpipeline.cli_budgets import budgets
from mmpipeline.cli_context import Context, configured, fail
from mmpipeline.cli_ledger import ledger
from mmpipeline.cli_prices import prices
from mmpipeline.cli_topics import topics
from mmpipeline.cli_workers import deadletter, distributed_status, kafka_text, sink, work
from mmpipeline.config import PipelineSettings
from mmpipeline.output import comma_separated, output_option, structured, table
from mmproto.exits import Exit
from mmproto.settings import ConfigurationError, describe, shown

# What commands have to say they print; `serve` is the one that logs, and sets it up itself.
logging.getLogger("mmpipeline").addHandler(logging.NullHandler())

_HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_NUMERIC = frozenset({"calls", "unpriced_calls", "errors", "input_tokens", "output_tokens", "cost_usd"})


@click.group(context_settings=_HELP)
def cli() -> None:
    """Prices LLM calls, keeps budgets, and serves the API and the dashboards."""


@cli.command()
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port to listen on; 0 takes a free one.")
@configured
def serve(context: Context, host: str | None, port: int | None) -> None:
    """Run ingest, rating, budgets, API and dashboards until SIGTERM."""
    from mmpipeline.rating.catalogue import CatalogueError  # noqa: PLC0415 - commands load what they need
    from mmpipeline.serve import StartError  # noqa: PLC0415
    from mmpipeline.serve import serve as run  # noqa: PLC0415

    settings = context.settings({"listen.host": host, "listen.port": port})
    try:
        run(settings)
    except StartError as error:
        fail(str(error), error.code)
    except ConfigurationError as error:
        fail(str(error), Exit.CONFIGURATION)
    except CatalogueError as error:
        fail(f"{error}; install the version in requirements/")


@cli.command()
@click.option("--url", help="Ask the pipeline at this address.")
@output_option
@configured
def status(context: Context, url: str | None, output: str) -> None:
    """Say how the running pipeline is: exit code 0 healthy, 3 degraded, 1 unhealthy, 4 unreachable."""
    from mmpipeline.status import VERDICT_EXITS  # noqa: PLC0415

    settings = context.settings()
    try:
        if url is None and settings.distributed:
            form = distributed_status(settings)
        else:
            form = client.get(url or client.address(settings.address_file), "/v1/status")
        code = VERDICT_EXITS[form["verdict"]]
    except (client.NotRunning, client.Refused) as error:
        form = {"verdict": "unreachable", "reasons": [str(error)]}
        code = Exit.UNREACHABLE
    click.echo(_status_text(form) if output == "table" else structured(form, output))
    sys.exit(code)


@cli.command()
@click.option(
    "--by",
    multiple=True,
    help="Group by team (the default), application, user, provider, model, node, process, hour, day or "
    "month; may be repeated.",
)
@click.option("--month", help="A month, such as 2026-11; the current one where nothing is given.")
@click.option("--from", "since", help="First day, such as 2026-11-01 (UTC).")
@click.option("--to", "until", help="The day after the last one (UTC).")
@click.option("--tenant", default="default", show_default=True, help="Whose calls.")
@click.option("--url", help="Ask the pipeline at this address.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml", "csv"]),
    default="table",
    show_default=True,
    help="How to print the report.",
)
@configured
def report(
    context: Context,
    /,
    *,
    by: tuple[str, ...],
    month: str | None,
    since: str | None,
    until: str | None,
    tenant: str,
    url: str | None,
    output: str,
) -> None:
    """Print what was spent, by team or any other dimension."""
    from mmpipeline import report as reports  # noqa: PLC0415

    try:
        span = reports.span_of(month, since, until, time.time_ns())
        chosen = reports.dimensions(by or ("team",))
    except reports.ReportError as error:
        fail(str(error), Exit.USAGE)
    form = _report(context.settings(), url, tenant, span, chosen)
    if output in ("json", "yaml"):
        click.echo(structured(form, output))
        return
    columns = [*chosen, "calls", "unpriced_calls", "errors", "input_tokens", "output_tokens", "cost_usd"]
    rows = [reports.flat(chosen, row) for row in form["rows"]]
    if output == "csv":
        click.echo(comma_separated(rows, columns))
        return
    total = reports.flat((), form["total"]) | {chosen[0]: "total"}
    click.echo(f"{form['from'][:10]} to {form['to'][:10]}, tenant {tenant}, USD")
    click.echo(table([*rows, total | dict.fromkeys(chosen[1:], "")], columns, _NUMERIC))


def _report(settings: PipelineSettings, url: str | None, tenant: str, span: Any, by: Any) -> dict[str, Any]:
    """The report from whoever has the warehouse: the running pipeline, or else this process."""
    from mmpipeline import report as reports  # noqa: PLC0415
    from mmpipeline.store.control.database import DatabaseError, StoreBusy  # noqa: PLC0415
    from mmpipeline.store.warehouse.errors import WarehouseError  # noqa: PLC0415

    try:
        try:
            return reports.report_from_api(url or client.address(settings.address_file), tenant, span, by)
        except client.NotRunning as error:
            if url is not None:
                fail(str(error), Exit.UNREACHABLE)
            if not (settings.control.url or settings.control_file.exists()):
                fail(f"{error}; {settings.folder} holds no data either", Exit.UNREACHABLE)
            return reports.report_from_folder(settings, tenant, span, by)
    except client.Refused as error:
        fail(str(error))
    except (WarehouseError, DatabaseError, StoreBusy) as error:
        fail(str(error))


@cli.command()
@click.option(
    "-o",
    "--output",
    type=click.Choice(["json", "table"]),
    default="json",
    show_default=True,
    help="One JSON object for each question, or tables.",
)
@configured
def price(context: Context, output: str) -> None:
    """Explain what a usage costs: JSON on standard input, the charge on standard output.

    \b
    Input, one object or one a line:
      {"provider": "openai", "model": "gpt-4o", "at": "2026-11-23T10:00:00Z",
       "service_tier": "standard", "usage": {"input": 1000, "output": 200}}

    What has no known price has "cost_usd": null and a reason. Exit code 2 where a question is malformed;
    the others are answered all the same.
    """
    import json  # noqa: PLC0415

    from mmpipeline.pricing import InputError, answer, questions  # noqa: PLC0415
    from mmpipeline.rating.service import RatingService  # noqa: PLC0415

    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        fail(f"standard input is not UTF-8: {error}", Exit.USAGE)
    settings = context.settings()
    rating: RatingService | None = None
    bad = False
    for question in questions(text):
        if isinstance(question, InputError):
            click.echo(f"mmpipeline: {question}", err=True)
            bad = True
            continue
        if rating is None:
            try:
                rating = RatingService.open(settings.rating.overrides)
            except ConfigurationError as error:
                fail(str(error), Exit.CONFIGURATION)
        form = answer(rating, question, time.time_ns)
        click.echo(json.dumps(form) if output == "json" else _price_text(form))
    sys.exit(Exit.USAGE if bad else Exit.OK)


@cli.group()
def config() -> None:
    """Check and show the configuration."""


@config.command()
@configured
def validate(context: Context) -> None:
    """Check the configuration, the negotiated rates included."""
    settings = context.settings()
    if settings.rating.overrides is not None:
        from mmpipeline.rating.books import Installed  # noqa: PLC0415

        try:
            Installed(settings.rating.overrides).book()
        except ConfigurationError as error:
            fail(str(error), Exit.CONFIGURATION)
    click.echo("the configuration is valid")


@config.command()
@output_option
@configured
def show(context: Context, output: str) -> None:
    """Show every setting with its value."""
    settings = context.settings()
    if output != "table":
        click.echo(structured(shown(settings), output))
        return
    rows = []
    for key, _, _, about in describe(PipelineSettings):
        value: Any = settings
        for part in key.split("."):
            value = getattr(value, part)
        rows.append({"setting": key, "value": shown(value), "about": about})
    click.echo(table(rows, ["setting", "value", "about"], frozenset()))


@cli.command("version")
def show_version() -> None:
    """Print the versions of ModelMeter and of its price catalogue."""
    from mmpipeline.rating.catalogue import catalogue_version  # noqa: PLC0415

    try:
        own = version("modelmeter")
    except PackageNotFoundError:
        own = "from source"
    click.echo(f"mmpipeline {own} ({catalogue_version()})")


cli.add_command(budgets)
cli.add_command(ledger)
cli.add_command(prices)
cli.add_command(topics)
cli.add_command(work)
cli.add_command(sink)
cli.add_command(deadletter)


def _status_text(form: dict[str, Any]) -> str:
    lines = [form["verdict"], *(f"  {reason}" for reason in form["reasons"])]
    if "ingest" in form:
        ingest, ledger, warehouse = form["ingest"], form["ledger"], form["warehouse"]
        rejected = sum(ingest["rejected"].values())
        lines += [
            "",
            f"calls      {ledger['calls']}, {ledger['unpriced_calls']} of them without a price",
            f"cost       {ledger['cost_usd']} USD",
            f"ingest     {ingest['duplicates']} duplicates, {rejected} rejected",
            f"warehouse  {warehouse['waiting_rows']} rows waiting, {warehouse['lag_s']} s behind",
            f"prices     {form['rate_cards_version']}",
        ]
        lines += kafka_text(form)
        if form["unpriced"]:
            columns = ["provider", "model", "reason", "calls"]
            lines += ["", table(form["unpriced"], columns, frozenset({"calls"}))]
        if form["budgets"]:
            columns = ["name", "period", "spent_usd", "limit_usd", "percent", "state"]
            numeric = frozenset({"spent_usd", "limit_usd", "percent"})
            lines += ["", table(form["budgets"], columns, numeric)]
    return "\n".join(lines)


def _price_text(form: dict[str, Any]) -> str:
    if form["cost_usd"] is None:
        return f"no known price: {form['reason']}"
    columns = ["bucket", "quantity", "rate", "per", "amount"]
    lines = table(form["lines"], columns, frozenset(columns[1:]))
    return f"{lines}\n{form['cost_usd']} USD by {form['rate_card']}"


def main() -> NoReturn:
    """Entry point: no traceback for what people can cause."""
    try:
        cli.main(prog_name="mmpipeline", standalone_mode=True)
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(Exit.UNHEALTHY)
    sys.exit(Exit.OK)


if __name__ == "__main__":
    main()
