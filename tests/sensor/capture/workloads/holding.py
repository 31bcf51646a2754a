"""A sensor that captures nobody and holds processes, and tells how that goes: a line for a line.

Usage: holding HOLD_S HOLDS_PER_SECOND
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

from mmsensor.capture.options import CaptureOptions
from mmsensor.capture.session import Capture

capture = Capture(
    CaptureOptions(
        only_pids=frozenset(),
        hold_first_exec=True,
        hold_s=float(sys.argv[1]),
        holds_per_second=int(sys.argv[2]),
    )
)
capture.start()
print("started", flush=True)
for _ in sys.stdin:
    holds = capture.statistics().holds
    assert holds is not None
    print(json.dumps(asdict(holds)), flush=True)
capture.close()
