"""The whole sensor on a real kernel: unmodified clients call a local TLS provider, each call comes out once.

Needs root and a kernel that attaches uprobes; fails, never skips, where it cannot run. What the provider
served, by its own journal, is the truth that the calls are compared with.

The clients are started first and held before they become the real program, so that the sensor can be told to
measure them and the provider alone: whatever else the machine is busy with stays out of the counts.
"""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mmproto.delivery import Spool
from mmproto.v1.ingest_pb2 import IngestBatch
from tests.e2e.provider.process import ProviderProcess

pytestmark = pytest.mark.capture

READY_WITHIN_S = 60.0
CHAT = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "measure me"}]}
CLIENT = """
import http.client, json, ssl, sys
port, ca, count, body = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
connection = http.client.HTTPSConnection("127.0.0.1", port, context=ssl.create_default_context(cafile=ca))
for _ in range(count):
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sk-secret", "X-Team": "green"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    connection.getresponse().read()
connection.close()
sys.stdin.read()
"""


@dataclass
class Sensor:
    """`mmsensor run` as a process, on a state folder of its own."""

    state: Path
    process: subprocess.Popen[str]

    @property
    def output(self) -> Path:
        return self.state / "calls.jsonl"

    def calls(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.output.read_text().splitlines()]

    def status(self) -> dict[str, Any]:
        done = self.command("status", "-o", "json")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def command(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", "from mmsensor.cli import main; main()", *argv],
            env={"MODELMETER_STATE_DIR": str(self.state)},
            capture_output=True,
            text=True,
            check=False,
        )

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=60)


def _wait(condition: Callable[[], bool], what: str, sensor: Sensor | None = None) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while not condition():
        if time.monotonic() > until:
            seen = sensor.command("status").stdout if sensor else ""
            pytest.fail(f"not within {READY_WITHIN_S:.0f} s: {what}\n{seen}")
        time.sleep(0.05)


def start(state: Path, sink: str, pids: list[int]) -> Sensor:
    """A sensor that is ready, for these processes only."""
    state.mkdir(exist_ok=True)
    config = state / "sensor.yaml"
    rules = [{"match": {"header": {"x-team": "*"}}, "set": {"team": "{header.x-team}"}}]
    settings = {
        "state_dir": str(state),
        "sink": sink,
        "metrics": {"listen": "127.0.0.1:0"},
        "ingest": {"url": "http://127.0.0.1:9", "flush_s": 0},
        "attribution": {"rules": rules},
    }
    config.write_text(json.dumps(settings))
    argv = [sys.executable, "-c", "from mmsensor.cli import main; main()", "run", "--config", str(config)]
    argv += [f"--only-pid={pid}" for pid in pids]
    (state / "sensor" / "address").unlink(missing_ok=True)
    with (state / "log").open("a") as log:
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=log, text=True)

    def listening() -> bool:
        if process.poll() is not None:
            pytest.fail(f"the sensor ended with {process.returncode}: {(state / 'log').read_text()}")
        return (state / "sensor" / "address").exists()

    _wait(listening, "the sensor listens")
    return Sensor(state, process)


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProviderProcess]:
    with ProviderProcess.start(tmp_path_factory.mktemp("provider")) as process:
        yield process


def _client(provider: ProviderProcess, count: int = 1, **body: Any) -> list[str]:
    content = json.dumps({**CHAT, **body})
    return [sys.executable, "-c", CLIENT, str(provider.port), str(provider.ca), str(count), content]


def _curl(provider: ProviderProcess, path: str = "/v1/chat/completions", **body: Any) -> list[str]:
    return [
        *("curl", "-sS", "--http1.1", "--cacert", str(provider.ca), f"{provider.url}{path}"),
        *("-H", "Content-Type: application/json", "-H", "Authorization: Bearer sk-secret"),
        *("-H", "X-Team: green", "-d", json.dumps({**CHAT, **body})),
    ]


class Clients:
    """Client processes that wait to be let go; `exec` keeps their pids."""

    def __init__(self, *commands: list[str]) -> None:
        held = ["sh", "-c", 'read -r _; exec "$@"', "sh"]
        self._processes = [
            subprocess.Popen([*held, *command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            for command in commands
        ]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def begin(self, *numbers: int) -> None:
        """Lets those clients go at once; they stay until `finish`, but for curl."""
        for number in numbers:
            channel = self._processes[number].stdin
            assert channel is not None
            channel.write(b"\n")
            channel.flush()

    def finish(self, *numbers: int) -> None:
        """Waits for their end."""
        for number in numbers:
            channel = self._processes[number].stdin
            assert channel is not None
            channel.close()
        assert [self._processes[number].wait() for number in numbers] == [0] * len(numbers)

    def run(self, *numbers: int) -> None:
        """Lets those clients go, all of them by default, and waits for their end."""
        chosen = numbers or tuple(range(len(self._processes)))
        self.begin(*chosen)
        self.finish(*chosen)


@contextmanager
def measured(
    state: Path, provider: ProviderProcess, *commands: list[str], sink: str = ""
) -> Iterator[tuple[Sensor, Clients]]:
    """A sensor that measures `commands`, which wait to be run, and the provider."""
    clients = Clients(*commands)
    sensor = start(state, sink or f"jsonl:{state}/calls.jsonl", [provider.pid, *clients.pids])
    try:
        yield sensor, clients
        if sensor.process.returncode is None:
            assert sensor.end() == 0, (state / "log").read_text()
    finally:
        if sensor.process.poll() is None:
            sensor.process.kill()
            sensor.process.wait()


def test_each_call_of_curl_and_python_is_seen_once_with_the_provider_s_numbers(
    tmp_path: Path, provider: ProviderProcess
) -> None:
    before = len(provider.journal())
    streaming: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    commands = [
        _curl(provider),
        _curl(provider, **streaming),
        _client(provider, 3),
        _client(provider, 2, **streaming),
    ]
    with measured(tmp_path / "state", provider, *commands) as (sensor, clients):
        clients.run(0)
        clients.run(1)
        clients.begin(2)
        _wait(lambda: len(sensor.calls()) >= 5, "five calls", sensor)
        clients.finish(2)
        clients.begin(3)
        _wait(lambda: len(sensor.calls()) >= 7, "seven calls", sensor)
        clients.finish(3)
        served = provider.journal()[before:]
        assert len(served) == 7
    calls = sorted(sensor.calls(), key=lambda call: call["started_at"])
    assert len(calls) == 7
    for entry, call in zip(served, calls, strict=True):
        assert call["response_id"] == entry.response_id
        assert call["usage"]["input_tokens"] == entry.input_tokens
        assert call["usage"]["output_tokens"] == entry.output_tokens
        assert call["usage"]["quality"] == "EXACT"
        assert call["streaming"] == entry.streaming
        assert call["host"] == f"127.0.0.1:{provider.port}"
        assert (call["observer"], call["team"]) == ("sensor", "green")
    pids = [call["process"]["pid"] for call in calls]
    assert pids == [*clients.pids[:2], *clients.pids[2:3] * 3, *clients.pids[3:] * 2]
    # curl lives for milliseconds: what is known of it is right, and on a busy machine nothing may be.
    assert {call["process"].get("exe", "/usr/bin/curl") for call in calls[:2]} == {"/usr/bin/curl"}
    python = str(Path(sys.executable).resolve())
    assert {call["process"]["exe"] for call in calls[2:]} == {python}
    assert len({call["id"] for call in calls}) == 7
    assert len({call["origin"]["api_key_hash"] for call in calls}) == 1
    everything = sensor.output.read_text() + (sensor.state / "log").read_text()
    assert "sk-secret" not in everything
    assert "measure me" not in everything


def test_many_concurrent_calls_are_each_seen_once(tmp_path: Path, provider: ProviderProcess) -> None:
    before = len(provider.journal())
    counts = [37, 37, 37, 36, 36, 36, 36, 36]
    commands = [_client(provider, count, stream=number % 2 == 0) for number, count in enumerate(counts)]
    with measured(tmp_path / "state", provider, *commands) as (sensor, clients):
        clients.run()
        served = {entry.response_id for entry in provider.journal()[before:]}
        assert len(served) == sum(counts)
        _wait(lambda: len(sensor.calls()) >= sum(counts), "all calls", sensor)
    assert len(sensor.calls()) == sum(counts)
    assert {call["response_id"] for call in sensor.calls()} == served


def test_what_is_no_call_is_counted_and_the_account_balances(
    tmp_path: Path, provider: ProviderProcess
) -> None:
    with measured(tmp_path / "state", provider, _curl(provider, "/nothing"), _client(provider)) as (
        sensor,
        clients,
    ):
        clients.run(0)
        clients.run(1)
        # The provider's own end of both connections is seen as well, and is no caller.
        _wait(lambda: sensor.status()["events"]["captured"] >= 4, "four exchanges", sensor)
        document = sensor.status()
        events = document["events"]
        assert events == {
            "captured": 4,
            "emitted": 1,
            "dropped": {"not_llm": 1, "server_side": 2},
            "failed": {},
            "balanced": True,
        }
        assert any(target["attached"] and "libssl" in target["path"] for target in document["targets"])
        assert document["overhead"]["resident_bytes"] > 0


def test_metrics_and_probes_answer_and_a_second_sensor_is_refused(
    tmp_path: Path, provider: ProviderProcess
) -> None:
    with measured(tmp_path / "state", provider) as (sensor, _):
        url = (sensor.state / "sensor" / "address").read_text().strip()
        for path, expected in (("/livez", "ok\n"), ("/readyz", "ok\n")):
            with urllib.request.urlopen(url + path) as answer:
                assert answer.read().decode() == expected
        with urllib.request.urlopen(url + "/metrics") as answer:
            assert "modelmeter_sensor_exchanges_captured_total" in answer.read().decode()
        second = sensor.command("run", "--metrics-listen", "127.0.0.1:0")
        assert second.returncode == 1
        assert "another sensor" in second.stderr or "another process" in second.stderr
        other = ("--state-dir", str(tmp_path / "other"))
        third = sensor.command("run", "--metrics-listen", url.removeprefix("http://"), *other)
        assert third.returncode == 1
        assert "Address already in use; give another address with metrics.listen" in third.stderr
        assert "Traceback" not in second.stderr + third.stderr


def test_a_killed_sensor_loses_no_call_that_the_spool_accepted(
    tmp_path: Path, provider: ProviderProcess
) -> None:
    state = tmp_path / "state"
    accepted: list[str] = []
    for round_ in (1, 2):
        with measured(state, provider, _client(provider, 20), sink="ingest") as (sensor, clients):
            clients.run()
            _wait(lambda: sensor.status()["events"]["emitted"] >= 20, "calls in the spool", sensor)
            sensor.process.kill()
            sensor.process.wait()
        spool = Spool(state / "sensor" / "spool.sqlite", 1 << 30)
        ids = [IngestBatch.FromString(payload).calls[0].id for _, payload in spool.peek(100_000)]
        spool.close()
        assert ids[: len(accepted)] == accepted
        assert len(ids) == len(set(ids)) == 20 * round_
        accepted = ids
    assert stat.S_IMODE((state / "sensor" / "spool.sqlite").stat().st_mode) == 0o600
