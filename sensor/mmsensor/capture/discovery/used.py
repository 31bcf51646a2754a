"""Notices a target that is used and never fires: attached, and yet what its processes say goes past us.

That a file is mapped proves no use: half the daemons of a machine map a libssl and never call it. A process
of it that opens a connection to the HTTPS port after the probes were put on, while they have not fired once,
does. Who it may speak through instead is for people to find out; what can be seen from here is said with it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from pathlib import Path

#: A target is given this long to fire, and looked at again this often.
_QUIET_S = 180.0
_LOOK_EVERY_S = 60.0
#: Of a file with many processes, so many are looked at.
_PROCESSES = 16
_HTTPS = "01BB"
_ESTABLISHED = "01"


class UseWatch:
    """`last_fired(index)` is when a target last fired, 0 for never; `monotonic` is in seconds."""

    def __init__(self, proc: Path, last_fired: Callable[[int], int], monotonic: Callable[[], float]) -> None:
        self._proc = proc
        self._last_fired = last_fired
        self._now = monotonic
        self._next_look = 0.0
        # By index: connections that were open when it was first looked at, and so prove nothing.
        self._before: dict[int, frozenset[int]] = {}
        self._tables: dict[str, frozenset[int]] = {}

    def due(self) -> bool:
        """Whether it is time for a look at all targets; if so, it begins."""
        now = self._now()
        if now < self._next_look:
            return False
        self._next_look = now + _LOOK_EVERY_S
        self._tables.clear()
        return True

    def doubt(
        self, index: int, attached_at: float, pids: Collection[int], others: Callable[[int], Collection[str]]
    ) -> str:
        """One line about an attached target that is used and never fired, "" where nothing is wrong.

        `others(pid)` are paths of further files with TLS functions that the process maps.
        """
        if self._last_fired(index):
            self._before.pop(index, None)
            return ""
        connections = {
            connection: pid for pid in sorted(pids)[:_PROCESSES] for connection in self._connections(pid)
        }
        before = self._before.setdefault(index, frozenset(connections))
        quiet_s = self._now() - attached_at
        since = [pid for connection, pid in connections.items() if connection not in before]
        if not since or quiet_s < _QUIET_S:
            return ""
        return (
            f"used and never fired: process {since[0]} has opened a connection to port 443, and no call was"
            f" seen in {quiet_s / 60:.0f} min; {self._likely(since[0], others(since[0]))}"
        )

    def forget(self, index: int) -> None:
        self._before.pop(index, None)

    def _connections(self, pid: int) -> frozenset[int]:
        """Inodes of a process's established connections to the HTTPS port."""
        process = self._proc / str(pid)
        with suppress(OSError):
            # One network namespace has one table, however many processes are in it.
            namespace = str((process / "ns/net").readlink())
            if namespace not in self._tables:
                self._tables[namespace] = frozenset(_to_https(process))
            return self._tables[namespace] & frozenset(_sockets(process))
        return frozenset()

    def _likely(self, pid: int, others: Collection[str]) -> str:
        if others:
            return f"it may speak through {', '.join(sorted(others))}"
        with suppress(OSError):
            if "\nSeccomp:\t0" not in (self._proc / str(pid) / "status").read_text():
                return "it runs under seccomp, which can keep return probes from working"
        return "it may use another TLS library, a build of its own, or no TLS on that port"


def _to_https(process: Path) -> Iterable[int]:
    for table in ("net/tcp", "net/tcp6"):
        with suppress(OSError):
            for line in (process / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _ESTABLISHED and fields[2].endswith(f":{_HTTPS}"):
                    yield int(fields[9])


def _sockets(process: Path) -> Iterable[int]:
    for entry in (process / "fd").iterdir():
        with suppress(OSError):
            target = str(entry.readlink())
            if target.startswith("socket:["):
                yield int(target[8:-1])
