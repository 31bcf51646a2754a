"""A soak of the capture: full rate, with processes and libraries coming and going. Needs root.

.venv/bin/python -m tests.bench.soak [--minutes N]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.bench.soak.run import soak


def main() -> int:
    parser = argparse.ArgumentParser(description="Soaks the capture, and tells what it leaks.")
    parser.add_argument("--minutes", type=float, default=10.0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        outcome = soak(Path(scratch), arguments.minutes * 60)
    print(outcome.report())
    for problem in outcome.problems():
        print(f"soak: {problem}", file=sys.stderr)
    return int(bool(outcome.problems()))


if __name__ == "__main__":
    sys.exit(main())
