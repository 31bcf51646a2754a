"""`mmpipeline work`, `sink` and `deadletter`: the processes that read Kafka, and what they put aside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from mmpipeline.cli_context import Context, configured, fail
from mmpipeline.config import PipelineSettings
from mmpipeline.output import output_option, structured, table
from mmproto.exits import Exit
from mmproto.kafka.connection import kafka_needed
from mmproto.settings import ConfigurationError

if TYPE_CHECKING:
    from mmpipeline.workers.shelf import Letter

_NUMERIC = frozenset({"partition", "offset", "size", "replays"})


@click.command()
@configured
def work(context: Context) -> None:
    """Charge the calls that come over Kafka, until SIGTERM; run as many as there is work for."""
    settings = context.settings()
    with _started():
        from mmpipeline.workers.work import work as run  # noqa: PLC0415

        run(settings)


@click.command()
@configured
def sink(context: Context) -> None:
    """Fill the warehouse with what the workers charged, until SIGTERM; run as many as there is work for."""
    settings = context.settings()
    with _started():
        from mmpipeline.workers.sink import sink as run  # noqa: PLC0415

        run(settings)


@click.group()
def deadletter() -> None:
    """List and send back the messages that could not be worked."""


@deadletter.command("list")
@click.option("--reason", help="Only those with this reason, or whose reason begins with it and a colon.")
@click.option("--replayed", is_flag=True, help="Also those that were sent back already.")
@click.option("--show-size", is_flag=True, help="How large each is.")
@output_option
@configured
def list_(context: Context, reason: str | None, replayed: bool, show_size: bool, output: str) -> None:
    """List what is put aside: where it stood, when, and why. Never its content."""
    letters = [
        letter
        for letter in _letters(context.settings())
        if (replayed or not letter.replayed) and (reason is None or _has_reason(letter, reason))
    ]
    forms = [_form(letter, show_size) for letter in letters]
    if output != "table":
        click.echo(structured(forms, output))
    elif forms:
        columns = ["topic", "partition", "offset", "reason", "written_at", "put_aside_at", "replays"]
        columns += ["size"] if show_size else []
        columns += ["replayed"] if replayed else []
        click.echo(table(forms, columns, _NUMERIC))
    else:
        click.echo("no dead letters")


@deadletter.command()
@click.argument("places", nargs=-1, metavar="[TOPIC/PARTITION/OFFSET]...")
@click.option("--reason", help="All with this reason, or whose reason begins with it and a colon.")
@click.option("--all", "everything", is_flag=True, help="All there are.")
@click.option("--again", is_flag=True, help="Also those that were sent back already.")
@configured
def replay(
    context: Context, places: tuple[str, ...], reason: str | None, everything: bool, again: bool
) -> None:
    """Send messages back to where they came from, with their own key and headers.

    A letter is sent back once; what comes to nothing again is a new letter. Sending twice is harmless: a call
    that is charged already is a duplicate. What is left counts against worker.dead_letters no more.
    """
    if sum((bool(places), reason is not None, everything)) != 1:
        fail("name letters as `deadletter list` shows them, or give --reason or --all", Exit.USAGE)
    settings = context.settings()
    letters = _letters(settings)
    unknown = set(places) - {letter.where for letter in letters}
    if unknown:
        fail(
            f"no such dead letter: {', '.join(sorted(unknown))}; see `mmpipeline deadletter list`", Exit.USAGE
        )
    chosen = [
        letter
        for letter in letters
        if everything or letter.where in places or (reason is not None and _has_reason(letter, reason))
    ]
    earlier = [letter for letter in chosen if letter.replayed and not again]
    gone = [letter for letter in chosen if letter.omitted]
    sent = [letter for letter in chosen if letter not in earlier and letter not in gone]
    _send(settings, sent)
    click.echo(f"{len(sent)} sent back")
    if earlier:
        click.echo(f"{len(earlier)} left alone: sent back before (--again sends them again)")
    for letter in gone:
        click.echo(f"{letter.where} is kept without its content: it was too large for the topic")


@deadletter.command()
@configured
def acknowledge(context: Context) -> None:
    """Say that somebody has looked: what is put aside so far counts against worker.dead_letters no more."""
    click.echo(f"{_acknowledge(context.settings())} dead letters acknowledged")


def distributed_status(settings: PipelineSettings) -> dict[str, Any]:
    """How the distributed shape is, asked of its stores and of Kafka."""
    try:
        with kafka_needed():
            from mmpipeline.workers import status  # noqa: PLC0415
        return status.distributed_status(settings, "default")
    except ConfigurationError as error:
        fail(str(error), Exit.CONFIGURATION)


def kafka_text(form: Mapping[str, Any]) -> list[str]:
    """What a status says of Kafka, as lines; nothing where it says nothing."""
    if "kafka" not in form:
        return []
    from mmpipeline.workers.status import kafka_lines  # noqa: PLC0415

    return kafka_lines(form)


def _form(letter: Letter, show_size: bool) -> dict[str, Any]:
    form: dict[str, Any] = {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "reason": letter.reason,
        "written_at": _time(letter.written_at_unix_ms),
        "put_aside_at": _time(letter.put_aside_at_unix_ms),
        "replays": letter.replays,
        "replayed": letter.replayed,
    }
    return form | ({"size": letter.size} if show_size else {})


def _time(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"


def _has_reason(letter: Letter, reason: str) -> bool:
    return letter.reason == reason or letter.reason.startswith(f"{reason}:")


def _letters(settings: PipelineSettings) -> list[Letter]:
    if not settings.kafka.brokers:
        fail("kafka.brokers is empty: dead letters are kept in Kafka", Exit.CONFIGURATION)
    with _shelf():
        from mmpipeline.workers import shelf  # noqa: PLC0415

        return shelf.read(settings.kafka)


def _send(settings: PipelineSettings, letters: Sequence[Letter]) -> None:
    if not letters:
        return
    # Before they are sent: one that is as bad as ever is put aside anew within moments, and counts anew.
    _acknowledge(settings)
    with _shelf():
        from mmpipeline.workers import shelf  # noqa: PLC0415

        shelf.replay(settings.kafka, letters)


def _acknowledge(settings: PipelineSettings) -> int:
    from mmpipeline.store.control.database import Database, DatabaseError, StoreBusy  # noqa: PLC0415
    from mmpipeline.workers.deadlimit import DeadLetterLimit  # noqa: PLC0415

    try:
        database = Database.open(settings.control_url)
        try:
            return DeadLetterLimit(database, settings.worker.dead_letters).acknowledge()
        finally:
            database.close()
    except (DatabaseError, StoreBusy) as error:
        fail(f"the count of dead letters is as it was: {error}")


@contextmanager
def _started() -> Iterator[None]:
    """Around a worker: how its errors end the process."""
    from mmpipeline.rating.catalogue import CatalogueError  # noqa: PLC0415

    try:
        with kafka_needed():
            from mmpipeline.workers.process import CannotWork  # noqa: PLC0415
        try:
            yield
        except CannotWork as error:
            fail(str(error), error.code)
    except ConfigurationError as error:
        fail(str(error), Exit.CONFIGURATION)
    except CatalogueError as error:
        fail(f"{error}; install the version in requirements/")


@contextmanager
def _shelf() -> Iterator[None]:
    try:
        with kafka_needed():
            from mmpipeline.workers.shelf import ShelfError  # noqa: PLC0415
        try:
            yield
        except ShelfError as error:
            fail(str(error), Exit.UNREACHABLE)
    except ConfigurationError as error:
        fail(str(error), Exit.CONFIGURATION)
