"""Paths of cgroups by their id, for processes that are gone before /proc tells theirs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
# A walk takes a millisecond for a few hundred cgroups; a burst of new ones shall not make it a busy loop.
_WALK_AT_MOST_EVERY_S = 1.0


class CgroupPaths:
    """In the unified hierarchy the id of a cgroup is the inode number of its folder."""

    def __init__(self, root: Path = CGROUPS, clock: Callable[[], float] = time.monotonic) -> None:
        self._root = root
        self._clock = clock
        self._paths: dict[int, str] = {}
        self._walked = float("-inf")

    def path(self, cgroup: int) -> str:
        """The path below the root, "" for the root itself, and for what is not or no longer there."""
        if cgroup not in self._paths and self._clock() - self._walked >= _WALK_AT_MOST_EVERY_S:
            self._walk()
        return self._paths.get(cgroup, "")

    def _walk(self) -> None:
        self._walked = self._clock()
        self._paths = {}
        # Beside the old layout, whose numbers are others, it has a folder of its own.
        root = next((each for each in (self._root, self._root / "unified") if _is_unified(each)), None)
        for folder, _folders, _files in os.walk(root) if root else ():
            try:
                path = "/" + os.path.relpath(folder, root)
                self._paths[Path(folder).stat().st_ino] = "" if path == "/." else path
            except OSError:
                continue  # gone meanwhile


def _is_unified(root: Path) -> bool:
    return (root / "cgroup.procs").exists() and (root / "cgroup.controllers").exists()
