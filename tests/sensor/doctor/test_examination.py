"""Running checks: in order, whatever one of them does; and what they add up to."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import NoReturn

import pytest

from mmsensor.doctor.checks import CHECKS
from mmsensor.doctor.examination import Result, document, examine, verdict
from mmsensor.doctor.findings import Check, Finding, Outcome, fail, ok, skipped, warn
from mmsensor.doctor.report import text
from mmsensor.doctor.surroundings import Surroundings
from tests.sensor.doctor.machines import Machine

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "sensor.md"


def broken(_place: Surroundings) -> NoReturn:
    raise ZeroDivisionError("a mistake\nof ours")


def fixed(name: str, finding: Finding, *rests_on: str) -> Check:
    return Check("area", name, "about", lambda _: finding, rests_on=rests_on)


def test_a_check_that_breaks_or_hangs_is_no_pass_and_stops_nobody(computer: Machine) -> None:
    hangs = threading.Event()
    checks = (
        Check("area", "breaks", "about", broken),
        Check("area", "hangs", "about", lambda _: ok(str(hangs.wait(60))), limit_s=0.1),
        fixed("last", ok("fine")),
    )
    breaks, hanging, last = examine(checks, computer.look())
    hangs.set()
    assert breaks.finding.outcome is hanging.finding.outcome is Outcome.SKIPPED
    assert breaks.finding.fact == "the check itself broke: ZeroDivisionError: a mistake"
    assert hanging.finding.fact.startswith("no answer after")
    assert last.finding.fact == "fine"
    assert verdict([breaks, hanging, last]) == "degraded"


def test_what_rests_on_a_failure_is_not_tried_and_does_not_repeat_it(computer: Machine) -> None:
    checks = (
        fixed("ground", fail("gone", "bring it back")),
        fixed("warned", warn("poor", "better it")),
        fixed("house", ok("stands"), "ground"),
        fixed("roof", ok("stands"), "house"),
        fixed("shed", ok("stands"), "warned"),
    )
    findings = {result.check.name: result.finding for result in examine(checks, computer.look())}
    assert findings["house"] == skipped("not tried, because it rests on `ground`", "see `ground`")
    assert findings["roof"].fix == "see `house`"
    assert findings["shed"] == ok("stands")


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ((), "healthy"),
        ((ok("a"), ok("b")), "healthy"),
        ((ok("a"), warn("b", "c")), "degraded"),
        ((ok("a"), skipped("b", "c")), "degraded"),
        ((warn("a", "b"), fail("c", "d"), ok("e")), "unhealthy"),
    ],
)
def test_verdicts(findings: tuple[Finding, ...], expected: str) -> None:
    assert verdict([Result(fixed("x", finding), finding) for finding in findings]) == expected


def test_the_report_has_one_fact_and_one_fix_a_check_and_keeps_the_width() -> None:
    long = (
        "a fact that goes on and on, of /a/path/that-must/stay-whole and more of the kind, to the end of it"
    )
    findings = {
        "good": ok("short"),
        "bad": fail(long, "do `this --and that` until it is done, then do it again"),
    }
    document_ = document([Result(fixed(name, each), each) for name, each in findings.items()])
    report = text(document_, 60)
    assert report.splitlines()[0] == "verdict  unhealthy: of 2 checks, 1 failed"
    assert all(len(line) <= 60 for line in report.splitlines())
    joined = " ".join(report.split())
    assert f"fail bad {long} -> do `this --and that` until" in joined
    assert "/a/path/that-must/stay-whole" in report
    assert text(document_, 5), "a terminal without columns"


def test_every_check_is_in_the_reference_in_its_order() -> None:
    section = REFERENCE.read_text().partition("\n## The doctor\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (.+) \|$", section, re.MULTILINE)
    assert rows == [(check.name, check.area, check.about) for check in CHECKS]


def test_checks_rest_on_earlier_ones() -> None:
    seen: set[str] = set()
    for check in CHECKS:
        assert seen.issuperset(check.rests_on)
        assert check.name not in seen
        seen.add(check.name)
