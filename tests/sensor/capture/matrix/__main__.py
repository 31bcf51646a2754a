"""Runs the coverage matrix and prints its table; with --write puts it into docs/coverage.md. Needs root.

.venv/bin/python -m tests.sensor.capture.matrix [--write]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.e2e.provider.certificates import make_certificates
from tests.sensor.capture.matrix import brief, document
from tests.sensor.capture.matrix.run import OPTIONS, run
from tests.sensor.capture.matrix.table import TABLE
from tests.sensor.capture.recorder import recording


def main() -> int:
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        certificates = make_certificates(Path(scratch) / "tls")
        with recording(options=OPTIONS) as recorder:
            for number, client in enumerate(TABLE):
                folder = Path(scratch) / str(number)
                folder.mkdir()
                outcomes.append(run(client, recorder, certificates, folder))
                print(outcomes[-1].client.name, "·", outcomes[-1].result, flush=True)
        rates = brief.rates(certificates, Path(scratch))
    print("\n" + document.text_table(outcomes) + "\n" + document.brief_line(rates))
    if "--write" in sys.argv[1:]:
        document.write(outcomes, rates)
    return int(any(outcome.problems for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
