"""Kills of everything that can be killed, small enough for every run; `make faults` is the large one."""

from __future__ import annotations

import secrets
from pathlib import Path

from tests.faults.killing import Plan, run


def test_no_kill_loses_or_doubles_a_nano_dollar(tmp_path: Path) -> None:
    plan = Plan(calls=3_000, kills=10, seed=secrets.randbelow(1_000_000))
    outcome = run(plan, tmp_path, print)
    print("\n".join(outcome.lines()))
    assert not outcome.wrong, outcome.wrong
    assert sum(outcome.killed.values()) >= plan.kills
    assert outcome.counted["duplicates"] > 0
