"""`python -m tests.kernels [SERIES...]`: boots the kernels of the matrix and runs their tests there."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from tests.kernels import machine
from tests.kernels.matrix import MATRIX, Kernel
from tests.kernels.packages import Absent, unpacked
from tests.kernels.report import Row, printed, rows

PROJECT = Path(__file__).resolve().parents[2]
STATE = PROJECT / ".setup" / "kernels"
#: Far more than a kernel's tests take on an idle machine: only a hanging kernel is ended by it.
TIMEOUT_S = 900

#: pytest without the plugins that these tests have no use for: imports cost seconds on an emulated processor.
SCRIPT = """\
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp
export PYTHONDONTWRITEBYTECODE=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
exec .venv/bin/python -m pytest -p pytest_timeout -p no:cacheprovider --basetemp=/tmp/pytest --tb=short -v \
    --junit-xml=/tmp/results/report.xml -o junit_logging=no {tests}
"""


def tried(kernel: Kernel) -> list[Row]:
    """Boots one kernel and runs its tests there."""
    try:
        package = unpacked(kernel.series, kernel.suite, STATE)
    except Absent as absent:
        return [Row(kernel.series, f"not tried: {absent}", "absent" if kernel.may_be_absent else "failed")]
    print(f"test-kernels: {package.release}", flush=True)
    script = SCRIPT.format(tests=shlex.join(kernel.selection()))
    outcome = machine.run(package, script, PROJECT, STATE / "logs" / kernel.series, TIMEOUT_S)
    return rows(kernel.series, kernel.selection(), outcome)


def main() -> int:
    wanted = sys.argv[1:] or [kernel.series for kernel in MATRIX]
    unknown = set(wanted) - {kernel.series for kernel in MATRIX}
    if unknown:
        known = ", ".join(kernel.series for kernel in MATRIX)
        print(
            f"test-kernels: no {', '.join(sorted(unknown))} in the matrix, which has {known}", file=sys.stderr
        )
        return 2
    table = [row for kernel in MATRIX if kernel.series in wanted for row in tried(kernel)]
    print(printed(table))
    return int(any(row.result == "failed" for row in table))


if __name__ == "__main__":
    sys.exit(main())
