"""The status document: verdicts with reasons, the same numbers in every form, served to whoever may ask."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mmproto.exchange import ReadingRules
from mmsensor.attribution.rules import Attribution
from mmsensor.capture.options import CaptureStatistics, TargetStatus
from mmsensor.control import JSON, TEXT, Answer, ControlServer, ListenError, ask
from mmsensor.daemon import Daemon, LoopOptions
from mmsensor.emit.jsonl import JsonLinesSink
from mmsensor.metrics import METRICS, exposition
from mmsensor.notify import Notifier
from mmsensor.render import size, status_text, targets_text
from mmsensor.status import RECENT_S, STUCK_S, Identity, StatusReporter
from tests.sensor.daemon.wire import Recording, Stream, request, response

ATTACHED = TargetStatus("/usr/lib/libssl.so.3", 1, 2, "ab", ("SSL_read",), True, "", 3)
IDENTITY = Identity("node-1", "0.1.0", "boot-1", 1_800_000_000_000_000_000, "/var/lib/modelmeter", "")


class Bench:
    """A daemon on a recording, its reporter, and a clock that is set by hand."""

    def __init__(self, folder: Path, target: str = "") -> None:
        self.now = 1000.0
        self.source = Recording()
        self.source.status = [ATTACHED]
        self.daemon = Daemon(
            LoopOptions("node-1", "boot-1", batch_s=0),
            self.source,
            JsonLinesSink(target or str(folder / "calls.jsonl")),
            ReadingRules(),
            Attribution([]),
            clock=lambda: self.now,
        )
        self.reporter = StatusReporter(self.daemon, IDENTITY, clock=lambda: self.now)
        self.reporter.watch()

    def play(self, *streams: Stream) -> None:
        self.source.rounds.append([event for stream in streams for event in stream.events])
        self.daemon.turn(0)

    def verdict(self) -> tuple[str, str]:
        document = self.reporter.snapshot()
        return document["verdict"], "; ".join(document["reasons"])


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_all_is_well(bench: Bench) -> None:
    bench.play(Stream().write(request()).read(response("A1b2C3d4E5f6G7h8")).close())
    document = bench.reporter.snapshot()
    assert (document["verdict"], document["reasons"]) == ("healthy", [])
    assert document["events"] == {
        "captured": 1,
        "emitted": 1,
        "dropped": {},
        "failed": {},
        "balanced": True,
    }
    assert document["overhead"]["resident_bytes"] > 1 << 20
    assert json.loads(json.dumps(document)) == document


def test_a_loop_that_is_stuck_is_unhealthy_and_not_alive(bench: Bench) -> None:
    assert bench.reporter.alive()
    assert bench.reporter.ready()
    bench.now += STUCK_S
    assert bench.verdict() == ("unhealthy", "the loop has not come round for 15 s")
    assert not bench.reporter.alive()
    assert not bench.reporter.ready()


def test_a_sink_that_refuses_is_unhealthy(tmp_path: Path) -> None:
    bench = Bench(tmp_path, "/dev/full")
    bench.play(Stream().write(request()).read(response("A1b2C3d4E5f6G7h8")).close())
    verdict, reasons = bench.verdict()
    assert verdict == "unhealthy"
    assert reasons.startswith("measured calls are being dropped: /dev/full cannot be written")
    assert not bench.reporter.ready()


def test_an_account_that_does_not_balance_is_unhealthy(bench: Bench) -> None:
    bench.daemon.ledger.settled(1, 0, "")
    assert bench.reporter.snapshot()["events"]["balanced"] is True, "a queue below 0 shows as captured"
    bench.daemon.ledger._taken += 1
    assert bench.verdict()[0] == "unhealthy"
    assert "DOES NOT BALANCE" in status_text(bench.reporter.snapshot())


@pytest.mark.parametrize(
    ("targets", "reason"),
    [
        ([], "attached to nothing"),
        ([replace(ATTACHED, attached=False, reason="gnutls_not_supported")], "attached to nothing"),
        (
            [ATTACHED, replace(ATTACHED, path="/x", attached=False, reason="attach_failed: EPERM")],
            "1 targets could not be attached, e.g. /x",
        ),
    ],
)
def test_targets_that_are_missing_degrade(bench: Bench, targets: list[TargetStatus], reason: str) -> None:
    bench.source.status = targets
    verdict, reasons = bench.verdict()
    assert verdict == "degraded"
    assert reason in reasons


def test_a_library_that_is_known_not_to_be_supported_is_shown_and_degrades_nothing(bench: Bench) -> None:
    bench.source.status = [ATTACHED, replace(ATTACHED, attached=False, reason="gnutls_not_supported")]
    assert bench.verdict()[0] == "healthy"
    assert "gnutls_not_supported" in targets_text(bench.reporter.targets())


def test_losses_degrade_while_they_are_recent(bench: Bench) -> None:
    bench.source.numbers = CaptureStatistics(9, 9, 9, 0, 0, lost={"ring_full": 4})
    assert bench.verdict() == ("degraded", "lost in the kernel (ring_full): 4 in the last minutes")
    for _ in range(int(RECENT_S / 10) + 2):
        bench.now += 10
        bench.daemon.turn(0)
        bench.reporter.watch()
    assert bench.verdict()[0] == "healthy"
    assert bench.reporter.snapshot()["kernel"]["lost"] == {"ring_full": 4}


def test_the_text_tells_what_the_document_says(bench: Bench) -> None:
    bench.play(
        Stream(1).write(request()).read(response("A1b2C3d4E5f6G7h8")).close(), Stream(2).read(request())
    )
    text = status_text(bench.reporter.snapshot())
    assert "captured 2 = emitted 1 + dropped 1 + failed 0" in text
    assert "server_side: 1" in text
    assert "/usr/lib/libssl.so.3" in text
    assert [size(number) for number in (0, 1023, 1536, 3 << 20)] == ["0 B", "1023 B", "1.5 KiB", "3.0 MiB"]


def test_metrics_are_well_formed_and_agree_with_the_document(bench: Bench) -> None:
    bench.play(
        Stream(1).write(request()).read(response("A1b2C3d4E5f6G7h8")).close(), Stream(2).read(request())
    )
    text = exposition(bench.reporter.snapshot())
    sample = re.compile(r'([a-z_]+)(\{[a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*\})? (-?[0-9.e+]+)')
    samples = {}
    for line in text.splitlines():
        if not line.startswith("#"):
            match = sample.fullmatch(line)
            assert match, line
            samples[match[1] + (match[2] or "")] = float(match[3])
    assert samples["modelmeter_sensor_exchanges_captured_total"] == 2
    assert samples["modelmeter_sensor_calls_emitted_total"] == 1
    assert samples['modelmeter_sensor_exchanges_dropped_total{reason="server_side"}'] == 1
    assert samples['modelmeter_sensor_targets{state="attached"}'] == 1
    assert samples['modelmeter_sensor_verdict{verdict="healthy"}'] == 1


def test_metric_names_follow_the_conventions() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    for metric in METRICS:
        assert metric.name.startswith(("modelmeter_sensor_", "process_"))
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.about.endswith(".")
        assert not metric.name.endswith(("_ms", "_kb", "_mb"))


def _boom() -> Answer:
    raise RuntimeError("not for everyone's eyes")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    routes = {
        "/status": lambda: Answer(200, JSON, '{"a": "\u00e4"}'),
        "/long": lambda: Answer(200, TEXT, "x" * 3_000_000),
        "/boom": _boom,
    }
    control = ControlServer()
    path = tmp_path / ("deep" * 30) / "sensor.sock"
    path.parent.mkdir()
    control.add_unix(path, routes)
    url = control.add_tcp("127.0.0.1", 0, routes)
    control.start()
    yield url, path
    control.close()
    assert not path.exists()


def test_both_doors_answer_and_only_the_owner_gets_in(server: tuple[str, Path]) -> None:
    url, path = server
    assert ask(path, "/status") == (200, '{"a": "\u00e4"}')
    assert len(ask(path, "/long")[1]) == 3_000_000
    assert ask(path, "/none")[0] == 404
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with urllib.request.urlopen(f"{url}/status?x=1") as answer:
        assert json.load(answer) == {"a": "\u00e4"}


def test_a_handler_that_fails_says_so_without_details(
    server: tuple[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(server[1], "/boom") == (500, "internal error: RuntimeError\n")
    assert "the answer to a request failed" in caplog.text


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /status HTTP/1.1\r\n\r\n", b"405"),
        (b"\x16\x03\x01\r\n\r\n", b"400"),
        (b"GET /status HTTP/1.1\r\n" + b"X: y\r\n" * 5000, b"200"),
        (b"HEAD /status HTTP/1.1\r\n\r\n", b"200"),
    ],
)
def test_odd_requests_get_an_answer(server: tuple[str, Path], sent: bytes, status: bytes) -> None:
    host, port = server[0].removeprefix("http://").split(":")
    with closing(socket.create_connection((host, int(port)))) as client:
        try:
            client.sendall(sent)
            head = client.recv(100)
        except ConnectionError:
            # More was sent than is read: the answer may be lost to the reset, the server must not be.
            head = b"HTTP/1.1 200"
    assert head.split()[1] == status
    assert ask(server[1], "/status")[0] == 200


def test_silent_clients_do_not_keep_others_out(server: tuple[str, Path]) -> None:
    host, port = server[0].removeprefix("http://").split(":")
    silent = [socket.create_connection((host, int(port))) for _ in range(12)]
    assert ask(server[1], "/status", timeout_s=30)[0] == 200
    for client in silent:
        client.close()


def test_a_second_sensor_on_the_same_socket_is_refused(server: tuple[str, Path]) -> None:
    second = ControlServer()
    with pytest.raises(ListenError, match="another sensor answers on"):
        second.add_unix(server[1], {})
    port = int(server[0].rsplit(":", 1)[1])
    with pytest.raises(ListenError, match=r"cannot be listened on: Address already in use; give another"):
        second.add_tcp("127.0.0.1", port, {})
    second.start()
    second.close()


def test_a_socket_left_behind_by_a_killed_sensor_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "sensor.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    control = ControlServer()
    control.add_unix(path, {"/status": lambda: Answer(200, TEXT, "new")})
    control.start()
    assert ask(path, "/status") == (200, "new")
    control.close()


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(tmp_path: Path, abstract: bool) -> None:
    name = f"@mm-{os.getpid()}-{time.time_ns()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0", 1))
        notifier = Notifier({"NOTIFY_SOCKET": name, "WATCHDOG_USEC": "3000000"})
        notifier.ready("measuring")
        notifier.alive()
        notifier.stopping()
        heard = [manager.recv(100) for _ in range(3)]
    assert heard == [b"READY=1\nSTATUS=measuring", b"WATCHDOG=1", b"STOPPING=1"]
    assert notifier.watchdog_s == 3.0
    notifier.alive()


def test_without_systemd_nothing_is_sent() -> None:
    quiet = Notifier({})
    quiet.ready("x")
    assert quiet.watchdog_s == 0
