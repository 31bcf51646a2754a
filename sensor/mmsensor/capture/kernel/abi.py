"""The probes' record format, as Python sees it: the mirror of bpf/abi.h.

Everything here is fixed by that header; `tests/sensor/capture/test_abi.py` holds sizes, offsets and
constants of both against the BTF of the built object. `Record` is also what recorded captures consist
of, so that everything above the kernel is tested without one.
"""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag
from typing import NamedTuple

#: struct mm_record: at_ns, started_ns, ssl, generation, offset, call_size, read_offset, write_offset (u64),
#: pid, size (u32), kind, direction, flags (u8), five reserved bytes.
RECORD = struct.Struct("=8Q2I3B5x")
#: struct mm_process: cgroup (u64), uid, gid (u32), comm (16 bytes, padded with zeros).
PROCESS = struct.Struct("=Q2I16s")
#: struct mm_peer: address (16 bytes, IPv4 in the first four), family, port (u16).
PEER = struct.Struct("=16s2H")
#: struct mm_settings: wake_bytes, undecided_bytes (u64), own_pid, only_listed_pids (u32).
SETTINGS = struct.Struct("=2Q2I")
#: struct mm_connection_key: ssl, started_ns (u64), pid, reserved (u32).
CONNECTION_KEY = struct.Struct("=2Q2I")
#: struct mm_connection: generation, read_offset, write_offset (u64), state, flags (u32).
CONNECTION = struct.Struct("=3Q2I")
#: struct mm_thread_key (bpf/maps.h): id (u64), pid, reserved (u32).
THREAD_KEY = struct.Struct("=Q2I")
#: struct mm_verdict_key: ssl, generation (u64), pid, reserved (u32).
VERDICT_KEY = struct.Struct("=2Q2I")


class Kind(IntEnum):
    DATA = 1
    SNI = 2
    FREE = 3
    EXIT = 4
    OPEN = 5
    PEER = 6


class Flag(IntFlag):
    LATE = 1
    LAST = 2
    ANNOUNCED = 4
    PEER_KNOWN = 8


class Form(IntEnum):
    """Where a probed function has its arguments and its count; bpf/abi.h says what each means."""

    COUNT = 0
    MOVED_4TH = 1
    MOVED_5TH = 2
    FILE = 3
    GO = 4


#: Elements of the map `fired`, the first of which stands for none.
TARGETS = 4096


def cookie(form: Form, *, reads: bool, stack_shift: int = 0, success: int = 0, target: int = 0) -> int:
    """What a probe is told with its link. `stack_shift` in bytes, `success` the result that means it (0: any
    positive one), `target` an index below TARGETS. Raises ValueError for what has no room in it."""
    if max(stack_shift, success) >> 16 or not 0 <= target < TARGETS:
        raise ValueError(f"no room in a cookie: {stack_shift=}, {success=}, {target=}")
    return int(reads) | form << 1 | stack_shift << 16 | success << 32 | target << 48


class State(IntEnum):
    UNDECIDED = 0
    INTERESTING = 1
    IGNORED = 2
    ENDED = 3


class Counter(IntEnum):
    """Indices of the `counters` map; bpf/abi.h says what each means."""

    RECORDS = 0
    BYTES = 1
    CALLS = 2
    IGNORED_CALLS = 3
    RING_FULL = 4
    RING_FULL_BYTES = 5
    UNREADABLE = 6
    UNREADABLE_BYTES = 7
    CALL_TOO_LONG = 8
    CALL_TOO_LONG_BYTES = 9
    CONTROL = 10
    CALLS_FULL = 11
    CONNECTIONS_FULL = 12
    CONNECTIONS_FULL_BYTES = 13
    BAD_RETURN = 14
    NESTED = 15
    STALE = 16
    UNDECIDED = 17
    UNDECIDED_BYTES = 18


class Record(NamedTuple):
    """One record of the ring. Offsets count bytes of one direction from the connection's first one.

    `at_ns` is unix time; `started_ns` and `generation` stay on the kernel's boot clock, because they
    identify and do not tell the time. A tuple and not a dataclass, because one is made for every record,
    and a frozen dataclass of this many fields takes longer to make than everything else done to it.
    """

    kind: Kind
    pid: int
    started_ns: int
    ssl: int
    generation: int
    at_ns: int
    direction: int = 0
    offset: int = 0
    call_size: int = 0
    read_offset: int = 0
    write_offset: int = 0
    flags: int = 0
    data: bytes = b""


_KINDS = {int(kind): kind for kind in Kind}


def decode(raw: bytes, boot_to_unix_ns: int) -> Record:
    """Reads one ring record; `boot_to_unix_ns` is unix time minus boot time.

    Raises struct.error or KeyError for what no version of the probes writes.
    """
    (
        at_ns,
        started_ns,
        ssl,
        generation,
        offset,
        call_size,
        read_offset,
        write_offset,
        pid,
        size,
        kind,
        direction,
        flags,
    ) = RECORD.unpack_from(raw)
    return Record(
        _KINDS[kind],
        pid,
        started_ns,
        ssl,
        generation,
        at_ns + boot_to_unix_ns,
        direction,
        offset,
        call_size,
        read_offset,
        write_offset,
        flags,
        raw[RECORD.size : RECORD.size + size],
    )
