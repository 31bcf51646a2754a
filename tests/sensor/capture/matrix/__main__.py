"""Runs the coverage matrix and prints its table; with --write puts it into docs/coverage.md. Needs root.

.venv/bin/python -m tests.sensor.capture.matrix [--write]
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.e2e.provider.certificates import make_certificates
from tests.sensor.capture.matrix import document
from tests.sensor.capture.matrix.run import OPTIONS, run
from tests.sensor.capture.matrix.table import TABLE
from tests.sensor.capture.recorder import recording


def main() -> int:
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch, recording(options=OPTIONS) as recorder:
        certificates = make_certificates(Path(scratch) / "tls")
        for number, client in enumerate(TABLE):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            outcomes.append(run(client, recorder, certificates, folder))
            print(outcomes[-1].client.name, "·", outcomes[-1].result, flush=True)
    print("\n" + document.text_table(outcomes))
    if "--write" in sys.argv[1:]:
        document.write(outcomes)
    return int(any(outcome.problems for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
