"""The matrix as a table: for a terminal, and as docs/coverage.md."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.sensor.capture.matrix import brief
from tests.sensor.capture.matrix.run import Outcome
from tests.sensor.capture.matrix.table import Client

PAGE = Path(__file__).parents[4] / "docs" / "coverage.md"
HEADINGS = ("Client", "TLS library", "Found by", "Result", "Written", "captured", "Read", "captured")
CLAIMS = 4  # columns that every run has the same
_BEGIN, _END = "<!-- begin: made by the matrix -->\n", "<!-- end -->"


def claim(client: Client) -> tuple[str, ...]:
    """What the table says about a client, whatever the run."""
    return (client.name, client.tls, client.expected.strategy or "–", str(client.expected))


def row(outcome: Outcome) -> tuple[str, ...]:
    counts = (outcome.written, outcome.written_captured, outcome.read, outcome.read_captured)
    return (*claim(outcome.client)[:3], outcome.result, *map(str, counts))


def text_table(outcomes: Sequence[Outcome]) -> str:
    lines = [HEADINGS, *map(row, outcomes)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < CLAIMS else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def brief_line(rates: tuple[int, int]) -> str:
    """About processes that are over before anybody has looked (brief.py)."""
    return (
        f"A process of milliseconds with a libssl never seen before: {rates[0]} of {brief.RUNS} captured"
        f" whole, with `hold_first_exec` {rates[1]} of {brief.RUNS}."
    )


def write(outcomes: Sequence[Outcome], rates: tuple[int, int]) -> None:
    """Puts the table between its marks; the text around it is written by hand."""
    lines = [HEADINGS, tuple(["---"] * CLAIMS + ["---:"] * (len(HEADINGS) - CLAIMS)), *map(row, outcomes)]
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    before, rest = PAGE.read_text().split(_BEGIN)
    after = rest.split(_END)[1]
    PAGE.write_text(before + _BEGIN + table + "\n" + brief_line(rates) + "\n" + _END + after)


def rows(page: str) -> list[tuple[str, ...]]:
    """The claims of the committed table."""
    lines = page.split(_BEGIN)[1].split(_END, maxsplit=1)[0].splitlines()
    table = [line for line in lines if line.startswith("|")][2:]
    return [tuple(cell.strip() for cell in line.strip("|").split("|"))[:CLAIMS] for line in table]
