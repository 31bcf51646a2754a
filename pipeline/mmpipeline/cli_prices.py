"""`mmpipeline prices`: the books of prices in the control store, and what they charge.

These commands use the control store beside a running pipeline, which takes over an imported book between
two transactions. A book is asked for by its version, by the digest at the end of it, or by the number that
`prices books` shows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mmpipeline.cli_context import Context, configured, fail
from mmpipeline.output import output_option, structured, table
from mmproto.exits import Exit
from mmproto.settings import ConfigurationError

if TYPE_CHECKING:
    from mmpipeline.ingest.repricing import Outcome, Sums
    from mmpipeline.rating.books import Installed
    from mmpipeline.store.control.database import Database, Role
    from mmproto.ratebook import RateBook

_CARD = ["provider", "model", "tier", "from", "to", "buckets", "usd", "per", "negotiated"]
_CHANGE = ["change", "provider", "model", "tier", "from", "to", "buckets", "old", "new", "per"]
_REPRICED = ["provider", "model", "calls", "changed", "old_usd", "new_usd", "old_unpriced", "new_unpriced"]
_NUMERIC = frozenset({"per", *_REPRICED[2:]})

_provider_option = click.option("--provider", default="", help="Only of this provider, by any of its names.")
_at_option = click.option("--at", help="A day or time, such as 2026-11-01 (UTC); now by default.")


@click.group()
def prices() -> None:
    """Show, import and compare prices, and charge by them anew."""


@prices.command()
@output_option
@configured
def books(context: Context, output: str) -> None:
    """List the books of prices that were imported, the newest first."""
    from mmpipeline.store.control import prices as stored  # noqa: PLC0415 - commands load what they need
    from mmproto.callform import format_time  # noqa: PLC0415

    with _store(context) as database, database.read() as connection:
        held, imports = stored.in_force(connection), stored.imports(connection)
    forms = [
        {
            "number": one.seq,
            "version": one.version,
            "imported_at": format_time(one.at_unix_ns),
            "source": one.source,
            "in_force": held is not None and one.seq == held.seq,
        }
        for one in imports
        if one.holds
    ]
    if output != "table":
        click.echo(structured(forms, output))
    elif forms:
        click.echo(table([_yes(form) for form in forms], list(forms[0]), frozenset({"number"})))
    else:
        click.echo("no book yet; `mmpipeline serve` imports what is installed, or `mmpipeline prices import`")


@prices.command("list")
@_provider_option
@click.option("--model", default="", help="Only of the model that this reference means.")
@click.option("--tier", default="", help="Only of this service tier, such as standard or batch.")
@_at_option
@click.option("--all-times", is_flag=True, help="Of all times, not only those in force.")
@click.option("--book", help="In this book instead of the one in force.")
@output_option
@configured
def list_(
    context: Context,
    /,
    *,
    provider: str,
    model: str,
    tier: str,
    at: str | None,
    all_times: bool,
    book: str | None,
    output: str,
) -> None:
    """List rate cards in force."""
    from mmpipeline.rating.listing import card_form, listed  # noqa: PLC0415

    if all_times and at is not None:
        fail("give --at or --all-times, not both", Exit.USAGE)
    with _store(context) as database:
        chosen = _book(context, database, book)
    cards = listed(chosen, provider, model, tier, None if all_times else _moment(at))
    if output != "table":
        click.echo(structured([card_form(card) for card in cards], output))
    elif cards:
        click.echo(table([row for card in cards for row in _card_rows(card)], _CARD, _NUMERIC))
    else:
        fail(f"no rate card of that kind in {chosen.version}")


@prices.command()
@click.argument("what")
@click.option("--tier", default="standard", show_default=True, help="With --at: which service tier.")
@click.option("--at", help="Only the card that applies on this day or at this time (UTC).")
@click.option("--book", help="In this book instead of the one in force.")
@output_option
@configured
def show(context: Context, /, *, what: str, tier: str, at: str | None, book: str | None, output: str) -> None:
    """Show a card by its id, or the prices of a model over time.

    WHAT is a card's id as charges carry it, or PROVIDER/MODEL with any reference that calls carry. Every
    card that was ever imported is found.

    \b
    mmpipeline prices show openai/gpt-4o-2024-08-06 --at 2026-11-01
    mmpipeline prices show 'openai/gpt-4o/standard@always#b8b7c81f086e'
    """
    from mmpipeline.rating.listing import Listed, card_form, listed  # noqa: PLC0415
    from mmpipeline.store.control import prices as stored  # noqa: PLC0415

    with _store(context) as database:
        if "#" in what:
            with database.read() as connection:
                found = stored.find_card(connection, what)
            if found is None:
                fail(f"no card '{what}' was ever imported; charges name the card that they were made by")
            card = Listed(found.card, found.is_override)
            form = {**card_form(card), "books": list(found.versions)}
            click.echo(structured(form, output) if output != "table" else _card_text(card, found.versions))
            return
        chosen = _book(context, database, book)
    provider, slash, reference = what.partition("/")
    if not slash or not reference:
        fail(f"'{what}' is neither a card's id nor PROVIDER/MODEL, such as openai/gpt-4o", Exit.USAGE)
    if at is None:
        cards = listed(chosen, provider, reference)
        if not cards:
            fail(_unknown(chosen, provider, reference))
    else:
        applies, reason = chosen.find(provider, [reference], tier, _moment(at))
        if applies is None:
            fail(f"no price of {what} {tier} at {at}: {reason}")
        cards = [one for one in listed(chosen, provider, reference) if one.card.id == applies.id][:1]
    if output != "table":
        click.echo(structured([card_form(card) for card in cards], output))
    elif at is None:
        click.echo(table([row for card in cards for row in _card_rows(card)], _CARD, _NUMERIC))
        click.echo("\n".join(dict.fromkeys(f"source: {text}" for one in cards for text in one.card.sources)))
    else:
        click.echo(_card_text(cards[0], (chosen.version,)))


@prices.command("import")
@click.option("--file", type=click.Path(path_type=Path), help="Negotiated rates instead of rating.overrides.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@output_option
@configured
def import_(context: Context, /, *, file: Path | None, dry_run: bool, output: str) -> None:
    """Import the installed catalogue with the negotiated rates over it, and charge by it from now on.

    What was charged keeps its charge; `mmpipeline prices reprice` charges anew.
    """
    from mmpipeline.rating.listing import change_form, differences  # noqa: PLC0415
    from mmpipeline.store.control import prices as stored  # noqa: PLC0415

    installed = _installed(context, file)
    book = _complete(installed)
    with _store(context) as database:
        with database.read() as connection:
            held = stored.in_force(connection)
            before = None if held is None else stored.read_book(connection, held.version)
        changes = [] if before is None else [change_form(one) for one in differences(before, book)]
        taken = False
        if not dry_run:
            made_from = "" if file is not None else installed.made_from()
            with database.write() as connection:
                taken = stored.import_book(connection, book, installed.source, made_from, time.time_ns())
    form = {
        "version": book.version,
        "before": None if before is None else before.version,
        "imported": taken,
        "changes": changes,
    }
    if output != "table":
        click.echo(structured(form, output))
        return
    if changes:
        click.echo(table([row for one in changes for row in _change_rows(one)], _CHANGE, _NUMERIC))
    if dry_run:
        click.echo(f"{book.version} would hold; nothing was imported")
    elif taken:
        click.echo(f"{book.version} holds from now on")
    else:
        click.echo(f"{book.version} holds already; nothing was changed")


@prices.command()
@click.argument("before", required=False)
@click.argument("after", required=False)
@_provider_option
@output_option
@configured
def diff(context: Context, /, *, before: str | None, after: str | None, provider: str, output: str) -> None:
    """Compare the book in force with what is installed, a book with the one in force, or two books."""
    from mmpipeline.rating.listing import change_form, differences  # noqa: PLC0415

    with _store(context) as database:
        old = _book(context, database, before)
        new = _complete(_installed(context, None)) if before is None else _book(context, database, after)
    changes = [change_form(one) for one in differences(old, new, provider)]
    if output != "table":
        click.echo(structured({"before": old.version, "after": new.version, "changes": changes}, output))
        return
    click.echo(f"from {old.version} to {new.version}")
    if changes:
        click.echo(table([row for one in changes for row in _change_rows(one)], _CHANGE, _NUMERIC))
    else:
        click.echo("no price differs")


@prices.command()
@click.option("--from", "since", required=True, help="First day or time, such as 2026-11-01 (UTC).")
@click.option("--to", "until", help="The day after the last one, or a time (UTC); now by default.")
@click.option("--tenant", "tenants", multiple=True, help="Only of this tenant; may be repeated.")
@click.option("--provider", default="", help="Only of this provider, as calls name it.")
@click.option("--model", default="", help="Only of this model, by the requested or the answering name.")
@click.option("--only", type=click.Choice(["unpriced"]), help="Only calls without a price.")
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@output_option
@configured
def reprice(
    context: Context,
    /,
    *,
    since: str,
    until: str | None,
    tenants: tuple[str, ...],
    provider: str,
    model: str,
    only: str | None,
    dry_run: bool,
    output: str,
) -> None:
    """Charge the calls of a span anew, by the book in force.

    A charge that differs is taken back and made anew; budgets, reports and dashboards follow. It works
    beside a running pipeline, in small transactions. What was interrupted is finished by running it again;
    running it over what is done changes nothing. On PostgreSQL control.url must log in as a worker.
    """
    from mmpipeline.ingest import repricing  # noqa: PLC0415
    from mmpipeline.rating.service import NoPrices, RatingService  # noqa: PLC0415
    from mmpipeline.store.control import charged  # noqa: PLC0415

    selection = repricing.Selection(_moment(since), _moment(until), provider, model, only == "unpriced")
    if selection.from_unix_ns >= selection.to_unix_ns:
        fail(f"nothing lies between {since} and {until or 'now'}", Exit.USAGE)
    with _store(context, "worker") as database:
        try:
            rating = RatingService.in_force(database, context.settings().rating.overrides)
            with database.read() as connection:
                everybody = charged.tenants(connection) or []
            run = repricing.Repricing(
                database, rating, selection, time.time_ns, dry_run=dry_run, after_batch=_progress
            )
            outcome = run.run(tenants or everybody)
        except NoPrices:
            fail("no book of prices was imported yet; `mmpipeline prices import` does it")
        except repricing.PricesChanged as error:
            fail(str(error))
    form = _outcome_form(outcome)
    click.echo(_outcome_text(form) if output == "table" else structured(form, output))


@contextmanager
def _store(context: Context, role: Role | None = None) -> Iterator[Database]:
    """The control store; ends the process with one line where it cannot be used."""
    from mmpipeline.store.control.database import Database, DatabaseError, StoreBusy  # noqa: PLC0415

    try:
        database = Database.open(context.settings().control_url, role)
    except DatabaseError as error:
        fail(str(error))
    try:
        yield database
    except StoreBusy as error:
        fail(f"{error}; try again in a moment")
    finally:
        database.close()


def _installed(context: Context, file: Path | None) -> Installed:
    from mmpipeline.rating.books import Installed  # noqa: PLC0415

    try:
        return Installed(file or context.settings().rating.overrides)
    except ConfigurationError as error:
        fail(str(error), Exit.CONFIGURATION)


def _complete(installed: Installed) -> RateBook:
    try:
        return installed.complete()
    except ConfigurationError as error:
        fail(str(error), Exit.CONFIGURATION)


def _book(context: Context, database: Database, name: str | None) -> RateBook:
    """The book in force, or the one that `name` names; what is installed where none was imported yet."""
    from mmpipeline.store.control import prices as stored  # noqa: PLC0415

    with database.read() as connection:
        imports = [one for one in stored.imports(connection) if one.holds]
        if name is None:
            chosen = imports[:1]
        else:
            chosen = [
                one
                for one in imports
                if name in (one.version, str(one.seq)) or one.version.endswith(f"#{name.removeprefix('#')}")
            ]
        book = stored.read_book(connection, chosen[0].version) if chosen else None
    if book is not None:
        return book
    if name is not None:
        fail(f"no book '{name}' was imported; `mmpipeline prices books` lists them", Exit.USAGE)
    return _complete(_installed(context, None))


def _moment(at: str | None) -> int:
    from mmpipeline.pricing import moment  # noqa: PLC0415

    if at is None:
        return time.time_ns()
    try:
        return moment(at)
    except ValueError:
        fail(f"'{at}' is no time; write it as 2026-11-01 or 2026-11-01T12:00:00Z", Exit.USAGE)


def _unknown(book: RateBook, provider: str, reference: str) -> str:
    if provider not in book.catalogue and provider not in book.overrides:
        return f"no prices of a provider '{provider}' in {book.version}"
    return f"'{reference}' means no model of {provider} in {book.version}"


def _progress(outcome: Outcome) -> None:
    """Say on a terminal how far a long run is."""
    import sys  # noqa: PLC0415

    if sys.stderr.isatty():
        click.echo(f"\r{outcome.total.calls} calls, {outcome.total.changed} changed", nl=False, err=True)


def _outcome_form(outcome: Outcome) -> dict[str, Any]:
    days = None
    if outcome.dropped_days is not None:
        days = [_day(number * 86_400 * 10**9) for number in outcome.dropped_days]
    return {
        "version": outcome.version,
        "dry_run": outcome.dry_run,
        "tenants": list(outcome.tenants),
        "dropped_days": days,
        **_sums_form(outcome.total),
        "models": [
            {"provider": provider, "model": model, **_sums_form(sums)}
            for (provider, model), sums in sorted(outcome.models.items())
        ],
    }


def _sums_form(sums: Sums) -> dict[str, Any]:
    from mmproto.rating import usd  # noqa: PLC0415

    return {
        "calls": sums.calls,
        "changed": sums.changed,
        "old_usd": usd(sums.old_nano_usd),
        "new_usd": usd(sums.new_nano_usd),
        "old_unpriced": sums.old_unpriced,
        "new_unpriced": sums.new_unpriced,
    }


def _outcome_text(form: dict[str, Any]) -> str:
    lines = []
    if form["models"]:
        lines += [
            table([*form["models"], {**form, "provider": "total", "model": ""}], _REPRICED, _NUMERIC),
            "",
        ]
    if form["dropped_days"]:
        first, last = form["dropped_days"]
        lines.append(f"the charges of {first} to {last} were dropped by their age and cannot be made anew")
    done = "would change" if form["dry_run"] else "changed"
    tenants = f"{len(form['tenants'])} tenant{'' if len(form['tenants']) == 1 else 's'}"
    lines.append(f"{form['changed']} of {form['calls']} calls of {tenants} {done} by {form['version']}")
    return "\n".join(lines)


def _card_rows(listed_card: Any) -> list[dict[str, Any]]:
    """A line for each price of a card, what tells the card only on the first."""
    from mmpipeline.rating.listing import grouped, price_text  # noqa: PLC0415

    card = listed_card.card
    head = {
        "provider": card.provider,
        "model": card.model,
        "tier": card.service_tier + _hours(card.daily_window),
        "from": _day(card.effective_from_unix_ns) if card.effective_from_unix_ns else "always",
        "to": "" if card.effective_to_unix_ns is None else _day(card.effective_to_unix_ns),
        "negotiated": "yes" if listed_card.is_override else "",
    }
    blank = dict.fromkeys(head, "")
    return [
        {**(blank if index else head), "buckets": _names(names), "usd": price_text(rate), "per": rate.per}
        for index, (names, rate) in enumerate(grouped(card.rates))
    ]


def _card_text(listed_card: Any, versions: tuple[str, ...]) -> str:
    card = listed_card.card
    columns = ["buckets", "usd", "per"]
    until = "" if card.effective_to_unix_ns is None else f" until {_day(card.effective_to_unix_ns)}"
    since = _day(card.effective_from_unix_ns) if card.effective_from_unix_ns else "always"
    kind = "negotiated" if listed_card.is_override else "list price"
    tier = card.service_tier + _hours(card.daily_window)
    return "\n".join(
        [
            card.id,
            f"  {card.provider} {card.model}, {tier}, {kind}, since {since}{until}",
            *(f"  source: {source}" for source in card.sources),
            *(f"  book: {version}" for version in versions),
            "",
            table(_card_rows(listed_card), columns, _NUMERIC),
        ]
    )


def _change_rows(form: dict[str, Any]) -> list[dict[str, Any]]:
    def day(text: str | None) -> str:
        return "" if text is None else text.removesuffix("T00:00:00Z")

    head = {
        "change": form["change"] + (" (negotiated)" if form["is_override"] else ""),
        "provider": form["provider"],
        "model": form["model"],
        "tier": form.get("service_tier", ""),
        "from": day(form["from"]) or "always" if "from" in form else "",
        "to": day(form.get("to")),
    }
    if form["change"] == "ended":
        return [{**head, "buckets": "", "old": day(form["to_before"]) or "open", "new": head["to"] or "open"}]
    rows = form.get("prices") or [{"buckets": [], "per": "", "old": "", "new": ""}]
    blank = dict.fromkeys(head, "")
    return [
        {**(blank if index else head), **row, "buckets": _names(row["buckets"])}
        for index, row in enumerate(rows)
    ]


def _names(buckets: list[str]) -> str:
    return ", ".join(buckets) if len(buckets) < 4 else f"{buckets[0]} and {len(buckets) - 1} like it"


def _hours(window: tuple[int, int] | None) -> str:
    if window is None:
        return ""
    start, end = (f"{second // 3600:02}:{second // 60 % 60:02}" for second in window)
    return f" {start}-{end}"


def _day(unix_ns: int) -> str:
    from mmproto.callform import format_time  # noqa: PLC0415

    return format_time(unix_ns).removesuffix("T00:00:00Z")


def _yes(form: dict[str, Any]) -> dict[str, Any]:
    return {**form, "in_force": "yes" if form["in_force"] else ""}
