"""Drives the soak: processes that come, make calls and go, beside the sensor that captures them.

Slots run in parallel; each starts one process after the other, every one in the next of the ways to go. What
each process says it moved, the sensor must have captured or counted as lost.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tests.bench.soak import samples
from tests.bench.soak.samples import Sample
from tests.sensor.capture.matrix.table import system_libssl

HERE = Path(__file__).parent


class Way(NamedTuple):
    """One kind of process. `own_library`: it brings a libssl that nobody has seen and that is deleted at
    once."""

    name: str
    calls: int
    size: int
    own_library: bool = False


#: In this order, over and over.
WAYS = (
    Way("tidy", 2000, 300),
    Way("untidy", 4000, 900),
    Way("killed", 1000, 5000),
    Way("threads", 8000, 1500),
    Way("child", 2000, 700),
    Way("tidy", 200, 20_000, own_library=True),
    Way("ignored", 4000, 1000),
    Way("untidy", 100, 300_000),
    Way("killed", 400, 400, own_library=True),
)
SLOTS = 2
#: They and their children fit into the list of processes that are allowed; a long soak spreads them out.
MOST_PROCESSES = 3500
#: What may go up and down by more than a tenth: memory with what waits, links with the files in use, and what
#: dead processes left behind, where the ring had no room to say so, until it is swept up.
SLACK = {
    "rss_mb": 4.0,
    "targets": 30.0,
    "links": 150.0,
    "fds": 200.0,
    "connections": 300.0,
    "open_connections": 100.0,
    "verdicts": 2000.0,
}
SETTLE_S = 60.0


@dataclass
class Outcome:
    folder: Path
    seconds: float
    processes: Counter[str] = field(default_factory=Counter)
    sent: int = 0  # bytes written and read before anybody lost interest in them
    ignored: int = 0  # of those, by processes whose connections were to be ignored
    others: set[str] = field(default_factory=set)  # files in use before the soak began
    samples: list[Sample] = field(default_factory=list)
    before: Sample = field(default_factory=dict)
    after: Sample = field(default_factory=dict)
    statistics: dict[str, Any] = field(default_factory=dict)

    def problems(self) -> list[str]:
        found = samples.grown(self.samples, SLACK)
        for name in ("tasks", *samples.MAPS):
            if self.after[name] > self.before[name]:
                found.append(
                    f"{name}: {self.before[name]:.0f} before, {self.after[name]:.0f} when all had gone"
                )
        # Others on this machine may have begun to use files that they did not use before.
        if set(self.statistics["targets"]) <= self.others:
            for name in ("fds", "links"):
                if self.after[name] > self.before[name]:
                    found.append(f"{name}: {self.before[name]:.0f} before, {self.after[name]:.0f} after")
        left = [path for path in self.statistics["targets"] if path.startswith(str(self.folder))]
        if left:
            found.append(f"deleted files still have probes: {', '.join(left)}")
        accounted = self.statistics["bytes"] + self.statistics["lost_bytes"]
        if accounted != self.sent:
            found.append(f"{self.sent} bytes were sent, {accounted} captured or counted as lost")
        # Of an ignored connection what was captured before may be on its way still, and is swallowed.
        swallowed = self.statistics["bytes"] - self.statistics["captured"]
        if not 0 <= swallowed <= self.ignored:
            found.append(f"{swallowed} bytes that were captured never came, {self.ignored} were ignored")
        return found

    def report(self) -> str:
        facts = self.statistics
        rate = self.sent / self.seconds / 1e6
        lines = [
            f"{self.seconds:.0f} s, {sum(self.processes.values())} processes ({_listed(self.processes)})",
            f"sent {self.sent} bytes ({rate:.1f} MB/s), {facts['calls']} calls captured",
            f"captured {facts['bytes']} bytes, lost {facts['lost_bytes']} {facts['lost'] or ''}",
            f"gaps told: {facts['missing']} bytes; calls on ignored connections: {facts['ignored_calls']}",
            f"{'':17} {'before':>9} {'2nd quarter':>12} {'last quarter':>12} {'most':>9} {'after':>9}",
        ]
        for name in self.before:
            before, after = self.before[name], self.after[name]
            early, late = samples.quarters(self.samples, name)
            most = max(sample[name] for sample in self.samples)
            lines.append(f"{name:17} {before:9.1f} {early:12.1f} {late:12.1f} {most:9.1f} {after:9.1f}")
        return "\n".join(lines)


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


class Sensor:
    """The sensor's process; commands may come from every thread."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.soak.sensor"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        assert self._answer() == "started"

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the sensor ended with {self.process.wait()}"
        return json.loads(line)

    def tell(self, *words: object) -> Any:
        with self._lock:
            assert self.process.stdin is not None
            print(*words, file=self.process.stdin, flush=True)
            return self._answer()

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(60)
        self.process.stdout.close()


class Soak:
    def __init__(self, folder: Path, sensor: Sensor, outcome: Outcome) -> None:
        self._folder = folder
        self._sensor = sensor
        self._outcome = outcome
        self._program, self._certificate, self._key = (folder / name for name in ("churn", "pem", "key"))
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._failure: BaseException | None = None

    def prepare(self) -> None:
        source = HERE / "churn.c"
        subprocess.run(
            ["clang", "-O2", str(source), "-o", str(self._program), "-ldl", "-lpthread"], check=True
        )
        subprocess.run(
            [
                *(
                    "openssl",
                    "req",
                    "-x509",
                    "-newkey",
                    "ec",
                    "-pkeyopt",
                    "ec_paramgen_curve:P-256",
                    "-nodes",
                ),
                *("-keyout", str(self._key), "-out", str(self._certificate), "-subj", "/CN=localhost"),
            ],
            check=True,
            capture_output=True,
        )

    def slot(self, began: float, seconds: float) -> None:
        try:
            while time.monotonic() < began + seconds and not self._failure:
                with self._lock:
                    number = next(self._numbers)
                time.sleep(max(0.0, began + number * seconds / MOST_PROCESSES - time.monotonic()))
                self.one(number, WAYS[number % len(WAYS)])
        except BaseException as error:
            self._failure = error
            raise

    def one(self, number: int, way: Way) -> None:
        library = system_libssl()
        if way.own_library:
            library = Path(shutil.copy(library, self._folder / f"libssl-{number}.so"))
        arguments = [self._certificate, self._key, way.name, way.calls, way.size]
        with subprocess.Popen(
            [str(self._program), str(library), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                self._talk(process, way, library)
            finally:
                process.kill()
        with self._lock:
            self._outcome.processes[way.name] += 1

    def _talk(self, process: subprocess.Popen[str], way: Way, library: Path) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        moved = holds = 0
        for line in process.stdout:
            word, pid, *size = line.split()
            if word == "moved":
                moved += int(size[0])
                continue
            holds += 1
            if way.name == "ignored" and not self._ignored(pid, wanted=2 * (holds - 1)):
                break
            self._sensor.tell("allow", pid)
            if way.own_library:
                # Mapped by now: what follows is attached to before the first call.
                self._sensor.tell("refresh")
                library.unlink()
            process.stdin.write("go\n")
            process.stdin.flush()
        assert moved, f"a process that goes {way.name} said nothing"
        with self._lock:
            self._outcome.sent += moved
            if way.name == "ignored":
                self._outcome.ignored += moved

    def _ignored(self, pid: str, wanted: int) -> bool:
        """Waits until the process' connections are ignored; not for ever, their beginning may be lost."""
        for _ in range(100):
            if self._sensor.tell("ignore", pid) >= wanted:
                return True
            time.sleep(0.02)
        return False


def soak(folder: Path, seconds: float) -> Outcome:
    """Takes that long and, at the end, as long as it takes for the sensor to have let go of everything."""
    outcome = Outcome(folder, seconds)
    sensor = Sensor()
    try:
        run = Soak(folder, sensor, outcome)
        run.prepare()
        # A program whose code is searched still would get its probes during the soak, and keep them.
        _until(lambda: not sensor.tell("statistics")["searched"])
        outcome.before = _sample(sensor)
        outcome.others = set(sensor.tell("statistics")["targets"])
        began = time.monotonic()
        slots = [threading.Thread(target=run.slot, args=(began, seconds)) for _ in range(SLOTS)]
        for slot in slots:
            slot.start()
        while any(slot.is_alive() for slot in slots):
            time.sleep(max(0.25, seconds / 120))
            outcome.samples.append(_sample(sensor))
        outcome.seconds = time.monotonic() - began

        def settled() -> bool:
            outcome.after, outcome.statistics = _sample(sensor), sensor.tell("statistics")
            return not outcome.problems()

        _until(settled)
        return outcome
    finally:
        sensor.close()


def _until(settled: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SETTLE_S
    while not settled() and time.monotonic() < deadline:
        time.sleep(0.5)


def _sample(sensor: Sensor) -> Sample:
    statistics = sensor.tell("statistics")
    return {
        **samples.take(sensor.process.pid),
        "targets": len(statistics["targets"]),
        "open_connections": statistics["open_connections"],
    }
