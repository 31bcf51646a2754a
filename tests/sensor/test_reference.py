"""docs/reference/sensor.md says what the code does: every setting, metric, command and exit code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click
import yaml

from mmproto.exits import Exit
from mmproto.settings import describe
from mmsensor.attribution.rules import Assign, Match
from mmsensor.cli import main
from mmsensor.config import SensorSettings, load_settings
from mmsensor.metrics import METRICS

REFERENCE = (Path(__file__).parents[2] / "docs" / "reference" / "sensor.md").read_text()


def _table(heading: str) -> list[list[str]]:
    """The cells of the first table whose header row starts with `heading`."""
    lines = REFERENCE.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        cells = re.split(r"(?<!\\)\|", line)[1:-1]
        plain = [cell.strip().replace("\\|", "|") for cell in cells]
        rows.append([cell.strip("`") if re.fullmatch("`[^`]*`", cell) else cell for cell in plain])
    return rows


def _default(value: Any) -> str:
    if value in (None, "", [], {}):
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def _example(key: str) -> Any:
    """The one example of a configuration that has `key`."""
    examples = map(yaml.safe_load, re.findall(r"```yaml\n(.*?)```", REFERENCE, re.DOTALL))
    (found,) = (example for example in examples if key in example)
    return found


def test_every_setting_with_its_type_default_and_meaning() -> None:
    expected = [
        [key, kind, _default(default), about] for key, kind, default, about in describe(SensorSettings)
    ]
    assert _table("Key") == expected


def test_what_rules_match_and_set() -> None:
    assert _table("`match`") == [[key, about] for key, _, _, about in describe(Match)]
    assert _table("`set`") == [[key, about] for key, _, _, about in describe(Assign)]


def test_every_metric() -> None:
    assert _table("Name") == [[metric.name, metric.kind, metric.about] for metric in METRICS]


def test_every_command() -> None:
    def commands(group: click.Group, prefix: str) -> list[str]:
        names = []
        for name, command in group.commands.items():
            path = f"{prefix} {name}"
            names += commands(command, path) if isinstance(command, click.Group) else [path]
        return names

    documented = [re.split(r" [\[A-Z]", row[0])[0] for row in _table("Command")]
    assert sorted(documented) == sorted(commands(main, "mmsensor"))


def test_every_exit_code() -> None:
    assert [int(row[0]) for row in _table("Code")] == [int(code) for code in Exit]


def test_the_example_of_rules_is_valid() -> None:
    rules = _example("attribution")["attribution"]["rules"]
    loaded = load_settings(Path("/dev/null"), {"attribution.rules": rules}, env={})
    assert len(loaded.settings.attribution.rules) == 3


def test_the_example_of_kafka_is_valid() -> None:
    example = _example("kafka")
    loaded = load_settings(Path("/dev/null"), example, env={})
    kafka = loaded.settings.to_kafka
    assert kafka is not None
    assert kafka.properties["sasl.mechanism"].reveal() == "SCRAM-SHA-512"


def test_the_configuration_that_is_installed_is_valid() -> None:
    installed = Path(__file__).parents[2] / "packaging" / "etc" / "sensor.yaml"
    loaded = load_settings(installed, {}, env={})
    assert loaded.settings == load_settings(Path("/dev/null"), {}, env={}).settings
