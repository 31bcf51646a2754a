"""A capture of nobody, to be killed. Usage: sensor LINK_KIND"""

from __future__ import annotations

import sys

from mmsensor.capture.options import CaptureOptions, LinkKind
from mmsensor.capture.session import Capture

capture = Capture(CaptureOptions(only_pids=frozenset(), link_kind=LinkKind(sys.argv[1])))
capture.start()
print("started", flush=True)
sys.stdin.readline()
