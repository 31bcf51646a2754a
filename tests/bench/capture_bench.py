"""What the capture costs: the probed program per TLS call, the sensor per record.

Everything in one run, with and without probes in turn, so that a busy machine hurts all columns alike;
the medians of the rounds are printed. Run as root: python -m tests.bench.capture_bench
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmsensor.capture.errors import CaptureError
from mmsensor.capture.options import CaptureOptions
from mmsensor.capture.session import Capture
from mmsensor.streams.events import Opened

ROUNDS = 9
SIZES = (256, 4096, 16384)
BURST_BYTES = 4 << 20  # of one burst: half the ring, so that nothing is lost while nobody reads


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

    def call(self, count: int) -> float:
        """CPU microseconds a call, of `count` writes and as many reads."""
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
class Samples:
    """Microseconds, one a round."""

    bare: list[float]
    captured: list[float]
    ignored: list[float]
    unlisted: list[float]
    sensor: list[float]
    attach_ms: list[float]
    detach_ms: list[float]
    lost: int = 0


@contextlib.contextmanager
def capturing(pids: frozenset[int], samples: Samples) -> Iterator[Capture]:
    capture = Capture(CaptureOptions(only_pids=pids))
    began = time.perf_counter()
    capture.start()
    samples.attach_ms.append((time.perf_counter() - began) * 1e3)
    try:
        yield capture
    finally:
        samples.lost += sum(capture.statistics().lost.values())
        began = time.perf_counter()
        capture.close()
        samples.detach_ms.append((time.perf_counter() - began) * 1e3)


def one_round(client: Client, count: int, samples: Samples) -> None:
    samples.bare.append(client.call(count))
    with capturing(frozenset([client.pid]), samples) as capture:
        client.new_connection()
        client.call(10)
        keys = [event.key for event in capture.poll(1) if isinstance(event, Opened)]
        before = capture.statistics().records
        samples.captured.append(client.call(count))
        began = time.process_time()
        while sum(1 for _ in capture.poll(0)):
            pass
        spent = time.process_time() - began
        samples.sensor.append(spent * 1e6 / (capture.statistics().records - before))
        for key in keys:
            capture.set_verdict(key, interesting=False)
        client.call(10)
        samples.ignored.append(client.call(count))
    with capturing(frozenset(), samples):
        samples.unlisted.append(client.call(count))


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


def measure(folder: Path) -> dict[int, Samples]:
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
    results: dict[int, Samples] = defaultdict(lambda: Samples([], [], [], [], [], [], []))
    clients = {size: Client(program, certificate, key, size) for size in SIZES}
    try:
        for number in range(ROUNDS + 1):
            for size, client in clients.items():
                count = min(5000, BURST_BYTES // (2 * (size + 512)))
                # The first round only warms up.
                target = results[size] if number else Samples([], [], [], [], [], [], [])
                one_round(client, count, target)
    finally:
        for client in clients.values():
            client.close()
    return results


def main() -> int:
    others = other_probes()
    try:
        with tempfile.TemporaryDirectory() as folder:
            results = measure(Path(folder))
    except CaptureError as error:
        print(f"capture_bench: {error}", file=sys.stderr)
        return 1
    others |= other_probes()
    if others:
        print(f"other probes were attached meanwhile, `bare` is not bare: {', '.join(sorted(others))}")
    print("TLS call, CPU in us (median of rounds)")
    print(
        f"{'bytes':>7} {'bare':>8} {'captured':>9} {'added':>7} {'ignored':>8} {'unlisted':>9}"
        f" {'sensor/record':>14} {'lost':>5}"
    )
    for size, samples in results.items():
        bare = statistics.median(samples.bare)
        captured = statistics.median(samples.captured)
        print(
            f"{size:>7} {bare:>8.2f} {captured:>9.2f} {captured - bare:>+7.2f}"
            f" {statistics.median(samples.ignored) - bare:>+8.2f}"
            f" {statistics.median(samples.unlisted) - bare:>+9.2f}"
            f" {statistics.median(samples.sensor):>14.2f} {samples.lost:>5}"
        )
    attach = statistics.median(ms for samples in results.values() for ms in samples.attach_ms)
    detach = statistics.median(ms for samples in results.values() for ms in samples.detach_ms)
    print(f"start {attach:.0f} ms, close {detach:.0f} ms; resident {resident_mb():.1f} MB (after)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
