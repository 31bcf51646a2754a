"""`mmpipeline price` as people and scripts use it: JSON in, JSON out, one line for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

GOOD: dict[str, Any] = {
    "provider": "openai",
    "model": "gpt-4o",
    "at": "2026-11-23T10:00:00Z",
    "service_tier": "standard",
    "usage": {"input": 1000, "input_cache_read": 3, "output": 200},
}


def run(text: str | bytes, *options: str, config: str = "") -> subprocess.CompletedProcess[str]:
    """The command with `text` on standard input."""
    command = [sys.executable, "-m", "mmpipeline.cli", "price", *(["--config", config] if config else [])]
    data = text if isinstance(text, bytes) else text.encode()
    done = subprocess.run([*command, *options], input=data, capture_output=True, check=False)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def test_one_question_pretty_printed() -> None:
    done = run(json.dumps(GOOD, indent=4))
    assert (done.returncode, done.stderr) == (0, "")
    form = json.loads(done.stdout)
    assert form["cost_usd"] == "0.00450375"
    assert form["rate_card"].startswith("openai/gpt-4o/standard@always#")
    assert form["lines"] == [
        {"bucket": "input", "quantity": 1000, "rate": "2.5", "per": 1_000_000, "amount": "0.0025"},
        {
            "bucket": "input_cache_read",
            "quantity": 3,
            "rate": "1.25",
            "per": 1_000_000,
            "amount": "0.00000375",
        },
        {"bucket": "output", "quantity": 200, "rate": "10", "per": 1_000_000, "amount": "0.002"},
    ]


def test_many_questions_each_with_its_answer_and_its_error() -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"usage": {"input": -1}}, "invalid_count"),
        ({"usage": {"input": 10**30}}, "invalid_count"),
        ({"usage": {"input": float("nan")}}, "invalid_count"),
        ({"usage": {"input": "12"}}, "invalid_count"),
        ({"usage": {"input": True}}, "invalid_count"),
        ({"usage": {"inputs": 5}}, "unknown_bucket"),
        ({"usage": {}}, "no_usage"),
        ({"at": "yesterday"}, "invalid_time"),
        ({"at": 5}, "invalid_time"),
        ({"model": "gpt-99"}, "unknown_model"),
        ({"provider": "nobody"}, "unknown_provider"),
        ({"service_tier": "turbo"}, "unknown_tier"),
        ({"at": "2026-11-23"}, ""),
        ({"at": "2026-11-23T10:00:00+02:00"}, ""),
        ({"at": None, "service_tier": None}, ""),
    ]
    lines = [json.dumps(GOOD | change) for change, _ in changes]
    lines[3:3] = ["", '{"provider": "openai"', '{"provider": 7, "model": "x", "usage": {}}', "[]"]
    done = run("\n".join(lines) + "\n")
    assert done.returncode == 2
    assert [line.split(" is not")[0].split(": ")[:2] for line in done.stderr.splitlines()] == [
        ["mmpipeline", "line 5"],
        ["mmpipeline", "line 6"],
        ["mmpipeline", "line 7"],
    ]
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer.get("reason", "") for answer in answers] == [reason for _, reason in changes]
    for answer in answers:
        assert (answer["cost_usd"] is None) == ("reason" in answer)
        if answer["cost_usd"] is not None:
            assert sum(Decimal(line["amount"]) for line in answer["lines"]) == Decimal(answer["cost_usd"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "nothing on standard input"),
        ("garbage", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{\n "provider": "openai"\n "model"', "not JSON"),
        ("[1]", "an object with provider"),
        (json.dumps(GOOD | {"tier": "batch"}), "unknown key 'tier'"),
        (json.dumps(GOOD | {"usage": [1]}), "'usage' must be an object"),
        ('{"provider":"openai","model":"gpt-4o","usage":{"input":1,"input":2}}', "given twice"),
        (b"\xff\xfe", "not UTF-8"),
    ],
)
def test_input_that_is_no_question_is_one_line(text: str | bytes, message: str) -> None:
    done = run(text)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_table_for_people() -> None:
    done = run(json.dumps(GOOD), "-o", "table")
    assert done.stdout.splitlines()[0].split() == ["BUCKET", "QUANTITY", "RATE", "PER", "AMOUNT"]
    assert "0.00450375 USD by openai/gpt-4o" in done.stdout


def test_negotiated_rates_of_the_configuration(tmp_path: Path) -> None:
    rates = tmp_path / "rates.yaml"
    rates.write_text(
        "rates:\n  - {provider: openai, models: [gpt-4o], effective_from: '2026-01-01', source: contract 17,"
        " usd_per_million: {input: 1, output: 2}}\n",
        encoding="utf-8",
    )
    config = tmp_path / "pipeline.yaml"
    config.write_text(f"rating: {{overrides: {rates}}}\n", encoding="utf-8")
    form = json.loads(run(json.dumps(GOOD), config=str(config)).stdout)
    assert (form["cost_usd"], form["sources"]) == ("0.001403", ["contract 17"])
    config.write_text("ratings: {}\n", encoding="utf-8")
    done = run(json.dumps(GOOD), config=str(config))
    assert done.returncode == 78
    assert "unknown key 'ratings'; did you mean 'rating'?" in done.stderr
