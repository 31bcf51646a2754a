"""What the whole sensor costs: calls a second with and without it, its CPU per call, and its memory.

Real clients call the local provider over TLS. Rounds without and with the sensor alternate in one run, so
that a machine whose speed drifts slows both alike; the ratio is taken round by round.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.e2e import clients
from tests.e2e.provider.process import ProviderProcess
from tests.e2e.stack import running_stack, wait_for

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User and system time of a process so far, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def load(provider: ProviderProcess, calls: int) -> float:
    """Calls a second of two clients side by side, streams and plain answers in turn."""
    scripts = [
        clients.python("plain_http.py", provider.url, "requests", str(calls)),
        clients.python("openai_sdk.py", provider.url, "sync-stream", str(calls // 4)),
    ]
    before, start = len(provider.journal()), time.perf_counter()
    clients.run(provider, *scripts)
    return (len(provider.journal()) - before) / (time.perf_counter() - start)


@dataclass(frozen=True, slots=True)
class Round:
    """One measurement with the sensor against one without."""

    ratio: float
    cpu_us: float
    memory_mb: float
    calls: int


def measure(provider: ProviderProcess, state: Path, calls: int) -> Round:
    bare = load(provider, calls)
    state.mkdir()
    with running_stack(state) as stack:
        settings = {"sink": f"jsonl:{state}/calls.jsonl", "metrics": {"listen": "127.0.0.1:0"}}
        sensor = stack.start("sensor", settings)
        assert sensor.process is not None
        pid = sensor.process.pid
        idle, before = cpu_s(pid), len(provider.journal())
        rate = load(provider, calls)
        served = len(provider.journal()) - before
        wait_for("all calls emitted", lambda: stack.sensor_status()["events"]["emitted"] >= served)
        return Round(rate / bare, (cpu_s(pid) - idle) / served * 1e6, resident_mb(pid), served)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--calls", type=int, default=800)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        ProviderProcess.start(Path(folder) / "provider") as provider,
    ):
        states = [Path(folder) / f"state{number}" for number in range(arguments.rounds)]
        rounds = [measure(provider, state, arguments.calls) for state in states]
    print(f"calls/s with the sensor to without  {statistics.median(r.ratio for r in rounds):.3f}")
    print(f"sensor CPU per call                 {statistics.median(r.cpu_us for r in rounds):.0f} us")
    print(f"resident memory at most             {max(r.memory_mb for r in rounds):.1f} MB")
    print(f"calls, every one emitted            {sum(r.calls for r in rounds)}")


if __name__ == "__main__":
    main()
