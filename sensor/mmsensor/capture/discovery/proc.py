"""What /proc says about processes: who lives, since when, and which files they run code from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_EXECUTABLE = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) ..x. [0-9a-f]+ ([0-9a-f]+):([0-9a-f]+) ([1-9]\d*) +(.*)$", re.MULTILINE
)
_TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


class FileMapping(NamedTuple):
    """A file mapped executable, as a process sees it. `generation` tells apart two files that had the same
    inode number one after the other; 0 where it is not known."""

    start: int
    end: int
    major: int
    minor: int
    inode: int
    path: str
    generation: int = 0


def pids(proc: Path) -> Iterator[int]:
    for entry in proc.iterdir():
        if entry.name.isdigit():
            yield int(entry.name)


def executable_mappings(proc: Path, pid: int) -> list[FileMapping]:
    """Empty for kernel threads and for processes that are gone or that we may not look into."""
    try:
        raw = (proc / str(pid) / "maps").read_bytes()
    except OSError:
        return []
    return [
        FileMapping(
            int(start, 16), int(end, 16), int(major, 16), int(minor, 16), int(inode), os.fsdecode(path)
        )
        for start, end, major, minor, inode, path in _EXECUTABLE.findall(raw)
    ]


def is_alive(proc: Path, pid: int, started_ns: int) -> bool:
    """Whether this very process, and not a later one with its pid, is running."""
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
    except OSError:
        return False
    # The command, in parentheses, may contain anything; field 22 is the 20th after it.
    started_ticks = int(stat.rpartition(b")")[2].split()[19])
    return started_ticks == started_ns // _TICK_NS
