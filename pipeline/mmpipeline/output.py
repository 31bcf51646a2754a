"""One shape of output for every command: a table for people, JSON, YAML or CSV for programs."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import click
import yaml

output_option = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml"]),
    default="table",
    show_default=True,
    help="How to print the result.",
)


def structured(form: Any, output: str) -> str:
    """`form` as JSON or YAML."""
    if output == "yaml":
        return str(yaml.safe_dump(form, sort_keys=False, allow_unicode=True)).rstrip("\n")
    return json.dumps(form, indent=2, ensure_ascii=False)


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], numeric: frozenset[str]) -> str:
    """Rows under a heading, numbers to the right."""
    texts = [[_cell(row.get(column)) for column in columns] for row in rows]
    heads = [column.replace("_", " ").upper() for column in columns]
    widths = [max(len(head), *(len(row[i]) for row in texts), 0) for i, head in enumerate(heads)]
    lines = []
    for cells in [heads, *texts]:
        padded = [
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for cell, width, column in zip(cells, widths, columns, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def comma_separated(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows as CSV with a head; what is not known is empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow(["" if row.get(column) is None else row[column] for column in columns])
    return buffer.getvalue().rstrip("\n")


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    # Names come from outside: no control character of theirs may reach a terminal.
    return "".join(c if c.isprintable() else "?" for c in str(value))
