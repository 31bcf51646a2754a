"""The fault runs with numbers of one's own; `make faults` runs the large ones.

python -m tests.faults kills [--calls 100000] [--kills 120] [--seed N] [--folder F]
python -m tests.faults away [--rate 2000] [--seconds 120] [--folder F]
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.faults import away, killing


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="keep everything here, to look at it afterwards")
    runs = parser.add_subparsers(dest="run", required=True)
    kills = runs.add_parser("kills")
    kills.add_argument("--calls", type=int, default=100_000)
    kills.add_argument("--kills", type=int, default=120)
    kills.add_argument("--seed", type=int, help="of an earlier run, to repeat it")
    gone = runs.add_parser("away")
    gone.add_argument("--rate", type=int, default=2_000, help="calls a second")
    gone.add_argument("--seconds", type=float, default=120.0, help="how long the broker is away")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="modelmeter-faults-") as temporary:
        folder = options.folder or Path(temporary)
        return _kills(options, folder) if options.run == "kills" else _away(options, folder)


def _kills(options: argparse.Namespace, folder: Path) -> int:
    seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
    _say(f"{options.calls} calls, {options.kills} kills, --seed {seed}")
    outcome = killing.run(killing.Plan(options.calls, options.kills, seed), folder, _say)
    _say("\n".join(outcome.lines()))
    return 1 if outcome.wrong else 0


def _away(options: argparse.Namespace, folder: Path) -> int:
    plan = away.AwayPlan(options.rate, before_s=10, away_s=options.seconds, after_s=20)
    outcome = away.run(plan, folder, _say)
    _say("\n".join(outcome.lines()))
    return 1 if outcome.missing or outcome.strange or outcome.refused else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
