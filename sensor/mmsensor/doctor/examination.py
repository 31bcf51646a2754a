"""Runs the checks in order and sums them up.

Every check runs in a thread of its own with a time limit, because what is wrong with a machine may be that
it does not answer: a pipeline that accepts and says nothing, a state folder on a dead file server. A check
that hangs is left behind; a check that breaks is one that found nothing out.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from mmsensor.doctor.findings import REPORT_IT, Check, Finding, Outcome, skipped
from mmsensor.doctor.surroundings import Surroundings


@dataclass(frozen=True, slots=True)
class Result:
    check: Check
    finding: Finding


def examine(checks: Sequence[Check], place: Surroundings) -> Iterator[Result]:
    """One result a check, in order, each as soon as it is there."""
    lacking: set[str] = set()
    for check in checks:
        missing = next((name for name in check.rests_on if name in lacking), None)
        if missing:
            finding = skipped(f"not tried, because it rests on `{missing}`", f"see `{missing}`")
        else:
            finding = _within_limit(check, place)
        if finding.outcome in (Outcome.FAIL, Outcome.SKIPPED):
            lacking.add(check.name)
        yield Result(check, finding)


def _within_limit(check: Check, place: Surroundings) -> Finding:
    found: list[Finding] = []
    thread = threading.Thread(
        target=lambda: found.append(_guarded(check, place)), name=f"doctor: {check.name}", daemon=True
    )
    thread.start()
    thread.join(check.limit_s)
    if found:
        return found[0]
    return skipped(
        f"no answer after {check.limit_s:.0f} s",
        "see why what it asks does not answer: a file server that is gone, a pipeline that hangs",
    )


def _guarded(check: Check, place: Surroundings) -> Finding:
    try:
        return check.examine(place)
    except Exception as error:
        return skipped(
            f"the check itself broke: {type(error).__name__}: {error}".splitlines()[0],
            REPORT_IT,
        )


def verdict(results: Sequence[Result]) -> str:
    """`healthy`, `degraded` or `unhealthy`; what could not be found out is no pass."""
    outcomes = {result.finding.outcome for result in results}
    if Outcome.FAIL in outcomes:
        return "unhealthy"
    return "healthy" if outcomes <= {Outcome.OK} else "degraded"


def document(results: Sequence[Result]) -> dict[str, Any]:
    """The whole examination in plain dicts and lists."""
    outcomes = [result.finding.outcome for result in results]
    return {
        "verdict": verdict(results),
        "counts": {outcome.value: outcomes.count(outcome) for outcome in Outcome},
        "checks": [
            {
                "area": result.check.area,
                "name": result.check.name,
                "outcome": result.finding.outcome.value,
                "fact": result.finding.fact,
                "fix": result.finding.fix,
            }
            for result in results
        ],
    }
