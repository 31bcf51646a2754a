"""Maps libraries and stays. Usage: mapping LIBRARY..., those named gone-* are deleted once mapped."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

from tests.sensor.capture.workloads.control import wait_for_go

for name in sys.argv[1:]:
    ctypes.CDLL(name)
    if Path(name).name.startswith("gone-"):
        Path(name).unlink()
wait_for_go()
