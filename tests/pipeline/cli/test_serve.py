"""The whole pipeline as a process: what it answers, what the other commands see of it, how it ends."""

from __future__ import annotations

import csv
import http.client
import io
import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mmproto.ratebook import RateBook
from mmproto.rateform import book_from_json
from tests.pipeline.calls import batch, call_id, make_call

PROTOBUF = "application/x-protobuf"


class Pipeline:
    """A served state folder, and the command line over it."""

    def __init__(self, state: Path) -> None:
        self.state = state
        with (state / "log").open("w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                self.command("serve", "--port", "0"), stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line.startswith("listening on http://127.0.0.1:"), (state / "log").read_text(encoding="utf-8")
        self.url = line.removeprefix("listening on ")
        self.token = (state / "ingest.token").read_text(encoding="ascii").strip()

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "mmpipeline.cli", *arguments, "--state-dir", str(self.state)]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(*arguments), capture_output=True, text=True, check=False)

    def form(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "-o", "json").stdout)

    def ask(
        self, method: str, path: str, body: bytes = b"", token: str | None = None, kind: str = PROTOBUF
    ) -> tuple[int, Any]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
        given = self.token if token is None else token
        connection.request(method, path, body, {"authorization": f"Bearer {given}", "content-type": kind})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response.status, json.loads(text) if text else None

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    made = Pipeline(tmp_path_factory.mktemp("state"))
    yield made
    made.end()


def posted(*names: str) -> bytes:
    calls = [make_call(call_id(random.Random(name)), team="a", at=time.time_ns()) for name in names]
    return batch(calls).SerializeToString()


def test_ingest_answers_what_became_of_the_batch(served: Pipeline) -> None:
    body = posted("one", "two")
    assert served.ask("POST", "/v1/ingest", body) == (200, {"accepted": 2, "duplicates": 0, "rejected": []})
    assert served.ask("POST", "/v1/ingest", body) == (200, {"accepted": 0, "duplicates": 2, "rejected": []})
    bad = batch([make_call("x")]).SerializeToString()
    assert served.ask("POST", "/v1/ingest", bad)[1]["rejected"] == [{"id": "x", "reason": "bad_id"}]


@pytest.mark.parametrize(
    ("body", "token", "kind", "status"),
    [
        (b"\xff\xff", None, PROTOBUF, 400),
        (b"", "wrong", PROTOBUF, 401),
        (b"", "", PROTOBUF, 401),
        (b"{}", None, "application/json", 415),
        (b"\x00" * (8 * 1024 * 1024 + 1), None, PROTOBUF, 413),
        (b"", None, PROTOBUF, 200),
    ],
)
def test_ingest_refuses_with_a_reason(
    served: Pipeline, body: bytes, token: str | None, kind: str, status: int
) -> None:
    code, form = served.ask("POST", "/v1/ingest", body, token, kind)
    assert code == status
    assert status == 200 or form["detail"]


def test_budgets_set_beside_the_running_pipeline_are_heeded_at_once(served: Pipeline) -> None:
    shown = served.form("budgets", "set", "b", "--team", "b", "--amount", "0.005", "--block-at", "100")
    assert (shown["spent_usd"], shown["state"]) == ("0", "open")
    calls = [make_call(call_id(random.Random(f"b{n}")), team="b", at=time.time_ns()) for n in range(2)]
    for percent, call in zip((50.0, 100.0), calls, strict=True):
        served.ask("POST", "/v1/ingest", batch([call]).SerializeToString())
        assert served.form("budgets", "show", "b")["percent"] == percent
    status, state = served.ask("GET", "/v1/router/state")
    assert status == 200
    (budget,) = [b for b in state["budgets"] if b["name"] == "b"]
    assert budget["scope"] == {"team": "b"}
    assert (budget["limit_nano_usd"], budget["spent_nano_usd"]) == (5_000_000, 5_000_000)
    assert budget["block_at_percent"] == 100
    assert budget["period_start"] < state["as_of"] < budget["resets_at"]
    assert served.ask("GET", "/v1/router/state", token="wrong")[0] == 401


def test_the_routers_rate_cards_price_as_the_pipeline_does(served: Pipeline) -> None:
    status, form = served.ask("GET", "/v1/rate-cards?provider=openai,anthropic")
    assert status == 200
    book: RateBook = book_from_json(form)
    assert book.version == served.ask("GET", "/v1/router/state")[1]["rate_cards_version"]
    charge = book.price("openai", ("gpt-4o",), "standard", time.time_ns(), {"input": 1000})
    assert charge.nano_usd == 2_500_000
    assert served.ask("GET", "/v1/rate-cards", token="wrong")[0] == 401


def test_status_says_what_is_wrong_with_its_exit_code(served: Pipeline) -> None:
    odd = make_call(call_id(random.Random("odd")), team="a", at=time.time_ns(), request_model="gpt-99")
    served.ask("POST", "/v1/ingest", batch([odd]).SerializeToString())
    for output in ("table", "json", "yaml"):
        assert served.run("status", "-o", output).returncode == 3
    form = served.form("status")
    assert form["verdict"] == "degraded"
    assert any("no known price" in reason for reason in form["reasons"])
    assert {"provider": "openai", "model": "gpt-99", "reason": "unknown_model", "calls": 1} in form[
        "unpriced"
    ]


def test_a_second_pipeline_is_refused_in_one_line(served: Pipeline, tmp_path: Path) -> None:
    port = str(urlsplit(served.url).port)
    busy = subprocess.run(
        [sys.executable, "-m", "mmpipeline.cli", "serve", "--state-dir", str(tmp_path), "--port", port],
        capture_output=True,
        text=True,
        check=False,
    )
    locked = served.run("serve", "--port", "0")
    for done, word in ((busy, "in use"), (locked, "another")):
        assert done.returncode == 1
        errors = [line for line in done.stderr.splitlines() if line.startswith("mmpipeline:")]
        assert len(errors) == 1
        assert word in errors[0].lower()
        assert "Traceback" not in done.stderr
    # The pipeline that runs is none the worse for it.
    assert (served.state / "pipeline" / "address").read_text(encoding="ascii").strip() == served.url


def test_reports_are_the_same_from_the_running_pipeline_and_from_its_folder(tmp_path: Path) -> None:
    made = Pipeline(tmp_path)
    calls = [
        make_call(
            call_id(random.Random(f"r{n}")),
            at=time.time_ns(),
            team=("a", "b", "")[n % 3],
            request_model=("gpt-4o", "gpt-99")[n % 5 == 0],
        )
        for n in range(30)
    ]
    made.ask("POST", "/v1/ingest", batch(calls).SerializeToString())
    deadline = time.monotonic() + 30
    while made.form("status")["warehouse"]["waiting_rows"] and time.monotonic() < deadline:
        time.sleep(0.1)
    running = made.form("report", "--by", "team", "--by", "model")
    assert made.end() == 0
    assert not (tmp_path / "pipeline" / "address").exists()
    assert made.form("report", "--by", "team", "--by", "model") == running
    assert running["total"]["calls"] == 30
    assert running["total"]["cost_usd"] == "0.06"
    assert running["total"]["unpriced_calls"] == 6
    rows = list(csv.DictReader(io.StringIO(made.run("report", "-o", "csv").stdout)))
    assert {(row["team"], row["calls"], row["cost_usd"]) for row in rows} == {
        ("a", "10", "0.02"),
        ("b", "10", "0.02"),
        ("(unallocated)", "10", "0.02"),
    }
    assert made.run("status").returncode == 4
    assert made.form("report", "--month", "2020-01")["total"]["calls"] == 0


def test_a_pipeline_that_never_ran(tmp_path: Path) -> None:
    state = ("--state-dir", str(tmp_path / "none"))
    for arguments, code in ((["status"], 4), (["report"], 4), (["report", "--month", "x"], 2)):
        done = subprocess.run(
            [sys.executable, "-m", "mmpipeline.cli", *arguments, *state],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr.count("Traceback")) == (code, 0)
    assert not (tmp_path / "none").exists()


def test_a_state_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "mmpipeline.cli",
        "serve",
        "--state-dir",
        str(tmp_path / "file" / "state"),
    ]
    done = subprocess.run([*command, "--port", "0"], capture_output=True, text=True, check=False)
    assert done.returncode == 77
    assert done.stderr.startswith("mmpipeline: state folder")
    assert len(done.stderr.splitlines()) == 1


def test_an_address_that_cannot_be_listened_on(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        command = [sys.executable, "-m", "mmpipeline.cli", "serve", "--state-dir", str(tmp_path)]
        done = subprocess.run(
            [*command, "--port", str(taken.getsockname()[1])],
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "cannot listen on 127.0.0.1:" in done.stderr
