"""A capture under whatever rights it was started with. Usage: limited LINK_KIND PROC PID

PROC is a folder that shows some processes of /proc, PID the one that is captured. Prints what it is attached
to, or why it does not start; captures until a line comes; prints how many bytes went each way.
"""

from __future__ import annotations

import json
import select
import sys
from pathlib import Path

from mmproto.reader import Direction
from mmsensor.capture.errors import CaptureError
from mmsensor.capture.kernel import privileges
from mmsensor.capture.options import CaptureOptions, LinkKind
from mmsensor.capture.session import Capture
from mmsensor.streams.events import Bytes

kind, proc, pid = sys.argv[1:]
capture = Capture(
    CaptureOptions(
        link_kind=LinkKind(kind) if kind else None, only_pids=frozenset({int(pid)}), proc=Path(proc)
    )
)
try:
    capture.start()
except CaptureError as error:
    print(json.dumps({"refused": error.reason}))
    sys.exit()
attached = [target.path for target in capture.targets() if target.attached]
print(json.dumps({"attached": attached, "shortfalls": privileges.shortfalls()}), flush=True)
moved = dict.fromkeys(Direction, 0)
told = False
while True:
    events = [event for event in capture.poll(0.05) if isinstance(event, Bytes)]
    for event in events:
        moved[event.direction] += len(event.data)
    if told and not events:
        break
    told = told or bool(select.select([sys.stdin], [], [], 0)[0])
capture.close()
print(json.dumps({"write": moved[Direction.WRITE], "read": moved[Direction.READ]}))
