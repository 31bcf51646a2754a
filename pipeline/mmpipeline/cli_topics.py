"""`mmpipeline topics`: creates the topics of Kafka that the distributed shape needs, or says what differs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from mmpipeline.cli_context import Context, configured, fail
from mmpipeline.output import output_option, structured, table
from mmproto.exits import Exit
from mmproto.kafka.connection import kafka_needed
from mmproto.kafka.topics import TOPICS
from mmproto.settings import ConfigurationError

if TYPE_CHECKING:
    from mmproto.kafka.administration import Administration, Cluster, Difference, Wanted

# What kept the brokers from being asked; anything else is their answer.
_EXITS = dict.fromkeys(
    ("broker_away", "broker_unknown", "tls", "unauthorized", "timeout"), Exit.UNREACHABLE
) | {"forbidden": Exit.PERMISSION}
_KEYS = (
    "partitions are not added without --add-partitions: keys are then placed anew, so that calls of one\n"
    "budget are on two partitions until the older ones are read. Nothing is lost or counted twice by it"
)
_BY_HAND = (
    "what is marked 'by hand' is left alone: partitions cannot be taken away, and replicas are moved with\n"
    "kafka-reassign-partitions.sh; or set topics.partitions and topics.replication_factor to what is there"
)


def _sizes(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--brokers", help="host:port of one or more brokers (kafka.brokers)."),
        click.option("--partitions", type=int, help="Partitions of the topics of calls (topics.partitions)."),
        click.option(
            "--replication-factor",
            type=int,
            help="Replicas of each partition (topics.replication_factor); 0: three, or one for each broker.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def topics() -> None:
    """Create and check the topics of Kafka."""


@topics.command()
@_sizes
@output_option
@configured
def check(
    context: Context, brokers: str | None, partitions: int | None, replication_factor: int | None, output: str
) -> None:
    """Say in what the topics differ from what they should be.

    Exit code: 0 in nothing, 1 they differ, 4 Kafka does not answer, 77 no permission, 78 configuration.
    """
    with _administration(context, brokers, partitions, replication_factor) as (administration, wanted):
        cluster = administration.look()
    left = _print(cluster, wanted, (), output)
    sys.exit(Exit.UNHEALTHY if left else Exit.OK)


@topics.command()
@_sizes
@click.option("--add-partitions", is_flag=True, help="Raise the number of partitions where it is too small.")
@output_option
@configured
def apply(
    context: Context,
    /,
    *,
    brokers: str | None,
    partitions: int | None,
    replication_factor: int | None,
    add_partitions: bool,
    output: str,
) -> None:
    """Create the topics that are missing and correct the settings of the others.

    Nothing is deleted or made smaller. Exit code: 0 all is as it should be now, 1 differences are left or
    a change was refused, 4 Kafka does not answer, 77 no permission, 78 configuration.
    """
    with _administration(context, brokers, partitions, replication_factor) as (administration, wanted):
        done, cluster = administration.mend(wanted, add_partitions=add_partitions)
    left = _print(cluster, wanted, done, output)
    sys.exit(Exit.UNHEALTHY if left else Exit.OK)


@contextmanager
def _administration(
    context: Context, brokers: str | None, partitions: int | None, replication_factor: int | None
) -> Iterator[tuple[Administration, Wanted]]:
    """The cluster to ask and what it should be; its errors end the command."""
    flags = {
        "kafka.brokers": brokers,
        "topics.partitions": partitions,
        "topics.replication_factor": replication_factor,
    }
    settings = context.settings(flags)
    if not settings.kafka.brokers:
        fail("no brokers are known: set kafka.brokers, or give --brokers HOST:PORT", Exit.CONFIGURATION)
    try:
        with kafka_needed():
            from mmproto.kafka.administration import (  # noqa: PLC0415
                Administration,
                NotDone,
                Wanted,
            )
        wanted = Wanted(settings.topics.partitions, settings.topics.replication_factor)
        administration = Administration(settings.kafka)
    except ConfigurationError as error:
        fail(str(error), Exit.CONFIGURATION)
    try:
        yield administration, wanted
    except NotDone as error:
        fail(str(error), _EXITS.get(error.reason, Exit.UNHEALTHY))


def _print(cluster: Cluster, wanted: Wanted, done: Sequence[Difference], output: str) -> Sequence[Difference]:
    """Shows what there is, what was changed and what differs. Returns what differs."""
    from mmproto.kafka.administration import Remedy, differences  # noqa: PLC0415

    left = differences(cluster, wanted)
    form: dict[str, Any] = {
        "brokers": cluster.brokers,
        "topics": [_topic_form(cluster, topic.name) for topic in TOPICS],
        "changed": [_difference_form(each) for each in done],
        "differences": [_difference_form(each) for each in left],
    }
    if output != "table":
        click.echo(structured(form, output))
        return left
    click.echo(
        table(form["topics"], ["topic", "partitions", "replicas"], frozenset({"partitions", "replicas"}))
    )
    columns = ["topic", "what", "found", "wanted", "remedy"]
    for title, rows in (("changed", form["changed"]), ("different", form["differences"])):
        if rows:
            click.echo(f"\n{title}:\n{table(rows, columns, frozenset())}")
    remedies = {each.remedy for each in left}
    for remedy, text in ((Remedy.ADD_PARTITIONS, _KEYS), (Remedy.BY_HAND, _BY_HAND)):
        if remedy in remedies:
            click.echo(f"\n{text}.")
    if remedies & {Remedy.CREATE, Remedy.SET}:
        click.echo("\n`mmpipeline topics apply` mends the others.")
    return left


def _topic_form(cluster: Cluster, name: str) -> dict[str, Any]:
    found = cluster.topics.get(name)
    if found is None:
        return {"topic": name, "partitions": None, "replicas": None}
    return {"topic": name, "partitions": found.partitions, "replicas": found.replication_factor}


def _difference_form(each: Difference) -> dict[str, Any]:
    return {
        "topic": each.topic,
        "what": each.what,
        "found": each.found or None,
        "wanted": each.wanted,
        "remedy": each.remedy.value,
    }
