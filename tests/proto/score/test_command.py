"""`mmproto score` over a small folder: every verdict, every exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.proto import wire
from tests.proto.score.records import chat, write

from mmproto.cli import main

EXACT = chat(name="exact")
STREAM = chat(
    wire.sse(wire.chat_chunks(usage=wire.chat_usage()), done=True),
    name="stream",
    content_type="text/event-stream",
    streaming=True,
)
WRONG = chat(name="wrong", input_tokens=29)
MISSED = chat(b'{"broken', name="missed")
FALSE = chat(
    name="false",
    billable=False,
    usage_reported=False,
    model_response=None,
    input_tokens=None,
    output_tokens=None,
)
AMBIGUOUS = chat(name="ambiguous", input_tokens=1, ambiguous=True)
HTTP1 = ("--framing", "length,chunked,close", "--coding", "identity,gzip,deflate")


def score(folder: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(main, ["score", str(folder), *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def report(folder: Path, *arguments: str) -> dict[str, Any]:
    document = json.loads(score(folder, *HTTP1, "-o", "json", *arguments).output)
    assert isinstance(document, dict)
    return document


def test_exact_records_pass(tmp_path: Path) -> None:
    result = score(write(tmp_path, EXACT, STREAM, AMBIGUOUS), *HTTP1)
    assert result.exit_code == 0
    assert "exact: 2 of 2 records that are not ambiguous (100.00 %)" in result.output
    assert "wrong numbers called EXACT: 0" in result.output


def test_every_verdict_is_given_and_counted(tmp_path: Path) -> None:
    folder = write(tmp_path, EXACT, WRONG, MISSED, FALSE, AMBIGUOUS)
    (folder / "damaged.json").write_text('{"request":')
    result = score(folder, *HTTP1, "--details")
    assert result.exit_code == 1
    assert "unreadable: damaged: no JSON" in result.output
    assert "input_tokens: 30, expected 29" in result.output

    document = report(folder)
    verdicts = {one["id"]: one["verdict"] for one in document["records"]}
    assert verdicts == {
        "exact": "exact",
        "wrong": "wrong",
        "missed": "missed",
        "false": "falsely_found",
        "ambiguous": "wrong",
    }
    total = document["total"]
    assert total["records"] == 5 and total["ambiguous"] == 1 and total["rate"] == 0.25
    assert [total[name] for name in ("exact", "wrong", "missed", "falsely_found", "unstable")] == [
        1,
        1,
        1,
        1,
        0,
    ]
    assert document["wrong_called_exact"] == ["false", "wrong"]
    assert document["reasons"]["wrong: input_tokens (openai)"] == 1
    assert document["reasons"]["missed: failed: malformed_json (openai)"] == 1
    [difference] = next(one["differences"] for one in document["records"] if one["id"] == "wrong")
    assert difference == {"field": "input_tokens", "ours": 30, "expected": 29}


def test_only_one_provider_is_scored(tmp_path: Path) -> None:
    other = chat(name="other", host="api.groq.com", path="/openai/v1/chat/completions", provider="groq")
    folder = write(tmp_path, WRONG, other)
    assert score(folder, *HTTP1, "--only", "groq").exit_code == 0
    assert [one["id"] for one in report(folder, "--only", "groq")["records"]] == ["other"]


def test_the_same_seed_gives_the_same_report(tmp_path: Path) -> None:
    folder = write(tmp_path, EXACT, WRONG)
    assert report(folder, "--seed", "7") == report(folder, "--seed", "7")


def test_a_record_that_no_chosen_framing_carries_is_left_out(tmp_path: Path) -> None:
    session = chat(name="session", method="GET", more={"frames": [{"direction": "client", "text": "{}"}]})
    session["response"]["status"] = 101
    document = report(write(tmp_path, EXACT, session))
    assert document["left_out"] == ["session"] and document["total"]["records"] == 1


@pytest.mark.parametrize(
    "arguments",
    [("--framing", "h3"), ("--coding", "lzma"), ("--only", "nobody"), ("--seed", "x"), ("-o", "xml")],
)
def test_wrong_usage(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = score(write(tmp_path, EXACT), *arguments)
    assert result.exit_code == 2 and "Error:" in result.output


def test_a_folder_that_is_not_there_or_empty(tmp_path: Path) -> None:
    assert score(tmp_path / "nowhere").exit_code == 2
    assert score(tmp_path).exit_code == 2
