"""Writes the parts of docs/reference/pipeline.md that the commands and settings say of themselves.

python -m tests.pipeline.cli.reference
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from mmpipeline.cli import cli
from mmpipeline.config import PipelineSettings
from mmproto.settings import describe

FILE = Path(__file__).parents[3] / "docs" / "reference" / "pipeline.md"


def updated(text: str) -> str:
    """`text` with its generated parts written anew."""
    for name, content in {"commands": _commands(), "settings": _settings()}.items():
        begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
        head, _, rest = text.partition(begin)
        _, _, tail = rest.partition(end)
        text = f"{head}{begin}{content}{end}{tail}"
    return text


def _commands() -> str:
    return "".join(f"### `{path}`\n\n```\n{text}\n```\n\n" for path, text in _walk(cli, "mmpipeline", None))


def _walk(command: click.Command, name: str, parent: click.Context | None) -> Iterator[tuple[str, str]]:
    names = cli.context_settings["help_option_names"]
    context = click.Context(command, parent, name, terminal_width=100, help_option_names=names)
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for child_name, child in sorted(command.commands.items()):
            yield from _walk(child, child_name, context)


def _settings() -> str:
    rows = [
        f"| `{key}` | {kind} | `{default}` | {about} |\n"
        for key, kind, default, about in describe(PipelineSettings)
    ]
    return "| setting | type | default | what it is |\n|---|---|---|---|\n" + "".join(rows)


if __name__ == "__main__":
    FILE.write_text(updated(FILE.read_text(encoding="utf-8")), encoding="utf-8")
