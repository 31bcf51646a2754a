"""`mmpipeline budgets`, and the reference that is written from the commands' own help."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mmpipeline.cli import cli
from tests.pipeline.cli import reference


def run(state: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["budgets", *arguments, "--state-dir", str(state)])


def form(state: Path, *arguments: str) -> Any:
    done = run(state, *arguments, "-o", "json")
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_set_show_change_delete(tmp_path: Path) -> None:
    made = form(
        tmp_path, "set", "payments-monthly", "--team", "payments", "--amount", "99.50", "--block-at", "100"
    )
    assert (made["limit_usd"], made["scope"], made["period"]) == ("99.5", {"team": "payments"}, "month")
    assert made["thresholds"] == [
        {"percent": 50, "action": "alert"},
        {"percent": 80, "action": "alert"},
        {"percent": 100, "action": "block"},
    ]
    changed = form(tmp_path, "set", "payments-monthly", "--amount", "200")
    assert (changed["limit_usd"], changed["scope"]) == ("200", {"team": "payments"})
    assert changed["thresholds"] == made["thresholds"]
    moved = form(tmp_path, "set", "payments-monthly", "--block-at", "120", "--period", "week")
    assert [(t["percent"], t["action"]) for t in moved["thresholds"]] == [
        (50, "alert"),
        (80, "alert"),
        (100, "alert"),
        (120, "block"),
    ]
    quiet = form(tmp_path, "set", "payments-monthly", "--no-block", "--alert-at", "90")
    assert [(t["percent"], t["action"]) for t in quiet["thresholds"]] == [(90, "alert"), (120, "alert")]
    assert [b["name"] for b in form(tmp_path, "list")] == ["payments-monthly"]
    assert "payments-monthly: 0 of 200 USD" in run(tmp_path, "show", "payments-monthly").output
    assert run(tmp_path, "delete", "payments-monthly").exit_code == 0
    assert "no budgets" in run(tmp_path, "list").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["set", "x"], "give its --amount"),
        (["set", "x", "--amount", "lots"], "'lots' is no amount"),
        (["set", "x", "--amount", "NaN"], "is no amount"),
        (["set", "x", "--amount", "-1"], "between 0 and"),
        (["set", "x", "--amount", "0.0000000001"], "is no amount"),
        (["set", "a b", "--amount", "1"], "no budget name"),
        (["set", "x", "--amount", "1", "--block-at", "0"], "whole percents"),
        (["set", "x", "--amount", "1", "--block-at", "90", "--no-block"], "not both"),
        (["show", "x"], "there is no budget 'x'"),
        (["delete", "x"], "there is no budget 'x'"),
    ],
)
def test_mistakes_are_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert len(done.output.splitlines()) == 1


def test_the_reference_is_what_the_commands_say_of_themselves() -> None:
    assert reference.FILE.read_text(encoding="utf-8") == reference.updated(
        reference.FILE.read_text(encoding="utf-8")
    ), "write it anew with `python -m tests.pipeline.cli.reference`"


def test_amounts_and_zones(tmp_path: Path) -> None:
    made = form(
        tmp_path, "set", "night", "--amount", "10", "--period", "day", "--time-zone", "Asia/Kathmandu"
    )
    assert (made["time_zone"], made["period_start"][11:]) == ("Asia/Kathmandu", "18:15:00Z")
    later = form(tmp_path, "set", "night", "--amount", "20", "--from", "2099-12-01")
    assert (later["limit_usd"], later["time_zone"]) == ("10", "Asia/Kathmandu")
    assert later["amounts"][1] == {"from": "2099-11-30T18:15:00Z", "limit_usd": "20"}
    assert "20 USD from 2099-12-01" in run(tmp_path, "show", "night").output
    waiting = form(tmp_path, "set", "next", "--amount", "5", "--from", "2099-12-01T00:00:00Z")
    assert (waiting["state"], waiting["limit_usd"], waiting["percent"]) == ("pending", None, None)
    assert "no amount in force" in run(tmp_path, "show", "next").output
    assert "pending" in run(tmp_path, "list").output
    assert form(tmp_path, "list", "--tenant", "other") == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["set", "x", "--amount", "1", "--time-zone", "Europe/Berln"], "is Europe/Berlin meant?"),
        (["set", "x", "--amount", "1", "--from", "soon"], "--from: a date such as"),
        (["set", "x", "--amount", "1", "--from", "2026-02-30"], "--from: a date such as"),
    ],
)
def test_zones_and_moments_that_are_none(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(tmp_path, *arguments)
    assert done.exit_code == 2
    assert message in done.output
    assert len(done.output.splitlines()) == 1


def test_verify_says_what_agrees_and_what_does_not(tmp_path: Path) -> None:
    def verify(*arguments: str) -> Result:
        return CliRunner().invoke(cli, ["ledger", "verify", "--state-dir", str(tmp_path), *arguments])

    nothing = verify()
    assert (nothing.exit_code, "holds no data either" in nothing.output) == (4, True)
    form(tmp_path, "set", "x", "--amount", "1")
    agrees = verify()
    assert (agrees.exit_code, "everything agrees" in agrees.output) == (0, True), agrees.output
    with closing(sqlite3.connect(tmp_path / "pipeline" / "control.sqlite")) as store:
        store.execute("INSERT INTO counters VALUES ('ledger.calls', -1, 3)")
        store.commit()
    differs = verify("-o", "json")
    assert differs.exit_code == 1
    assert json.loads(differs.output)["differences"] == [
        {"what": "totals", "tenant": "", "subject": "all tenants", "field": "calls", "kept": 3, "charged": 0}
    ]
    assert "1 difference;" in verify().output
    assert verify("-o", "yaml").output.startswith("as_of:")
