"""Rows as CSV that a spreadsheet opens safely.

A cell that begins with `=`, `+`, `-`, `@`, a tab or a line break is a formula to a spreadsheet, and names of
models, users and teams come from the wire: such a text gets an apostrophe in front, which spreadsheets
show as text. Numbers are ours and stay as they are.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Final

# The full-width forms are the same characters to a spreadsheet in some languages.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")

Cell = str | int | float | None


def csv_text(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """RFC 4180 with CRLF; None is an empty cell. Decimal amounts are given as floats or prepared texts."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    for row in rows:
        writer.writerow([harmless(cell) if isinstance(cell, str) else cell for cell in row])
    return text.getvalue()


def harmless(cell: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{cell}" if cell.lstrip(" ").startswith(_FORMULA) else cell
