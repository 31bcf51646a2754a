"""What a process holds, seen from outside: memory, descriptors, threads (tasks, to tell them from the map of
that name), BPF links, entries of its BPF maps."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmsensor.capture.kernel import syscalls

#: Maps whose entries come and go with processes, connections and calls.
MAPS = ("threads", "connections", "processes", "verdicts")
_HASHES = {1, 9}  # BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_LRU_HASH
_BPF, _OBJ_GET_INFO_BY_FD = 321, 15
_PIDFD_OPEN, _PIDFD_GETFD = 434, 438

Sample = dict[str, float]
_libc = ctypes.CDLL(None, use_errno=True)


def take(pid: int) -> Sample:
    """RSS in MB, everything else in pieces."""
    process = Path("/proc", str(pid))
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines() if ":" in line)
    infos = _fdinfo(process)
    sample: Sample = {
        "rss_mb": int(status["VmRSS"].split()[0]) / 1024,
        "tasks": int(status["Threads"]),
        "fds": len(infos),
        "links": sum("link_id" in info for info in infos.values()),
    }
    with _opened(pid) as pidfd:
        for fd, info in infos.items():
            if int(info.get("map_type", "-1")) in _HASHES:
                sample |= _entries(pidfd, fd, info)
    return sample


def _fdinfo(process: Path) -> dict[int, dict[str, str]]:
    infos = {}
    for file in (process / "fdinfo").iterdir():
        try:
            # A link names its file, whose name may be anything.
            lines = file.read_text(errors="replace").splitlines()
        except FileNotFoundError:
            continue  # closed meanwhile
        infos[int(file.name)] = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return infos


@contextmanager
def _opened(pid: int) -> Iterator[int]:
    pidfd = _call(_PIDFD_OPEN, pid, 0)
    try:
        yield pidfd
    finally:
        os.close(pidfd)


def _entries(pidfd: int, fd: int, info: Mapping[str, str]) -> Sample:
    """Of one of the maps in MAPS; nothing for another one."""
    mine = _call(_PIDFD_GETFD, pidfd, fd, 0)
    try:
        name = _name(mine)
        if name not in MAPS:
            return {}
        keys = syscalls.Map(mine, int(info["key_size"]), int(info["value_size"])).keys()
        return {name: sum(1 for _ in keys)}
    finally:
        os.close(mine)


def _name(fd: int) -> str:
    """Of a BPF map: struct bpf_map_info has it after six 32-bit fields."""
    answer = ctypes.create_string_buffer(40)
    request = struct.pack("=IIQ", fd, len(answer), ctypes.addressof(answer))
    _call(_BPF, _OBJ_GET_INFO_BY_FD, request, len(request))
    return answer.raw[24:40].split(b"\0", maxsplit=1)[0].decode()


def _call(*arguments: int | bytes) -> int:
    values = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = int(_libc.syscall(*values))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def quarters(samples: Sequence[Sample], name: str) -> tuple[float, float]:
    """The means over the second quarter and over the last; in the first pools fill and caches warm up."""
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples[-1:], samples[-quarter:]
    return sum(each[name] for each in early) / len(early), sum(each[name] for each in late) / len(late)


def grown(samples: Sequence[Sample], slack: Mapping[str, float]) -> list[str]:
    """What there was more of in the last quarter than in the second, by more than its slack."""
    found = []
    for name in samples[-1]:
        before, after = quarters(samples, name)
        if after - before > slack.get(name, 0.1 * before + 2):
            found.append(f"{name} grew from {before:.1f} to {after:.1f}")
    return found
