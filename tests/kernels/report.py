"""From what a machine left behind to the table that people read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from tests.kernels.machine import Outcome

#: Lines of the kernel's last words that are worth a look where it did not get to its end.
_LAST_WORDS = 20


class Row(NamedTuple):
    series: str
    what: str
    result: str  # passed, failed, absent
    seconds: float = 0.0


def rows(series: str, selection: Sequence[str], outcome: Outcome) -> list[Row]:
    """One row a selected test: whatever pytest does not report as passed has failed, a skipped one too."""
    report = outcome.folder / "report.xml"
    passed = dict(_passed(report.read_text())) if report.exists() else {}
    found = []
    for test in selection:
        seconds = passed.get(_short(test))
        found.append(Row(series, _short(test), "failed" if seconds is None else "passed", seconds or 0.0))
    if outcome.status is None:
        found.append(
            Row(series, f"the kernel did not get to its end: {outcome.folder / 'console'}", "failed")
        )
        print(
            "\n".join((outcome.folder / "console").read_text("utf-8", "replace").splitlines()[-_LAST_WORDS:])
        )
    elif any(row.result == "failed" for row in found):
        print((outcome.folder / "output").read_text("utf-8", "replace"))
    found.append(Row(series, "whole", "passed" if outcome.status == 0 else "failed", outcome.seconds))
    return found


def _short(test: str) -> str:
    return test.partition("::")[2]


def _passed(report: str) -> list[tuple[str, float]]:
    cases = ElementTree.fromstring(report).iter("testcase")  # noqa: S314  # our own pytest wrote it
    return [
        (case.get("name", ""), float(case.get("time", 0)))
        for case in cases
        if not any(case.find(other) is not None for other in ("failure", "error", "skipped"))
    ]


def printed(table: Sequence[Row]) -> str:
    width = max(len(row.what) for row in table)
    return "\n".join(
        f"{row.series:6} {row.what:{width}} {row.result:7} {row.seconds:6.1f} s" for row in table
    )
