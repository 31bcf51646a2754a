"""A process of some 20 ms with a libssl that nobody has ever seen: how often is it captured whole?

The sensor must notice the file, examine it and put its probes on, all between the mapping and the first call.
With `hold_first_exec` the process waits for that, without it this is a race.
"""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from tests.e2e.provider.certificates import Certificates
from tests.sensor.capture.matrix.run import OPTIONS, captured, differences, held
from tests.sensor.capture.matrix.server import EchoServer, serving
from tests.sensor.capture.matrix.table import CLIENTS, system_libssl
from tests.sensor.capture.recorder import recording, started

RUNS = 25
#: Longer than a machine in use should hold anybody: one that is busy with other tests takes its time.
HOLD_S = 5.0


def rates(certificates: Certificates, folder: Path) -> tuple[int, int]:
    """How many of RUNS such processes were captured to the last byte: without `hold_first_exec`, with it."""
    program = folder / "brief"
    subprocess.run(["clang", "-O2", str(CLIENTS / "brief.c"), "-o", str(program), "-ldl"], check=True)
    return _whole(False, program, certificates), _whole(True, program, certificates)


def _whole(hold: bool, program: Path, certificates: Certificates) -> int:
    count = 0
    with (
        serving(EchoServer(certificates, ("http/1.1",))) as server,
        recording(options=replace(OPTIONS, hold_first_exec=hold, hold_s=HOLD_S)) as recorder,
    ):
        for number in range(RUNS):
            library = program.with_name(f"libssl-{hold}-{number}.so")
            shutil.copy(system_libssl(), library)
            # A sensor never holds its own children, and that is what this process would start.
            grandchild = ["sh", "-c", '"$@"; exit $?', "sh"]
            with started([*grandchild, *held([str(program), str(library), str(server.port)])]) as process:
                seen = captured(recorder, process, int(process.line()))
            count += not differences(server.finished(), seen)
    return count
