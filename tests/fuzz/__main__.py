"""`python -m tests.fuzz TARGET|all --minutes N`: searches for inputs that break what must hold.

Each target has a process of its own, `--jobs` of them at a time, and the minutes are shared out among them.
Inputs that reach new code are kept in `build/fuzz/` and started from the next time. What is found is made
small and put into `tests/proto/fuzz_findings/`, where it is an ordinary test from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.fuzz.shrink import failure, shrink
from tests.fuzz.table import TARGETS

ROOT = Path(__file__).parents[2]
FINDINGS = ROOT / "tests/proto/fuzz_findings"
CORPUS = ROOT / "build/fuzz"
# A finding ends its process: go on as long as there is time, but not for ever where nothing else is reached.
_MOST_FINDINGS = 5


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=["all", *TARGETS])
    parser.add_argument("--minutes", type=float, default=10, help="for all targets together (10)")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time (2)")
    options = parser.parse_args(arguments)
    names = list(TARGETS) if options.target == "all" else [options.target]
    jobs = min(options.jobs, len(names))
    seconds = max(1, round(options.minutes * 60 * jobs / len(names)))
    with ThreadPoolExecutor(jobs) as pool:
        found = sum(pool.map(lambda name: fuzz(name, seconds), names))
    return 1 if found else 0


def fuzz(name: str, seconds: int) -> int:
    """Fuzzes one target; returns how many findings it has, one more where it could not be run."""
    corpus = CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    saved: set[Path] = set()
    left = seconds
    while left > 0 and len(saved) < _MOST_FINDINGS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "tests.fuzz.worker", name, str(corpus), folder, str(left)]
            ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
            inputs = [path for path in Path(folder).iterdir() if "-" in path.name]
            saved |= {save(name, path) for path in inputs}
        print(f"{name}: {_summary(ran.stderr)}", flush=True)
        if not inputs:
            if ran.returncode:
                print(f"{name}: could not be run: {ran.stderr[-3000:]}", file=sys.stderr, flush=True)
            return len(saved) + bool(ran.returncode)
        left //= 2
    return len(saved)


def save(name: str, path: Path) -> Path:
    """Puts a finding, made small, among the regression tests."""
    data = path.read_bytes()
    if path.name.startswith("crash-"):
        data = shrink(TARGETS[name].run, data)
    folder = FINDINGS / name
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / hashlib.sha256(data).hexdigest()[:16]
    kept.write_bytes(data)
    print(f"{name}: {path.name.partition('-')[0]}: {failure(TARGETS[name].run, data)}: {kept}", flush=True)
    return kept


def _summary(log: str) -> str:
    """What libFuzzer says at its end about how much it ran."""
    stats = dict(
        line.removeprefix("stat::").split(":", 1) for line in log.splitlines() if line.startswith("stat::")
    )
    return ", ".join(
        f"{stats[key].strip()} {label}"
        for key, label in (
            ("number_of_executed_units", "runs"),
            ("new_units_added", "new inputs"),
            ("slowest_unit_time_sec", "s for the slowest"),
        )
        if key in stats
    )


if __name__ == "__main__":
    sys.exit(main())
