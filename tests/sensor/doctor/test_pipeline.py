"""The pipeline as the doctor meets it: real, away, foreign, hanging, or of another token."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmsensor.doctor import pipeline
from mmsensor.doctor.examination import examine
from mmsensor.doctor.findings import Check, Outcome, ok
from tests.e2e.stack import running_stack
from tests.sensor.doctor.machines import Machine

OK, WARN, FAIL, SKIPPED = Outcome.OK, Outcome.WARN, Outcome.FAIL, Outcome.SKIPPED


def test_a_real_pipeline_and_one_with_another_token(tmp_path: Path, computer: Machine) -> None:
    with running_stack(tmp_path) as stack:
        url = stack.start("pipeline", {"listen": {"port": 0}}).url
        token = tmp_path / "ingest.token"
        computer.configure(f"ingest: {{url: '{url}', token_file: '{token}'}}")
        finding = pipeline.check_pipeline(computer.look())
        assert (finding.outcome, finding.fact) == (OK, f"{url} takes our calls")
        assert stack.calls() == [], "asking leaves no call behind"

        other = tmp_path / "other.token"
        other.write_text("another")
        computer.configure(f"ingest: {{url: '{url}', token_file: '{other}'}}")
        finding = pipeline.check_pipeline(computer.look())
        assert finding.outcome is WARN
        assert "does not accept our token (401)" in finding.fact
        assert "ingest.token" in finding.fix


@contextmanager
def answering(answer: bytes | None) -> Iterator[str]:
    """A server that gives everybody this answer and keeps the line open; None: one that says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        clients: list[socket.socket] = []

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                clients.append(client)
                if answer is not None:
                    client.recv(65536)
                    client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for client in clients:
                client.close()


PAGE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
REFUSED = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno"
NOT_HTTP = b"220 mail.example ESMTP\r\n"


@pytest.mark.parametrize(
    ("answer", "outcome", "fact", "fix"),
    [
        (PAGE, WARN, "not as a ModelMeter pipeline does", "ingest.url"),
        (REFUSED, FAIL, "refused the batch with 400", "same version"),
        (NOT_HTTP, WARN, "broke off", "start mmpipeline"),
        (None, WARN, "did not answer in time", "start mmpipeline"),
    ],
)
def test_what_answers_is_no_pipeline(
    computer: Machine, answer: bytes | None, outcome: Outcome, fact: str, fix: str
) -> None:
    with answering(answer) as url:
        computer.configure(f"ingest: {{url: '{url}', timeout_s: 0.2}}")
        finding = pipeline.check_pipeline(computer.look())
    assert finding.outcome is outcome, finding
    assert fact in finding.fact
    assert fix in finding.fix


def test_an_answer_that_drips_does_not_hold_up_the_rest(computer: Machine) -> None:
    """Each byte comes in time, the answer never: only the check's own limit ends that."""
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def drip() -> None:
            client, _ = listener.accept()
            with client:
                while not stop.wait(0.05):
                    client.sendall(b"H")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        computer.configure(f"ingest: {{url: 'http://127.0.0.1:{listener.getsockname()[1]}', timeout_s: 1}}")
        checks = (
            Check("delivery", "pipeline", "", pipeline.check_pipeline, 0.5),
            Check("delivery", "next", "", lambda _: ok("reached")),
        )
        first, second = examine(checks, computer.look())
        stop.set()
        thread.join()
    assert (first.finding.outcome, first.finding.fact) == (SKIPPED, "no answer after 0 s")
    assert second.finding.fact == "reached"


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://127.0.0.1:99999", "http://"])
def test_addresses_that_are_none(computer: Machine, url: str) -> None:
    computer.configure(f"ingest: {{url: '{url}'}}")
    finding = pipeline.check_pipeline(computer.look())
    assert (finding.outcome, finding.fix) == (WARN, "correct ingest.url in the sensor's configuration")


def test_nobody_listens(computer: Machine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    computer.configure(f"ingest: {{url: 'http://127.0.0.1:{port}'}}")
    finding = pipeline.check_pipeline(computer.look())
    assert (finding.outcome, "nothing listens" in finding.fact) == (WARN, True)
