"""`mmpipeline prices` as people and scripts use it, over a store of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mmpipeline.cli import cli
from mmpipeline.ingest.ledgering import Ledgering
from mmpipeline.ingest.posts import Post
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control.database import Database, file_url
from tests.pipeline.calls import NOW, batch, make_call
from tests.services.postgresql import MakeDatabase

DISCOUNT = (
    "rates:\n  - {provider: openai, models: [gpt-4o], effective_from: '2026-07-01', source: contract 9, "
    "discount_percent: 10}\n"
)
CARD = "openai/gpt-4o/standard@always#b8b7c81f086e"


class Machine:
    """A state folder and its configuration."""

    def __init__(self, folder: Path) -> None:
        self.state = folder / "state"
        self.rates = folder / "rates.yaml"
        self.config = folder / "pipeline.yaml"
        self.config.write_text("{}\n")

    def run(self, *arguments: str, code: int = 0) -> Result:
        where = ["--config", str(self.config), "--state-dir", str(self.state)]
        done = CliRunner().invoke(cli, ["prices", *arguments, *where])
        assert done.exit_code == code, done.output
        return done

    def form(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json").stdout)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_way_of_a_negotiated_rate(machine: Machine) -> None:
    assert "no book yet" in machine.run("books").stdout
    first = machine.form("import")
    assert (first["imported"], first["before"], first["changes"]) == (True, None, [])
    assert machine.form("import")["imported"] is False

    store = Database.open(file_url(machine.state / "pipeline" / "control.sqlite"))
    calls = [make_call(f"00000000-0000-5000-8000-00000000000{number}") for number in range(3)]
    Ledgering(store, RatingService.in_force(store, None)).write([Post(batch(calls))], NOW)
    store.close()

    machine.rates.write_text(DISCOUNT)
    trial = machine.form("import", "--file", str(machine.rates), "--dry-run")
    changed = {(c["model"], c["service_tier"], c["change"]) for c in trial["changes"]}
    assert ("gpt-4o", "standard", "changed") in changed
    assert {model for model, _, _ in changed} == {"gpt-4o"}
    assert len(machine.form("books")) == 1

    machine.config.write_text(f"rating: {{overrides: {machine.rates}}}\n")
    assert {c["model"] for c in machine.form("diff")["changes"]} == {"gpt-4o"}
    assert machine.form("import")["version"] == trial["version"]
    assert machine.form("diff")["changes"] == []
    assert machine.form("diff", "1")["changes"] == trial["changes"]
    assert machine.form("diff", "1", trial["version"].split("#")[1])["changes"] == trial["changes"]
    assert [(book["number"], book["in_force"]) for book in machine.form("books")] == [(2, True), (1, False)]

    (card,) = machine.form("show", "openai/gpt-4o", "--at", "2026-11-20")
    assert (card["rates"]["input"]["usd"], card["is_override"]) == ("2.25", True)
    assert card["sources"][1] == "10 % off the list price: contract 9"
    assert machine.form("show", "openai/gpt-4o", "--at", "2026-06-30")[0]["id"] == CARD
    shown = machine.form("show", CARD)
    assert (shown["rates"]["input"]["usd"], len(shown["books"])) == ("2.5", 2)

    trial = machine.form("reprice", "--from", "2026-11-01", "--dry-run")
    assert (trial["changed"], trial["old_usd"], trial["new_usd"]) == (3, "0.0075", "0.00675")
    done = machine.run("reprice", "--from", "2026-11-01")
    assert "3 of 3 calls of 1 tenant changed" in done.stdout
    assert machine.form("reprice", "--from", "2026-11-01")["changed"] == 0


def test_tables_for_people(machine: Machine) -> None:
    heading, *lines = machine.run(
        "list", "--provider", "openai", "--model", "o3", "--all-times"
    ).stdout.splitlines()
    assert heading.split()[:4] == ["PROVIDER", "MODEL", "TIER", "FROM"]
    assert lines[0].split()[:5] == ["openai", "o3", "standard", "always", "2025-06-10"]
    over_time = machine.run("show", "gcp.gemini/gemini-2.5-pro").stdout
    assert "1.25, 2.5 above 200000" in over_time
    assert "source: genai-prices" in over_time
    assert "no price differs" in machine.run("diff").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["show", "gpt-4o"], 2, "neither a card's id nor PROVIDER/MODEL"),
        (["show", "openai/gpt-99"], 1, "means no model of openai"),
        (["show", "nobody/gpt-4o"], 1, "no prices of a provider 'nobody'"),
        (["show", "openai/gpt-4o", "--at", "2026-11-20", "--tier", "scale"], 1, "unknown_tier"),
        (["show", "openai/x/standard@always#0"], 1, "no card 'openai/x/standard@always#0' was ever imported"),
        (["list", "--at", "soon"], 2, "'soon' is no time"),
        (["list", "--at", "2026-11-01", "--all-times"], 2, "not both"),
        (["list", "--provider", "nobody"], 1, "no rate card of that kind"),
        (["diff", "7"], 2, "no book '7' was imported"),
        (["import", "--file", "/nowhere.yaml"], 78, "/nowhere.yaml: cannot be read"),
        (["reprice", "--from", "2026-11-02", "--to", "2026-11-01"], 2, "nothing lies between"),
        (["reprice", "--from", "2026-11-01"], 1, "no book of prices was imported yet"),
    ],
)
def test_what_is_wrong_is_one_line(machine: Machine, arguments: list[str], code: int, message: str) -> None:
    done = machine.run(*arguments, code=code)
    assert message in done.stderr
    assert (done.stdout, len(done.stderr.splitlines())) == ("", 1)


def test_on_postgresql_each_role_does_what_it_may(machine: Machine, make_database: MakeDatabase) -> None:
    made = make_database()
    machine.rates.write_text(DISCOUNT)
    machine.config.write_text(f"control: {{url: '{made.app}'}}\nrating: {{overrides: {machine.rates}}}\n")
    assert machine.form("import")["imported"] is True
    assert machine.form("show", "openai/gpt-4o", "--at", "2026-11-20")[0]["is_override"] is True
    assert "modelmeter_worker" in machine.run("reprice", "--from", "2026-11-01", code=1).stderr
    machine.config.write_text(f"control: {{url: '{made.worker}'}}\n")
    assert machine.form("reprice", "--from", "2026-11-01")["calls"] == 0
