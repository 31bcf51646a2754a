"""Fails unless the capture tests ran: `capture_tests_ran.py REPORT`, a JUnit report of `make test`.

tests/conftest.py marks each test in the report with its markers. A capture test that was skipped, or a run
without any, means that the product was not tried on a kernel, and such a run proves nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path
from xml.etree import ElementTree

MARKER = "capture"


def verdict(report: Path) -> str:
    """What is wrong with the run, or nothing."""
    cases = [
        case
        for case in ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314  # our own pytest wrote it
        if any(
            property.get("name") == "marker" and property.get("value") == MARKER
            for property in case.iter("property")
        )
    ]
    skipped = [case.get("name", "") for case in cases if case.find("skipped") is not None]
    if not cases:
        return "no capture test ran: run as root, on a kernel that attaches uprobes"
    if skipped:
        return f"capture tests were skipped: {', '.join(skipped)}"
    print(f"{len(cases)} capture tests ran")
    return ""


if __name__ == "__main__":
    sys.exit(verdict(Path(sys.argv[1])) or 0)
