"""The system calls that Python's standard library has no name for: bpf(2) and perf_event_open(2).

Links are made here and not through libbpf, because the oldest supported libbpf (0.5) does not know
`uprobe_multi`. Everything returned is a file descriptor: when the process dies, however it dies, the
kernel takes the probes off.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_NR_BPF, _NR_PERF_EVENT_OPEN = {"x86_64": (321, 298), "aarch64": (280, 241)}.get(platform.machine(), (-1, -1))

_MAP_LOOKUP_ELEM = 1
_MAP_UPDATE_ELEM = 2
_MAP_DELETE_ELEM = 3
_MAP_GET_NEXT_KEY = 4
_PROG_LOAD = 5
_RAW_TRACEPOINT_OPEN = 17
_LINK_CREATE = 28
_LINK_GET_FD_BY_ID = 30

#: enum bpf_attach_type: one link for many places of a file (Linux 6.6), and with entry and return in one
#: program (Linux 6.13).
TRACE_UPROBE_MULTI = 48
TRACE_UPROBE_SESSION = 57
_PERF_EVENT = 41
_UPROBE_MULTI_F_RETURN = 1

_PROG_TYPE_KPROBE = 2
_RETURN_0 = bytes.fromhex("b7000000000000009500000000000000")

_PERF_TYPE_SOFTWARE = 1
_PERF_COUNT_SW_DUMMY = 9
_PERF_FLAG_MMAP = 1 << 8
_PERF_FLAG_WATERMARK = 1 << 14
_PERF_FLAG_MMAP2 = 1 << 23
_PERF_FLAG_FD_CLOEXEC = 8
_PERF_EVENT_IOC_ENABLE = 0x2400
_PERF_ATTR_SIZE = 112


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    return _checked(
        _libc.syscall(ctypes.c_long(_NR_BPF), ctypes.c_int(command), buffer, ctypes.c_uint(len(buffer)))
    )


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _address(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


class Map:
    """A BPF map by file descriptor (owned by libbpf's object), with raw byte keys and values."""

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        self._fd = fd
        self._key_size = key_size
        self._value_size = value_size

    def get(self, key: bytes) -> bytes | None:
        key_buffer = ctypes.create_string_buffer(key, self._key_size)
        value = ctypes.create_string_buffer(self._value_size)
        try:
            _bpf(_MAP_LOOKUP_ELEM, struct.pack("=I4xQQQ", self._fd, _address(key_buffer), _address(value), 0))
        except FileNotFoundError:
            return None
        return value.raw

    def put(self, key: bytes, value: bytes) -> None:
        """Raises OSError (E2BIG) where the map is full."""
        key_buffer = ctypes.create_string_buffer(key, self._key_size)
        value_buffer = ctypes.create_string_buffer(value, self._value_size)
        _bpf(
            _MAP_UPDATE_ELEM,
            struct.pack("=I4xQQQ", self._fd, _address(key_buffer), _address(value_buffer), 0),
        )

    def delete(self, key: bytes) -> bool:
        key_buffer = ctypes.create_string_buffer(key, self._key_size)
        try:
            _bpf(_MAP_DELETE_ELEM, struct.pack("=I4xQQQ", self._fd, _address(key_buffer), 0, 0))
        except FileNotFoundError:
            return False
        return True

    def keys(self) -> Iterator[bytes]:
        """All keys; the walk starts over where a key is deleted under it, so copy before deleting."""
        following = ctypes.create_string_buffer(self._key_size)
        current: ctypes.Array[ctypes.c_char] | None = None
        while True:
            at = _address(current) if current is not None else 0
            try:
                _bpf(_MAP_GET_NEXT_KEY, struct.pack("=I4xQQQ", self._fd, at, _address(following), 0))
            except FileNotFoundError:
                return
            yield following.raw
            current = ctypes.create_string_buffer(following.raw, self._key_size)


def map_sizes(fd: int) -> tuple[int, int]:
    """Bytes of a key and of a value of this map."""
    facts = dict(line.split(":\t", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text().splitlines())
    return int(facts["key_size"]), int(facts["value_size"])


def link_uprobe_multi(
    program: int, path: str, probes: Sequence[tuple[int, int]], *, kind: int, returns: bool
) -> int:
    """Links a program to places in a file, for every process there is and will be.

    `probes` are (offset, cookie); `kind` is TRACE_UPROBE_MULTI or TRACE_UPROBE_SESSION, as the program was
    loaded.
    """
    path_buffer = ctypes.create_string_buffer(path.encode())
    count = len(probes)
    offsets, cookies = (
        ctypes.create_string_buffer(struct.pack(f"={count}Q", *column), 8 * count)
        for column in zip(*probes, strict=True)
    )
    flags = _UPROBE_MULTI_F_RETURN if returns else 0
    return _bpf(
        _LINK_CREATE,
        struct.pack(
            "=4I4Q3I",
            program,
            0,
            kind,
            0,
            _address(path_buffer),
            _address(offsets),
            0,
            _address(cookies),
            count,
            flags,
            0,
        ),
    )


def knows_uprobe_link(kind: int) -> bool:
    """Whether this kernel has links of TRACE_UPROBE_MULTI or TRACE_UPROBE_SESSION. Raises OSError where it
    lets us load no program at all."""
    license_buffer = ctypes.create_string_buffer(b"GPL")
    instructions = ctypes.create_string_buffer(_RETURN_0, len(_RETURN_0))
    attributes = struct.pack(
        "=IIQQIIQII16sII",
        _PROG_TYPE_KPROBE,
        len(_RETURN_0) // 8,
        _address(instructions),
        _address(license_buffer),
        0,
        0,
        0,
        0,
        0,
        b"mm_probe",
        0,
        kind,
    )
    try:
        program = _bpf(_PROG_LOAD, attributes)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return False
        raise
    try:
        # It looks at the path, which is no regular file, only where it knows the kind.
        os.close(link_uprobe_multi(program, "/", [(0, 0)], kind=kind, returns=False))
    except OSError as error:
        return error.errno == errno.EBADF
    finally:
        os.close(program)
    return True


def link_raw_tracepoint(program: int, name: str | None) -> int:
    """Links a raw tracepoint by name, or, without one, a program whose hook was fixed at load (fentry)."""
    name_buffer = ctypes.create_string_buffer((name or "").encode())
    return _bpf(
        _RAW_TRACEPOINT_OPEN, struct.pack("=QI4x", _address(name_buffer) if name is not None else 0, program)
    )


def link_perf_uprobe(
    program: int, pmu: int, path: str, probe: tuple[int, int], return_bit: int | None
) -> int:
    """A uprobe as a perf event with a cookie, kernels from 5.15 on. `probe` is (offset, cookie); `return_bit`
    is the config bit that makes it a uretprobe, None for an ordinary one."""
    offset, cookie = probe
    # Such an event needs a CPU, but a program attached to a uprobe runs on all of them.
    event = _open_perf_uprobe(pmu, path, offset, return_bit, cpu=0, sample_period=1)
    try:
        # The link holds the event from here on.
        link = _bpf(_LINK_CREATE, struct.pack("=4IQ", program, event, _PERF_EVENT, 0, cookie))
        try:
            fcntl.ioctl(event, _PERF_EVENT_IOC_ENABLE, 0)
        except OSError:
            os.close(link)
            raise
        return link
    finally:
        os.close(event)


def open_uprobe_counter(pmu: int, path: str, offset: int, return_bit: int | None, pid: int) -> int:
    """A perf event that only counts how often one process passes a uprobe: read eight bytes of it."""
    return _open_perf_uprobe(pmu, path, offset, return_bit, pid=pid)


def _open_perf_uprobe(
    pmu: int,
    path: str,
    offset: int,
    return_bit: int | None,
    *,
    cpu: int = -1,
    pid: int = -1,
    sample_period: int = 0,
) -> int:
    path_buffer = ctypes.create_string_buffer(path.encode())
    config = 0 if return_bit is None else 1 << return_bit
    attributes = struct.pack(
        "=IIQQQQQIIQQ",
        pmu,
        _PERF_ATTR_SIZE,
        config,
        sample_period,
        0,
        0,
        0,
        1,  # wakeup_events
        0,
        _address(path_buffer),  # config1: uprobe_path
        offset,  # config2: probe_offset
    ).ljust(_PERF_ATTR_SIZE, b"\0")
    return _perf_event_open(attributes, cpu, pid)


def open_mapping_events(cpu: int) -> int:
    """A perf event that only reports executable mappings (PERF_RECORD_MMAP2) of all processes on a CPU."""
    attributes = struct.pack(
        "=IIQQQQQII",
        _PERF_TYPE_SOFTWARE,
        _PERF_ATTR_SIZE,
        _PERF_COUNT_SW_DUMMY,
        0,
        0,
        0,
        _PERF_FLAG_MMAP | _PERF_FLAG_WATERMARK | _PERF_FLAG_MMAP2,
        1,  # wakeup_watermark: at the first byte
        0,
    ).ljust(_PERF_ATTR_SIZE, b"\0")
    return _perf_event_open(attributes, cpu)


def _perf_event_open(attributes: bytes, cpu: int, pid: int = -1) -> int:
    buffer = ctypes.create_string_buffer(attributes, _PERF_ATTR_SIZE)
    return _checked(
        _libc.syscall(
            ctypes.c_long(_NR_PERF_EVENT_OPEN),
            buffer,
            ctypes.c_int(pid),  # -1: all of them
            ctypes.c_int(cpu),
            ctypes.c_int(-1),
            ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC),
        )
    )


def link_exists(link_id: int) -> bool:
    """Whether the kernel still has this link, whoever holds it."""
    try:
        os.close(_bpf(_LINK_GET_FD_BY_ID, struct.pack("=I", link_id)))
    except FileNotFoundError:
        return False
    return True
