"""Every right, and every reason why something is not covered, lost or not held, has its row in the documents.

People look such words up; one that is nowhere written helps nobody. Reasons are constants in calls, so that
they are read from the source.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import mmsensor.capture
from mmsensor.capture import session
from mmsensor.capture.discovery import holds
from mmsensor.capture.kernel.privileges import RIGHTS, When, Without
from mmsensor.capture.ladder import names, search

DOCUMENTS = Path(__file__).parents[2] / "docs"
CAPTURE = Path(next(iter(mmsensor.capture.__path__)))

#: Set by discovery/targets.py for what the ladder found or did not find yet.
OF_TARGETS = {"attach_failed", "being_searched"}

WHEN = {When.ALWAYS: "", When.PERF_EVENTS: "kernels before 6.6", When.HOLDING: "`hold_first_exec`"}


def _rows(path: str, heading: str) -> set[str]:
    """The first cells of the table under this header."""
    lines = (DOCUMENTS / path).read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    found = set()
    for line in lines[start + 2 :]:
        cell = re.match(r"\| `(\w+)` \|", line)
        if cell is None:
            break
        found.add(cell[1])
    return found


def _not_covered() -> Iterator[str]:
    """First string constants of calls that make a NotCovered."""
    for path in CAPTURE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("NotCovered", "_unread"):
                for argument in node.args:
                    if isinstance(argument, ast.Constant):
                        yield str(argument.value)
                        break


def test_reasons_of_what_is_not_covered() -> None:
    reasons = set(_not_covered()) | {reason for _, reason, _ in names._PROMISES} | {search.FAILED}
    assert _rows("operate.md", "Reason") == reasons | OF_TARGETS
    targets = (CAPTURE / "discovery" / "targets.py").read_text()
    assert all(f'"{reason}' in targets for reason in OF_TARGETS)


def test_reasons_of_what_was_lost() -> None:
    assert _rows("reference/sensor.md", "Lost") == {*session._LOSSES, "overlapping"}


def test_reasons_of_who_was_not_held() -> None:
    assert _rows("reference/sensor.md", "Not held") == set(holds._NOT_HELD)


def test_what_each_right_is_for_and_what_is_lost_without_it() -> None:
    table = (DOCUMENTS / "operate.md").read_text()
    for right in RIGHTS:
        lost = f"does not start: {right.lost}" if right.without is Without.REFUSES else right.lost
        assert f"| `{right.name}` | {WHEN[right.when]} | {right.needed_for} | {lost} |" in table
    assert _rows("operate.md", "Capability") == {right.name for right in RIGHTS}
