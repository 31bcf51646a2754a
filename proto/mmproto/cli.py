"""`mmproto`: how well exchanges are read."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import orjson

from mmproto.exits import Exit
from mmproto.score.coding import CODINGS
from mmproto.score.folder import score_folder
from mmproto.score.variants import FRAMINGS, GROUPS, expand

_CONTEXT = {"help_option_names": ["-h", "--help"]}


@click.group(context_settings=_CONTEXT)
def main() -> None:
    """What all of ModelMeter shares: how the bytes of a connection become calls and their numbers."""


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"mmproto {importlib.metadata.version('modelmeter')}")


def _framings(_context: click.Context, _parameter: click.Parameter, value: str) -> frozenset[str]:
    return expand(_chosen(value, (*GROUPS, *FRAMINGS)))


def _codings(_context: click.Context, _parameter: click.Parameter, value: str) -> frozenset[str]:
    return _chosen(value, CODINGS)


def _chosen(value: str, known: Sequence[str]) -> frozenset[str]:
    names = frozenset(name.strip() for name in value.split(","))
    if unknown := names.difference(known):
        raise click.BadParameter(f"{', '.join(sorted(unknown))}: known are {', '.join(known)}")
    return names


@main.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--framing",
    "framings",
    default="h1,h2",
    show_default=True,
    callback=_framings,
    help="How records are sent, separated by commas: h1 (length, chunked, close, websocket), h2 (h2, grpc), "
    "or any of these alone.",
)
@click.option(
    "--coding",
    "codings",
    default=",".join(CODINGS),
    show_default=True,
    callback=_codings,
    help="Content codings of the bodies, separated by commas.",
)
@click.option("--only", metavar="PROVIDER", default="", help="Only records of this provider.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of cuts, chunks and padding.")
@click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table", help="Form of the output."
)
@click.option("--details", is_flag=True, help="Name every record that is not exact, with its fields.")
def score(
    folder: Path,
    framings: frozenset[str],
    codings: frozenset[str],
    *,
    only: str,
    seed: int,
    output: str,
    details: bool,
) -> None:
    """Measure the reading against recorded exchanges whose numbers are known.

    Every record below DIR is written as the bytes of a connection, in every framing and content coding, cut
    at random places, read as the sensor reads, and compared field by field. Exit code: 0 every record that is
    not ambiguous is exact, 1 not so, 2 wrong usage.
    """
    report = score_folder(folder, framings=framings, codings=codings, only=only, seed=seed)
    if not report.scores and not report.unreadable:
        reason = f"no record of {only}" if only else "no record"
        raise click.UsageError(f"{reason} below {folder} that these framings and codings can carry")
    if output == "json":
        click.echo(orjson.dumps(report.to_json(), default=_plain, option=orjson.OPT_INDENT_2))
    else:
        for line in report.lines(details=details):
            click.echo(line)
    sys.exit(Exit.OK if report.passed else Exit.UNHEALTHY)


def _plain(value: Any) -> Any:
    """Sets of names as lists."""
    return sorted(value) if isinstance(value, frozenset) else str(value)


if __name__ == "__main__":
    main()
