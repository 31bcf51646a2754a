"""The commands as a user meets them: output, one-line errors, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from mmproto.exits import Exit
from mmsensor.cli import main
from mmsensor.control import JSON, TEXT, Answer, ControlServer
from tests.sensor.status.test_status import Bench

KEY = "sk-very-secret-0123456789"


def run(*argv: str, state: Path | None = None, stdin: str | None = None) -> Result:
    env = {"MODELMETER_STATE_DIR": str(state)} if state else {}
    return CliRunner().invoke(main, list(argv), input=stdin, env=env)


def one_line(result: Result, code: int) -> str:
    """The only line of standard error, of a command that ended with `code`."""
    assert result.exit_code == code, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("mmsensor: ")
    assert "Traceback" not in line
    return line


def _entry(url: str = "https://api.openai.com/v1/chat/completions", **response: Any) -> dict[str, Any]:
    answer = {
        "id": "chatcmpl-AbCdEfGhIjKlMnOpQrSt",
        "object": "chat.completion",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "private words"},
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 9, "completion_tokens": 21, "total_tokens": 30},
    }
    return {
        "startedDateTime": "2026-11-23T10:00:00.250Z",
        "time": 1500,
        "request": {
            "method": "POST",
            "url": url,
            "httpVersion": "HTTP/1.1",
            "headers": [
                {"name": "Authorization", "value": f"Bearer {KEY}"},
                {"name": "X-Team", "value": "green"},
            ],
            "postData": {"mimeType": "application/json", "text": '{"model": "gpt-4o-mini", "messages": []}'},
        },
        "response": {
            "status": 200,
            "headers": [{"name": "content-type", "value": "application/json"}],
            "content": {"mimeType": "application/json", "text": json.dumps(answer)},
            **response,
        },
    }


def _archive(folder: Path, *entries: Any, name: str = "calls.har") -> Path:
    path = folder / name
    path.write_text(json.dumps({"log": {"version": "1.2", "entries": list(entries)}}))
    return path


def test_replay_prints_the_calls_and_counts_the_rest(tmp_path: Path) -> None:
    archive = _archive(tmp_path, _entry(), _entry("https://example.com/"), {"broken": 1}, _entry())
    result = run("replay", str(archive))
    assert result.exit_code == 0
    calls = [json.loads(line) for line in result.stdout.splitlines()]
    assert [call["usage"]["input_tokens"] for call in calls] == [9, 9]
    assert calls[0]["started_at"] == "2026-11-23T10:00:00.25Z"
    assert calls[0]["duration_s"] == 1.5
    assert "team" not in calls[0]
    assert "observer" not in calls[0], "an archive says nothing of who recorded it"
    (counts,) = result.stderr.splitlines()
    assert counts.startswith("4 entries: 2 calls, 1 dropped (not_llm 1), 1 failed (archive_bad_entry 1)")
    assert KEY not in result.output
    assert "private words" not in result.output


def test_replay_reads_several_files_and_standard_input(tmp_path: Path) -> None:
    first = _archive(tmp_path, _entry())
    result = run("replay", str(first), "-", stdin=first.read_text())
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)


def test_replay_applies_rules_where_a_configuration_is_given(tmp_path: Path) -> None:
    config = tmp_path / "sensor.yaml"
    config.write_text(
        f"state_dir: {tmp_path}\nattribution:\n  rules:\n"
        '  - match: {provider: openai}\n    set: {team: "{header.x-team}", application: x}\n'
    )
    result = run("replay", str(_archive(tmp_path, _entry())), "--config", str(config))
    call = json.loads(result.stdout)
    assert (call["team"], call["application"]) == ("green", "x")
    assert list(tmp_path.glob("sensor/*")) == [], "replay writes nothing"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"", "the file is empty"),
        (b"{}", "no log.entries"),
        (b"\x00\xff{", ""),
    ],
)
def test_replay_names_a_file_that_cannot_be_read_and_goes_on(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    bad = tmp_path / "bad.har"
    if content is not None:
        bad.write_bytes(content)
    result = run("replay", str(bad), str(_archive(tmp_path, _entry())))
    assert result.exit_code == Exit.UNHEALTHY
    assert len(result.stdout.splitlines()) == 1
    error, counts = result.stderr.splitlines()
    assert error.startswith(f"mmsensor: {bad}: ")
    assert message in error
    assert counts.startswith("1 entries: 1 calls")


def test_replay_without_a_file_is_a_usage_error() -> None:
    assert run("replay").exit_code == Exit.USAGE
    assert run("replay", "x.har", "--nonsense").exit_code == Exit.USAGE
    assert run("nonsense").exit_code == Exit.USAGE


def test_replay_into_a_closed_pipe_ends_quietly(tmp_path: Path) -> None:
    archive = _archive(tmp_path, *[_entry()] * 3000)
    command = f'{sys.executable} -c "from mmsensor.cli import main; main()" replay {archive} | head -1'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert len(done.stdout.splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert "Error" not in done.stderr


@pytest.fixture
def answering(tmp_path: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A state folder whose sensor answers with the given document."""
    document = Bench(tmp_path).reporter.snapshot()
    (tmp_path / "sensor").mkdir()
    control = ControlServer()
    control.add_unix(
        tmp_path / "sensor" / "sensor.sock",
        {
            "/status": lambda: Answer(200, JSON, json.dumps(document)),
            "/targets": lambda: Answer(200, JSON, json.dumps(document["targets"])),
        },
    )
    control.start()
    yield tmp_path, document
    control.close()


@pytest.mark.parametrize(
    ("verdict", "code"), [("healthy", Exit.OK), ("degraded", Exit.DEGRADED), ("unhealthy", Exit.UNHEALTHY)]
)
def test_status_has_the_same_exit_code_in_every_form(
    answering: tuple[Path, dict[str, Any]], verdict: str, code: int
) -> None:
    state, document = answering
    document["verdict"] = verdict
    results = {form: run("status", "-o", form, state=state) for form in ("table", "json", "yaml")}
    assert {form: result.exit_code for form, result in results.items()} == dict.fromkeys(results, code)
    assert json.loads(results["json"].stdout) == document
    assert yaml.safe_load(results["yaml"].stdout) == document
    assert results["table"].stdout.startswith(f"verdict      {verdict}\n")


def test_targets_in_every_form(answering: tuple[Path, dict[str, Any]]) -> None:
    state, document = answering
    assert json.loads(run("targets", "-o", "json", state=state).stdout) == document["targets"]
    assert yaml.safe_load(run("targets", "-o", "yaml", state=state).stdout) == document["targets"]
    assert "/usr/lib/libssl.so.3" in run("targets", "--state-dir", str(state)).stdout


@pytest.mark.parametrize("command", ["status", "targets"])
def test_nobody_answers(tmp_path: Path, command: str) -> None:
    for form in ("table", "json", "yaml"):
        line = one_line(run(command, "-o", form, state=tmp_path), Exit.UNREACHABLE)
        assert "is it running, with this state folder?" in line


def test_a_broken_answer_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "sensor").mkdir()
    control = ControlServer()
    control.add_unix(tmp_path / "sensor" / "sensor.sock", {"/x": lambda: Answer(200, TEXT, "")})
    control.start()
    line = one_line(run("status", state=tmp_path), Exit.UNREACHABLE)
    control.close()
    assert "answered 404" in line


def _as_nobody(*argv: str, state: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command without root's rights; the code is imported first, as it may lie in root's folders."""
    code = (
        "import os, sys, click, json, mmsensor.cli, mmsensor.launch, yaml\n"
        "import encodings.ascii, encodings.idna, importlib.metadata\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        # The interpreter may be one of root's files too: what `run` would start over is called here.
        "mmsensor.launch.os.execv = lambda _, argv: sys.exit(mmsensor.launch.main(argv[-1]))\n"
        "mmsensor.cli.main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *argv],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
        env={"MODELMETER_STATE_DIR": str(state)},
    )


def test_status_without_permission(answering: tuple[Path, dict[str, Any]]) -> None:
    state, _ = answering
    for folder in (state, *state.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    done = _as_nobody("status", state=state)
    if os.geteuid() == 0:
        assert done.returncode == Exit.PERMISSION
        assert "run as root or as the sensor's user" in done.stderr
    else:
        assert done.returncode == Exit.OK


def test_run_without_root_is_one_line(tmp_path: Path) -> None:
    state = tmp_path / "open"
    state.mkdir()
    for folder in (state, *state.parents[:-2]):
        folder.chmod(folder.stat().st_mode | 0o057)
    done = _as_nobody("run", "--metrics-listen", "127.0.0.1:0", state=state)
    assert done.returncode == Exit.PERMISSION, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("mmsensor: ")


def test_run_as_root_without_capabilities_is_a_permission_that_is_missing(tmp_path: Path) -> None:
    """As in a container: the user is root, its rights are not."""
    confined = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    order = json.dumps({"config": None, "flags": {"state_dir": str(tmp_path)}, "only_pids": []})
    done = subprocess.run(
        [*confined, sys.executable, "-m", "mmsensor.launch", order],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.PERMISSION, done.stderr
    assert "no permission to load probes" in done.stderr


def test_run_with_a_state_folder_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-c", "from mmsensor.cli import main; main()", "run"],
        env={"MODELMETER_STATE_DIR": str(tmp_path / "file")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == Exit.UNHEALTHY
    (line,) = done.stderr.splitlines()
    assert "cannot be made: Not a directory; choose one with --state-dir" in line


def test_configuration_mistakes_are_named_with_their_place(tmp_path: Path) -> None:
    config = tmp_path / "sensor.yaml"
    config.write_text("sink: ingest\ncaptre:\n  ring_bytes: 8MiB\nmetrics:\n  listen: nowhere\n")
    result = run("config", "validate", "--config", str(config))
    assert result.exit_code == Exit.CONFIGURATION
    unknown, address = result.stderr.splitlines()
    assert unknown == f"mmsensor: {config}:2: unknown key 'captre'; did you mean 'capture'?"
    assert address.startswith(f"mmsensor: {config}:4: metrics: listen: host:port is expected")
    for command in (("run",), ("status",), ("replay", "x.har"), ("config", "show")):
        assert run(*command, "--config", str(config)).exit_code == Exit.CONFIGURATION


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sink: file", "'ingest', 'kafka', 'kafka://HOST:PORT' or 'jsonl:PATH' is expected"),
        ("sink: 'jsonl:'", "'ingest', 'kafka', 'kafka://HOST:PORT' or 'jsonl:PATH' is expected"),
        ("sink: kafka", "'kafka' needs kafka.brokers"),
        ("sink: 'kafka://localhost'", "host:port is expected"),
        ("kafka: {brokers: 'a:9092,http://b:9092'}", "host:port is expected"),
        ("kafka: {properties: {acks: '0'}}", "'acks' is ModelMeter's own"),
        ("sink: kafka://a:1\nkafka: {properties: {no.such: x}}", 'No such configuration property: "no.such"'),
        ("capture: {ring_bytes: 3MiB}", "must be a power of two"),
        ("metrics: {listen: '127.0.0.1:99999'}", "host:port is expected"),
    ],
)
def test_values_that_cannot_work_are_refused(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "sensor.yaml"
    config.write_text(text)
    assert message in one_line(run("config", "validate", "--config", str(config)), Exit.CONFIGURATION)


def test_a_valid_configuration_is_said_so_and_shown_with_its_sources(tmp_path: Path) -> None:
    config = tmp_path / "sensor.yaml"
    config.write_text("node: web-7\nattribution:\n  rules:\n  - set: {team: x}\n")
    assert run("config", "validate", "--config", str(config)).stdout == f"valid: {config}\n"
    shown = run("config", "show", "--config", str(config), "-o", "json", state=tmp_path)
    document = json.loads(shown.stdout)
    assert (document["node"], document["state_dir"]) == ("web-7", str(tmp_path))
    lines = run("config", "show", "--config", str(config), state=tmp_path).stdout.splitlines()
    rows = {line.split()[0]: line for line in lines}
    assert rows["node"].endswith(f"{config}:1")
    assert rows["state_dir"].endswith("environment variable MODELMETER_STATE_DIR")
    assert rows["sink"].endswith("default")


def test_the_hash_of_a_key_is_stable_and_the_key_is_not_shown(tmp_path: Path) -> None:
    first = run("config", "hash-key", state=tmp_path, stdin=f"{KEY}\n")
    again = run("config", "hash-key", state=tmp_path, stdin=KEY)
    assert first.exit_code == 0
    assert first.stdout == again.stdout
    assert len(first.stdout.strip()) == 16
    assert KEY not in first.output
    assert "no key on standard input" in one_line(
        run("config", "hash-key", state=tmp_path, stdin=""), Exit.USAGE
    )


def test_version_and_help() -> None:
    assert run("version").stdout.startswith("mmsensor 0.")
    for command in ([], ["run"], ["status"], ["targets"], ["replay"], ["config"], ["config", "show"]):
        short, long = run(*command, "-h"), run(*command, "--help")
        assert short.exit_code == 0
        assert short.stdout == long.stdout
        assert "Usage: " in short.stdout
