"""The records of held processes, and how one is let go: what the sensor and its keeper have in common.

bpf/hold.h stops a process and then records it. To let it go is to continue it and then to remove the record,
so that whoever dies in between leaves a record for the other to act on.
"""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Iterator
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

from mmsensor.capture.discovery.proc import is_alive
from mmsensor.capture.kernel import syscalls

#: struct mm_hold: the file key (as in files.py), since_ns, started_ns (u64).
HOLD = struct.Struct("=2Q2I2Q")
#: struct mm_hold_settings: min_bytes, per_second (u64), sensor_pid, uid (u32), everybody (u64).
HOLD_SETTINGS = struct.Struct("=2Q2IQ")
#: Who is not stopped by then was continued by somebody else.
_STOP_ARRIVES_NS = 1_000_000_000
_STOPS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_STOP_MASK = sum(1 << number - 1 for number in _STOPS)


class Held(NamedTuple):
    """A stopped process, the file it waits for as (inode, changed_ns, device, generation), and times on the
    boot clock."""

    pid: int
    file: tuple[int, int, int, int]
    since_ns: int
    started_ns: int


class LetGo(Enum):
    CONTINUED = auto()
    GONE = auto()
    #: Somebody else has stopped it too, by a signal of their own: then it is theirs to continue.
    LEFT_STOPPED = auto()
    #: Its stop has not arrived: some kernels send it a moment later. The record stays.
    NOT_YET = auto()
    #: Sensor and keeper were at it at once, and the other one has done it.
    DONE_BY_THE_OTHER = auto()


class HoldMap:
    """The map `holds` by its descriptor."""

    def __init__(self, fd: int) -> None:
        self._map = syscalls.Map(fd, 4, HOLD.size)

    def __iter__(self) -> Iterator[Held]:
        for key in list(self._map.keys()):
            raw = self._map.get(key)
            if raw is not None:
                *file, since_ns, started_ns = HOLD.unpack(raw)
                yield Held(int.from_bytes(key, "little"), tuple(file), since_ns, started_ns)

    def let_go(self, proc: Path, held: Held) -> LetGo:
        """Continues a process and removes its record. PermissionError where we may not: it stays."""
        outcome = _continue(proc, held)
        if outcome is LetGo.NOT_YET:
            return outcome
        ours = self._map.delete(held.pid.to_bytes(4, "little"))
        if outcome is LetGo.CONTINUED:
            # It may have been stopped anew just before the record went.
            _continue(proc, held)
        return outcome if ours else LetGo.DONE_BY_THE_OTHER


def _continue(proc: Path, held: Held) -> LetGo:
    try:
        process = os.pidfd_open(held.pid)
    except ProcessLookupError:
        return LetGo.GONE
    try:
        if not is_alive(proc, held.pid, held.started_ns):
            return LetGo.GONE
        stopped, waiting = _stops(proc, held.pid)
        if stopped and waiting:
            return LetGo.LEFT_STOPPED
        if stopped or waiting:
            # Where it has not stopped yet, this takes the stop back.
            signal.pidfd_send_signal(process, signal.SIGCONT)
        elif time.clock_gettime_ns(time.CLOCK_BOOTTIME) - held.since_ns < _STOP_ARRIVES_NS:
            return LetGo.NOT_YET
    except ProcessLookupError:
        return LetGo.GONE
    finally:
        os.close(process)
    return LetGo.CONTINUED


def _stops(proc: Path, pid: int) -> tuple[bool, bool]:
    """Whether a process is stopped, and whether a further stop waits for it.

    Ours has been taken off the list by the time it is stopped, so that what waits then is somebody else's.
    """
    try:
        status = (proc / str(pid) / "status").read_text()
    except OSError as error:
        raise ProcessLookupError(pid) from error
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    waiting = int(fields["SigPnd"], 16) | int(fields["ShdPnd"], 16)
    return fields["State"].startswith("T"), bool(waiting & _STOP_MASK)
