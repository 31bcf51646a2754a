"""What a check is, and what it can find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmsensor.doctor.surroundings import Surroundings


#: The fix of what only somebody with more rights can find out, and of what nobody but us can.
AS_ROOT = "run `mmsensor doctor` with sudo"
REPORT_IT = "report it, with the output of `mmsensor doctor -o json`"


class Outcome(StrEnum):
    OK = "ok"
    WARN = "warn"  # the sensor works, with less than it could have
    FAIL = "fail"  # the sensor does not work like this
    SKIPPED = "skipped"  # could not be found out: not a pass


@dataclass(frozen=True, slots=True)
class Finding:
    """`fact`: one line of what is there. `fix`: one line of what to do, "" where there is nothing to do."""

    outcome: Outcome
    fact: str
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One question about the machine; `about` says for people what it asks.

    `examine` may take longer than `limit_s`, and may raise: the others are examined all the same.
    """

    area: str
    name: str
    about: str
    examine: Callable[[Surroundings], Finding]
    limit_s: float = 10.0
    #: Checks before it without which there is nothing to examine.
    rests_on: tuple[str, ...] = ()


def ok(fact: str) -> Finding:
    return Finding(Outcome.OK, fact)


def warn(fact: str, fix: str) -> Finding:
    return Finding(Outcome.WARN, fact, fix)


def fail(fact: str, fix: str) -> Finding:
    return Finding(Outcome.FAIL, fact, fix)


def skipped(fact: str, fix: str) -> Finding:
    return Finding(Outcome.SKIPPED, fact, fix)
