"""Runs one client of the matrix under a capture, and compares what was captured with what the server saw."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmproto.reader import Direction
from mmsensor.capture.options import CaptureOptions, TargetStatus
from tests.e2e.provider.certificates import Certificates
from tests.sensor.capture.matrix.server import EchoServer, Served, serving
from tests.sensor.capture.matrix.table import NOT_RECOGNISED, SIZES, Client, Plan, Whole
from tests.sensor.capture.recorder import Recorder, Seen, Workload, started
from tests.sensor.capture.workloads.control import pattern

#: A file that was never seen is examined once it is mapped: a client may be started so often for that alone.
WARM_STARTS = 5
#: And so long it may take until the sensor has taken note of it, and until it has searched its code.
NOTICED_WITHIN_S, SEARCHED_WITHIN_S = 20.0, 180.0
#: The reason of a file whose code is being searched.
_SEARCHED = "being_searched"
#: One capture for all clients: every one is a process that starts after the probes were attached.
OPTIONS = CaptureOptions(ring_bytes=32 << 20)


@dataclass
class Outcome:
    """What became of one client. Bytes are plaintext above TLS, as the server counted and as captured."""

    client: Client
    target: TargetStatus | None = None
    written: int = 0
    written_captured: int = 0
    read: int = 0
    read_captured: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def result(self) -> str:
        return f"NOT AS EXPECTED: {'; '.join(self.problems)}" if self.problems else str(self.client.expected)


def run(client: Client, recorder: Recorder, certificates: Certificates, folder: Path) -> Outcome:
    """An assertion that fails here is the test bed's fault; what the sensor did wrong is in `problems`."""
    outcome = Outcome(client)
    with serving(EchoServer(certificates, client.protocols, client.grpc)) as server:
        plan = _make_plan(folder, certificates, server.port)
        library = client.library(plan)
        if not client.setup:
            _warm_up(client, plan, recorder, library)
        with started(_held(client, plan)) as process:
            pid = int(process.line())
            outcome.target = _wait_examined(recorder, library)
            server.finished()
            seen = captured(recorder, process, pid)
        _compare(outcome, server.finished(), seen)
    return outcome


def captured(recorder: Recorder, process: Workload, pid: int) -> list[Seen]:
    """Lets a held process go, to its end; the connections of that pid."""
    recorder.capture.allow(pid)
    process.go()
    while process.process.poll() is None:
        recorder.poll()
    assert process.process.returncode == 0, f"the client ended with {process.process.returncode}"
    recorder.settle()
    # A connection that moved nothing is left out here as it is by the server.
    return [
        seen
        for key, seen in recorder.seen.items()
        if key.pid == pid and (any(seen.data.values()) or seen.gaps)
    ]


def _make_plan(folder: Path, certificates: Certificates, port: int) -> Plan:
    bodies = []
    for number, size in enumerate(SIZES):
        body = folder / f"body-{number}"
        body.write_bytes(pattern(size, number))
        bodies.append(body)
    return Plan(port, certificates.ca, tuple(bodies), folder)


def _held(client: Client, plan: Plan) -> list[str]:
    setup = client.setup(plan) if client.setup else ""
    return [*client.around, *held(client.command(plan), setup, client.release)]


def held(command: Sequence[str], setup: str = "", release: str = "") -> list[str]:
    """A shell that says its pid and becomes the command when told: by then it is on the capture's list."""
    steps = (setup, "echo $$", "read go", release, 'exec "$@"')
    return ["sh", "-ec", "\n".join(filter(None, steps)), "held", *command]


def _warm_up(client: Client, plan: Plan, recorder: Recorder, library: Path) -> None:
    for _ in range(WARM_STARTS):
        if _examined(recorder, library):
            return
        with started(_held(client, plan)) as process:
            process.line()
            process.go()
            while process.process.poll() is None:
                recorder.poll()
            assert process.process.returncode == 0, f"{client.name} ended with {process.process.returncode}"


def _wait_examined(recorder: Recorder, library: Path) -> TargetStatus | None:
    began = time.monotonic()
    while not (target := _examined(recorder, library)):
        patience = SEARCHED_WITHIN_S if _target(recorder, library) else NOTICED_WITHIN_S
        if time.monotonic() - began > patience:
            break
        recorder.poll()
    return target


def _examined(recorder: Recorder, library: Path) -> TargetStatus | None:
    """That file as a target, once it is decided what becomes of it."""
    target = _target(recorder, library)
    return target if target and (target.attached or target.reason not in ("", _SEARCHED)) else None


def _target(recorder: Recorder, library: Path) -> TargetStatus | None:
    # A file that only its own mount namespace shows is known by its path alone.
    facts = library.stat() if library.exists() else None
    for target in recorder.capture.targets():
        same = (target.device, target.inode) == (facts.st_dev, facts.st_ino) if facts else False
        if same or (facts is None and target.path == str(library)):
            return target
    return None


def _compare(outcome: Outcome, served: list[Served], seen: list[Seen]) -> None:
    assert served, "the client called nobody"
    outcome.written = sum(len(each.received) for each in served)
    outcome.read = sum(len(each.sent) for each in served)
    outcome.written_captured = sum(len(each.data[Direction.WRITE]) for each in seen)
    outcome.read_captured = sum(len(each.data[Direction.READ]) for each in seen)
    expected, target = outcome.client.expected, outcome.target
    reason = target.reason if target else NOT_RECOGNISED
    if isinstance(expected, Whole):
        outcome.problems += [f"not attached: {reason}"] if reason else differences(served, seen)
        if target and target.strategy != expected.strategy:
            outcome.problems.append(f"found by {target.strategy}")
    elif reason != expected.reason:
        outcome.problems.append(f"not covered: {reason}" if reason else "attached")


def differences(served: list[Served], seen: list[Seen]) -> list[str]:
    """Every connection of the server's must be one captured connection, byte for byte in both directions."""
    left = list(seen)
    problems = []
    for number, each in enumerate(served):
        match = next((candidate for candidate in left if _is_same(each, candidate)), None)
        if match is None:
            problems.append(f"connection {number} of {len(served)} differs")
        else:
            left.remove(match)
            if match.late:
                problems.append(f"connection {number} was seen late")
    if left:
        problems.append(f"{len(left)} captured connections are nobody's")
    return problems


def _is_same(served: Served, seen: Seen) -> bool:
    read = seen.data[Direction.READ]
    # A client may go without reading what comes after the last answer; what it read is what was sent.
    whole = len(read) >= served.answered and served.sent.startswith(read)
    return whole and not seen.gaps and seen.data[Direction.WRITE] == served.received
