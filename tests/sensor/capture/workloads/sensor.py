"""A capture of nobody, to be killed. Usage: sensor LINK_KIND [LOADER]"""

from __future__ import annotations

import sys

from mmsensor.capture.options import CaptureOptions, LinkKind, Loader
from mmsensor.capture.session import Capture

kind, loader = LinkKind(sys.argv[1]), Loader(sys.argv[2]) if sys.argv[2:] else None
capture = Capture(CaptureOptions(only_pids=frozenset(), link_kind=kind, loader=loader))
capture.start()
print("started", flush=True)
sys.stdin.readline()
