"""Facts about the process at one end of a connection, read from /proc while it is still there.

A pid names a process only together with its start time: it is compared before and after reading, so that a
pid that was given to another process in between yields no facts rather than the other's. What cannot be
read is absent; nothing is invented. Facts are read when a connection opens, because many clients are gone
again before their call is complete (`curl` lives for one).
"""

from __future__ import annotations

import pwd
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mmproto.v1.call_pb2 import Process
from mmsensor.attribution.cgroups import CgroupPaths
from mmsensor.streams.events import Owner

PROC = Path("/proc")
# Field 22 of /proc/PID/stat counts in these, whatever the kernel's own HZ (USER_HZ is part of the ABI).
TICK_NS = 10_000_000


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """One process. `started_ns`: its start on the kernel's boot clock, nanoseconds. "" is not known."""

    pid: int
    started_ns: int
    exe: str = ""
    command: str = ""
    user: str = ""
    cgroup: str = ""
    systemd_unit: str = ""


class ProcessTable:
    """Facts by (pid, start time), at most `limit` of them, the least recently used ones forgotten first."""

    def __init__(self, limit: int = 4096, proc: Path = PROC) -> None:
        self._limit = limit
        self._proc = proc
        self._facts: OrderedDict[tuple[int, int], ProcessFacts] = OrderedDict()
        self._cgroups = CgroupPaths()
        # Taken once: the two clocks drift against each other by NTP, and a process has one start.
        self._boot_unix_ns = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def look(self, pid: int, started_ns: int, owner: Owner | None = None) -> ProcessFacts:
        """The facts of that process as they are now, or as last seen; where it is gone, what the kernel said
        of it while it lived (`owner`), or only its pid."""
        key = (pid, started_ns)
        fresh = read_facts(pid, started_ns, self._proc)
        known = fresh or self._facts.get(key)
        if known is None:
            if owner is None:
                return ProcessFacts(pid, started_ns)
            known = self._facts_of(pid, started_ns, owner)
        self._facts[key] = known
        self._facts.move_to_end(key)
        if len(self._facts) > self._limit:
            self._facts.popitem(last=False)
        return known

    def _facts_of(self, pid: int, started_ns: int, owner: Owner) -> ProcessFacts:
        cgroup = self._cgroups.path(owner.cgroup)
        return ProcessFacts(
            pid,
            started_ns,
            command=owner.command,
            user=_user_name(owner.uid),
            cgroup=cgroup,
            systemd_unit=systemd_unit(cgroup),
        )

    def message(self, facts: ProcessFacts) -> Process:
        """The contract's form of `facts`."""
        return Process(
            pid=facts.pid,
            started_at_unix_ns=self._boot_unix_ns + facts.started_ns if facts.started_ns else 0,
            exe=facts.exe,
            command=facts.command,
            user=facts.user,
            cgroup=facts.cgroup,
            systemd_unit=facts.systemd_unit,
        )


def read_facts(pid: int, started_ns: int, proc: Path = PROC) -> ProcessFacts | None:
    """The facts of process `pid` that started at `started_ns` (boot clock), None where it is gone."""
    folder = proc / str(pid)
    if not _is_same(folder, started_ns):
        return None
    cgroup = _cgroup(_read(folder / "cgroup"))
    facts = ProcessFacts(
        pid=pid,
        started_ns=started_ns,
        exe=_exe(folder),
        command=_read(folder / "comm").rstrip("\n"),
        user=_user(_read(folder / "status")),
        cgroup=cgroup,
        systemd_unit=systemd_unit(cgroup),
    )
    return facts if _is_same(folder, started_ns) else None


def systemd_unit(cgroup: str) -> str:
    """The innermost service of a cgroup path, else its scope: `x.service` of `/a.slice/x.service/y`."""
    parts = cgroup.split("/")
    for suffix in (".service", ".scope"):
        for part in reversed(parts):
            if part.endswith(suffix):
                return part
    return ""


def _is_same(folder: Path, started_ns: int) -> bool:
    stat = _read(folder / "stat")
    # The name in parentheses may hold blanks and parentheses; the fields after the last one do not.
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20:
        return False
    return started_ns == 0 or int(fields[19]) == started_ns // TICK_NS


def _exe(folder: Path) -> str:
    try:
        # A binary that was replaced while it runs (every upgrade) is still that binary.
        return str((folder / "exe").readlink()).removesuffix(" (deleted)")
    except OSError:
        return ""


def _user(status: str) -> str:
    for line in status.splitlines():
        if line.startswith("Uid:"):
            return _user_name(int(line.split()[2]))
    return ""


@lru_cache(maxsize=1024)
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _cgroup(text: str) -> str:
    """The path in the unified hierarchy, else in systemd's own of the old layout."""
    legacy = ""
    for line in text.splitlines():
        _number, controllers, path = line.split(":", 2)
        if not controllers and path != "/":
            return path
        if controllers == "name=systemd":
            legacy = path
    return legacy


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
