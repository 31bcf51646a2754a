"""`python -m mmlocal up|demo --state FOLDER`, as the Makefile runs it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click

from mmlocal.daemons import Ports
from mmlocal.demo import demo
from mmlocal.process import Say, ServiceFailed
from mmlocal.shapes import SHAPES, Shape
from mmlocal.supervisor import AlreadyRunning, Stopped, only_one
from mmlocal.up import say, up
from mmproto.exits import Exit

PORT = click.IntRange(0, 65535)
STATE = click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".modelmeter"),
    show_default=True,
    help="Folder that takes everything that is stored.",
)


PORTS = (
    click.option(
        "--pipeline-port", type=PORT, help="Port of API and dashboard, if not 8780; 0 takes a free one."
    ),
    click.option("--router-port", type=PORT, help="Port of the router, if not 8790; 0 takes a free one."),
    click.option(
        "--metrics-port", type=PORT, help="Port of the sensor's metrics, if not 8785; 0 takes a free one."
    ),
)
SHAPE = click.option(
    "--shape",
    type=click.Choice(sorted(SHAPES)),
    default="embedded",
    show_default=True,
    help="embedded: one process, nothing else. distributed: Kafka, PostgreSQL, workers.",
)
Command = Callable[[str, Path, int | None, int | None, int | None], None]


def options(command: Command) -> Command:
    for option in (*reversed(PORTS), STATE, SHAPE):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """ModelMeter on this machine, in the foreground."""


@main.command(name="up")
@options
def up_command(
    shape: str, state: Path, pipeline_port: int | None, router_port: int | None, metrics_port: int | None
) -> None:
    """Start pipeline, sensor and router."""
    sys.exit(run(up, shape, state, Ports(pipeline_port, router_port, metrics_port)))


@main.command(name="demo")
@options
def demo_command(
    shape: str, state: Path, pipeline_port: int | None, router_port: int | None, metrics_port: int | None
) -> None:
    """The same, with a local stand-in for the providers and programs that call it."""
    sys.exit(run(demo, shape, state, Ports(pipeline_port, router_port, metrics_port), below="demo"))


def run(
    what: Callable[[Shape, Ports, Say], Awaitable[None]],
    shape: str,
    state: Path,
    ports: Ports,
    below: str = "",
) -> int:
    """Run it to its end; what people must know goes to standard error in one line, with its exit code.

    `below`: the folder within the state folder that it keeps its data in.
    """

    async def held() -> None:
        folder = state.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with only_one(folder):
            (folder / below).mkdir(exist_ok=True)
            await what(SHAPES[shape](folder / below), ports, say)

    try:
        asyncio.run(held())
    except Stopped:
        return Exit.OK
    except (ServiceFailed, AlreadyRunning) as error:
        click.echo(f"modelmeter: {error}", err=True)
        if isinstance(error, ServiceFailed) and "in use" in str(error):
            click.echo("free ports: make up PIPELINE_PORT=0 ROUTER_PORT=0 METRICS_PORT=0", err=True)
        return Exit.UNHEALTHY
    except PermissionError as error:
        click.echo(
            f"modelmeter: no permission for {error.filename}: run as root, or choose STATE=/path", err=True
        )
        return Exit.PERMISSION
    return Exit.OK


if __name__ == "__main__":
    main()
