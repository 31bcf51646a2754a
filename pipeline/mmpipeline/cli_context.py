"""What all commands share: the configuration they were given, and how they fail."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import click

from mmpipeline.config import PipelineSettings, read_settings
from mmproto.exits import Exit
from mmproto.settings import ConfigurationError


@dataclass(frozen=True, slots=True)
class Context:
    """The options before the command."""

    config: Path | None
    flags: Mapping[str, object]

    def settings(self, flags: Mapping[str, object] | None = None) -> PipelineSettings:
        """The settings, `flags` over everything; ends the process where they are wrong."""
        try:
            return read_settings(self.config, os.environ, {**self.flags, **(flags or {})})
        except ConfigurationError as error:
            fail(str(error), Exit.CONFIGURATION)


def fail(message: str, code: Exit = Exit.UNHEALTHY) -> NoReturn:
    """End with one line for people (one for each problem of a configuration)."""
    for line in message.splitlines():
        click.echo(f"mmpipeline: {line}", err=True)
    sys.exit(code)
