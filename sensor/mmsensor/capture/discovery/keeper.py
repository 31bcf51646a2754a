"""A companion of the sensor that lets held processes go when the sensor does not, however it may have ended.

Usage: python -m mmsensor.capture.discovery.keeper PIPE HOLDS ALLOWED COUNTERS HOLD_MS, all but the last open
descriptors: a pipe that the sensor writes a byte to now and then, and maps of bpf/hold.h.

The kernel holds a process only until the time in ALLOWED, which the keeper moves on for as long as it lives
and hears from the sensor. So no process is stopped that nobody would continue, unless sensor and keeper are
killed in the same instant. SIGTERM is ignored: the end of the pipe is the sign to go, and it comes last.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from pathlib import Path

from mmsensor.capture.discovery.files import Counter
from mmsensor.capture.discovery.holding import Held, HoldMap, LetGo
from mmsensor.capture.kernel import syscalls

#: The kernel may stop a process so many rounds after the last one of ours.
_ROUNDS_ALLOWED = 3
_ROUNDS_IN_A_HOLD = 4
_LONGEST_ROUND_MS = 100
#: A sensor that was silent for so long is busy or stuck: nobody is stopped on its account.
_SILENT_S = 1.0
#: After the sensor's end: so many looks in a row find nobody, and no longer than this.
_LAST_LOOKS = 2
_LAST_LOOKS_S = 5.0
_PROC = Path("/proc")
#: The one line on standard output, when processes may be held.
READY = "ready"


class Keeper:
    def __init__(self, pipe: int, holds: int, allowed: int, counters: int, hold_ms: int) -> None:
        self._pipe = pipe
        self._holds = HoldMap(holds)
        self._allowed = syscalls.Map(allowed, 4, 8)
        self._counters = syscalls.Map(counters, 4, 8)
        self._round_ms = max(1, min(hold_ms // _ROUNDS_IN_A_HOLD, _LONGEST_ROUND_MS))
        # By the next round its time would be up.
        self._hold_ns = (hold_ms - self._round_ms) * 1_000_000
        self._heard = time.monotonic()
        self._able = True

    def run(self) -> None:
        """Until the sensor has closed its end of the pipe, or died."""
        poller = select.poll()
        poller.register(self._pipe, select.POLLIN)
        self._allow(_ROUNDS_ALLOWED * self._round_ms)
        print(READY, flush=True)
        while not poller.poll(self._round_ms) or self._hear():
            if self._able and time.monotonic() - self._heard < _SILENT_S:
                self._allow(_ROUNDS_ALLOWED * self._round_ms)
            self._let_go_older_than(self._hold_ns)
        self._allow(0)
        # A program that was running when the links went may stop one more, and a stop may come late.
        until = time.monotonic() + _LAST_LOOKS_S
        empty = 0
        while empty < _LAST_LOOKS and time.monotonic() < until:
            empty = 0 if self._let_go_older_than(0) else empty + 1
            time.sleep(self._round_ms / 1000)

    def _hear(self) -> bool:
        """Whether the sensor is there; it has written, or closed the pipe."""
        self._heard = time.monotonic()
        return bool(os.read(self._pipe, 4096))

    def _allow(self, for_ms: int) -> None:
        until = _boot_ns() + for_ms * 1_000_000 if for_ms else 0
        self._allowed.put(bytes(4), until.to_bytes(8, "little"))

    def _let_go_older_than(self, limit_ns: int) -> bool:
        """Whether there was anybody."""
        now = _boot_ns()
        overdue = [held for held in self._holds if now - held.since_ns >= limit_ns]
        for held in overdue:
            self._let_go(held)
        return bool(overdue)

    def _let_go(self, held: Held) -> None:
        try:
            outcome = self._holds.let_go(_PROC, held)
        except OSError as error:
            # Tried again each round; nobody else shall come into this.
            self._able = False
            print(f"process {held.pid} cannot be continued: {error}", file=sys.stderr)
            return
        if outcome in (LetGo.DONE_BY_THE_OTHER, LetGo.NOT_YET):
            return
        at = int(Counter.HELD_TOO_LONG).to_bytes(4, "little")
        count = int.from_bytes(self._counters.get(at) or bytes(8), "little") + 1
        self._counters.put(at, count.to_bytes(8, "little"))


def _boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    pipe, holds, allowed, counters, hold_ms = map(int, sys.argv[1:])
    Keeper(pipe, holds, allowed, counters, hold_ms).run()


if __name__ == "__main__":
    main()
