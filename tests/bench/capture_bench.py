"""What the capture costs: the probed program per TLS call, the sensor per record, putting probes on and off.

Every way to attach side by side in one run: each kind of link that the kernel has, with the probes where they
are cheap (ladder/placement.py) and at the first instruction of each function; and the best of them by the
second loader. The ways take turns, with
and without probes in turn, so that a busy machine hurts all of them alike; medians of the rounds are printed.

Run as root: python -m tests.bench.capture_bench [--rounds N] [--sizes N ...] [--links KIND ...]
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from mmsensor.capture.errors import CaptureError, CaptureUnavailable
from mmsensor.capture.functions import Function
from mmsensor.capture.hooks import SYMBOLS
from mmsensor.capture.kernel.probes import Kernel, detach
from mmsensor.capture.ladder.elf import ElfFile
from mmsensor.capture.ladder.placement import place
from mmsensor.capture.ladder.symbols import exported
from mmsensor.capture.options import CaptureOptions, LinkKind, Loader
from mmsensor.capture.session import Capture
from mmsensor.streams.events import ConnectionKey, Opened

ROUNDS = 5
SIZES = (256, 4096, 16384)
BURST_BYTES = 2 << 20  # of one burst: half the ring, so that nothing is lost while nobody reads
MAPPERS = 200  # processes that map libssl while probes go on and off


class Way(NamedTuple):
    """How the probes are loaded and attached; `placed`: where they are cheap."""

    kind: LinkKind
    placed: bool
    loader: Loader = Loader.LIBBPF

    def __str__(self) -> str:
        by = "" if self.loader is Loader.LIBBPF else f", {self.loader}"
        return f"{self.kind}{', placed' if self.placed else ''}{by}"

    def __format__(self, how: str) -> str:
        return format(str(self), how)


class Client:
    """A program that makes TLS calls on demand."""

    def __init__(self, program: Path, certificate: Path, key: Path, size: int) -> None:
        self._process = subprocess.Popen(
            [str(program), str(certificate), str(key), str(size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.pid = self._process.pid
        self._calls = min(5000, BURST_BYTES // (2 * (size + 512)))

    def call(self, count: int | None = None) -> float:
        """CPU microseconds a call, of `count` writes and as many reads; without a count as many as fit."""
        count = count or self._calls
        self._tell(str(count))
        assert self._process.stdout is not None
        cpu_ns, _wall_ns = map(int, self._process.stdout.readline().split())
        return cpu_ns / 1000 / (2 * count)

    def new_connection(self) -> None:
        self._tell("new")

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


@dataclass
class Calls:
    """One size of call, attached in one way: microseconds a call, one a round."""

    captured: list[float] = field(default_factory=list)
    ignored: list[float] = field(default_factory=list)
    unlisted: list[float] = field(default_factory=list)
    sensor: list[float] = field(default_factory=list)  # a record
    lost: int = 0


@dataclass
class Attaching:
    """Milliseconds, one a round."""

    start: list[float] = field(default_factory=list)
    close: list[float] = field(default_factory=list)
    attach: list[float] = field(default_factory=list)
    detach: list[float] = field(default_factory=list)
    attach_mapped: list[float] = field(default_factory=list)  # by MAPPERS processes
    detach_mapped: list[float] = field(default_factory=list)


@dataclass
class Results:
    bare: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))
    calls: dict[tuple[Way, int], Calls] = field(default_factory=lambda: defaultdict(Calls))
    attaching: dict[Way, Attaching] = field(default_factory=lambda: defaultdict(Attaching))


@dataclass(frozen=True)
class Bench:
    """The clients, by size: those that the capture lists, and others that only run through its probes."""

    program: Path
    listed: dict[int, Client]
    others: dict[int, Client]

    def round(self, way: Way, results: Results) -> None:
        attaching = results.attaching[way]
        for size, client in self.listed.items():
            results.bare[size].append(client.call())
        pids = frozenset(client.pid for client in self.listed.values())
        options = CaptureOptions(
            only_pids=pids, link_kind=way.kind, place_probes=way.placed, loader=way.loader
        )
        capture = Capture(options)
        with timed(attaching.start):
            capture.start()
        try:
            for size in self.listed:
                self._calls(capture, size, results.calls[way, size])
        finally:
            with timed(attaching.close):
                capture.close()

    def _calls(self, capture: Capture, size: int, calls: Calls) -> None:
        client = self.listed[size]
        client.new_connection()
        client.call(10)
        keys = opened(capture)
        before = capture.statistics()
        calls.captured.append(client.call())
        spent, _ = drain(capture)
        after = capture.statistics()
        calls.sensor.append(spent * 1e6 / (after.records - before.records))
        calls.lost += sum(after.lost.values()) - sum(before.lost.values())
        for key in keys:
            capture.set_verdict(key, interesting=False)
        client.call(10)
        calls.ignored.append(client.call())
        calls.unlisted.append(self.others[size].call())

    def attach(self, way: Way, results: Results) -> None:
        """The system's libssl alone, mapped by a few and mapped by many."""
        attaching = results.attaching[way]
        with loaded(way) as put_on:
            attach_once(put_on, attaching.attach, attaching.detach)
            with mappers(self.program, MAPPERS):
                attach_once(put_on, attaching.attach_mapped, attaching.detach_mapped)


@contextlib.contextmanager
def timed(milliseconds: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    milliseconds.append((time.perf_counter() - began) * 1e3)


def opened(capture: Capture) -> list[ConnectionKey]:
    return [event.key for event in capture.poll(1) if isinstance(event, Opened)]


def drain(capture: Capture) -> tuple[float, int]:
    """(CPU seconds, events) of reading what is there."""
    began, events = time.process_time(), 0
    while here := sum(1 for _ in capture.poll(0)):
        events += here
    return time.process_time() - began, events


@contextlib.contextmanager
def loaded(way: Way) -> Iterator[Callable[[], list[int]]]:
    """The programs are in the kernel; gives what puts them on the libssl that the clients use."""
    kernel = Kernel(CaptureOptions(only_pids=frozenset(), link_kind=way.kind, loader=way.loader))
    fd = os.open(libssl(), os.O_RDONLY)

    def put_on() -> list[int]:
        file = ElfFile(fd)
        functions = tuple(Function(name, offset) for name, offset in exported(file, SYMBOLS).items())
        if way.placed:
            functions = place(file, functions).functions
        return kernel.attach(f"/proc/self/fd/{fd}", functions, 0)

    try:
        yield put_on
    finally:
        os.close(fd)
        kernel.close()


def attach_once(put_on: Callable[[], list[int]], on: list[float], off: list[float]) -> None:
    with timed(on):
        links = put_on()
    with timed(off):
        detach(links)


@contextlib.contextmanager
def mappers(program: Path, count: int) -> Iterator[None]:
    """So many processes have libssl mapped meanwhile."""
    process = subprocess.Popen(
        [str(program), str(count)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    try:
        yield
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait()


def libssl() -> Path:
    """What the dynamic loader takes for libssl.so.3."""
    cache = subprocess.run(["/sbin/ldconfig", "-p"], check=True, capture_output=True, text=True).stdout
    return Path(next(line.split()[-1] for line in cache.splitlines() if line.split()[:1] == ["libssl.so.3"]))


def link_kinds(wanted: Sequence[str]) -> list[LinkKind]:
    """Those of the wanted that this kernel has."""
    kinds = []
    for kind in map(LinkKind, wanted):
        try:
            Kernel(CaptureOptions(only_pids=frozenset(), link_kind=kind)).close()
        except CaptureUnavailable as error:
            print(f"without {kind}: {error.reason}")
        else:
            kinds.append(kind)
    return kinds


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return float("nan")


def other_probes() -> set[str]:
    """Programs on this machine that hold uprobe links: where there are any, nothing here is bare."""
    names = set()
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdigit() and any(
                "uprobe_multi" in info.read_text() for info in (process / "fdinfo").iterdir()
            ):
                names.add(f"{(process / 'comm').read_text().strip()} ({process.name})")
    return names


def build(folder: Path) -> tuple[Path, Path, Path]:
    """(program, certificate, key)"""
    certificate, key, program = folder / "certificate.pem", folder / "key.pem", folder / "tls_calls"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(key), "-out", str(certificate), "-days", "2", "-subj", "/CN=localhost"),
        ],
        check=True,
        capture_output=True,
    )
    source = Path(__file__).parent / "tls_calls.c"
    subprocess.run(["clang", "-O2", str(source), "-o", str(program), "-ldl"], check=True)
    return program, certificate, key


def measure(folder: Path, ways: Sequence[Way], sizes: Sequence[int], rounds: int) -> Results:
    program, certificate, key = build(folder)
    with contextlib.ExitStack() as stack:
        listed, others = ({size: Client(program, certificate, key, size) for size in sizes} for _ in range(2))
        for client in (*listed.values(), *others.values()):
            stack.callback(client.close)
        bench = Bench(program, listed, others)
        results = Results()
        for number in range(rounds + 1):
            for way in ways:
                # The first round only warms up.
                bench.round(way, results if number else Results())
                bench.attach(way, results if number else Results())
    return results


def report(results: Results, ways: Sequence[Way], sizes: Sequence[int]) -> None:
    middle = statistics.median
    print("CPU of a TLS call in us: bare, and what is added to it")
    row = "{:<28} {:>6} {:>7} {:>9} {:>8} {:>9} {:>14} {:>5}"
    print(row.format("", "bytes", "bare", "captured", "ignored", "unlisted", "sensor/record", "lost"))
    for way in ways:
        for size in sizes:
            calls, bare = results.calls[way, size], middle(results.bare[size])
            added = [
                f"{middle(each) - bare:+.2f}" for each in (calls.captured, calls.ignored, calls.unlisted)
            ]
            print(row.format(way, size, f"{bare:.2f}", *added, f"{middle(calls.sensor):.2f}", calls.lost))
    print(f"\nmilliseconds; `many`: libssl is mapped by {MAPPERS} more processes")
    row = "{:<28} {:>6} {:>6} {:>7} {:>7} {:>12} {:>12}"
    print(row.format("", "start", "close", "attach", "detach", "attach many", "detach many"))
    for way in ways:
        times = results.attaching[way]
        few = (times.start, times.close, times.attach, times.detach)
        many = (times.attach_mapped, times.detach_mapped)
        print(row.format(way, *(f"{middle(each):.0f}" for each in (*few, *many))))
    print(f"\nresident {resident_mb():.1f} MB (after)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--links", nargs="+", choices=list(LinkKind), default=list(LinkKind))
    arguments = parser.parse_args()
    others = other_probes()
    try:
        kinds = link_kinds(arguments.links)
        ways = [Way(kind, placed) for kind in kinds for placed in (False, True)]
        ways.append(Way(kinds[0], True, Loader.BCC))
        with tempfile.TemporaryDirectory() as folder:
            results = measure(Path(folder), ways, arguments.sizes, arguments.rounds)
    except CaptureError as error:
        print(f"capture_bench: {error}", file=sys.stderr)
        return 1
    others |= other_probes()
    if others:
        print(f"other probes were attached meanwhile, `bare` is not bare: {', '.join(sorted(others))}")
    report(results, ways, arguments.sizes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
