"""What all commands share: the configuration they were given, and how they fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, NoReturn

import click

from mmpipeline.config import PipelineSettings, read_settings
from mmproto.exits import Exit
from mmproto.settings import ConfigurationError


@dataclass(frozen=True, slots=True)
class Context:
    """Where a command was told to read its settings."""

    config: Path | None
    flags: Mapping[str, object]

    def settings(self, flags: Mapping[str, object] | None = None) -> PipelineSettings:
        """The settings, `flags` over everything; ends the process where they are wrong."""
        try:
            return read_settings(self.config, os.environ, {**self.flags, **(flags or {})})
        except ConfigurationError as error:
            fail(str(error), Exit.CONFIGURATION)


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command --config and --state-dir, and a Context of them as its first argument."""

    @click.option(
        "--config",
        type=click.Path(path_type=Path),
        help="Configuration file instead of /etc/modelmeter/pipeline.yaml.",
    )
    @click.option("--state-dir", type=click.Path(path_type=Path), help="State folder (state_dir).")
    @wraps(command)
    def with_context(*args: Any, config: Path | None, state_dir: Path | None, **options: Any) -> None:
        command(Context(config, {"state_dir": state_dir}), *args, **options)

    return with_context


def fail(message: str, code: Exit = Exit.UNHEALTHY) -> NoReturn:
    """End with one line for people (one for each problem of a configuration)."""
    for line in message.splitlines():
        click.echo(f"mmpipeline: {line}", err=True)
    sys.exit(code)
