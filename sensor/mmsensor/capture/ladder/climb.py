"""The ladder behind one door: what is known of a file at once, and what a search takes time for."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

from mmsensor.capture.functions import NotCovered
from mmsensor.capture.ladder import names, table
from mmsensor.capture.ladder.cache import FindingCache
from mmsensor.capture.ladder.elf import ElfFile
from mmsensor.capture.ladder.search import FAILED, search
from mmsensor.capture.ladder.table import Finding


@dataclass(frozen=True, slots=True)
class Search:
    """The file is worth a search with these slow strategies."""

    strategies: tuple[str, ...]


class Ladder:
    """`remembered` is the file in which findings outlive the daemon, None for none. Safe to use from several
    threads."""

    def __init__(self, remembered: Path | None) -> None:
        self._cache = FindingCache(remembered)
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def look(self, file: ElfFile, name: str) -> Finding | Search:
        """In milliseconds; `name` is the file's own. Raises NotElf, OSError."""
        finding = table.climb(file)
        if finding is not None:
            return finding
        with self._lock:
            known = self._cache.get(file)
        if known is not None:
            return known[0] or names.promised(name)
        strategies = table.worth_a_search(file)
        return Search(strategies) if strategies else names.promised(name)

    def search(self, file: ElfFile, name: str, strategies: tuple[str, ...]) -> Finding:
        """In seconds, in a child process. Raises OSError."""
        finding = search(file, strategies, self._stop)
        if not (isinstance(finding, NotCovered) and finding.reason == FAILED):
            with self._lock:
                self._cache.put(file, finding)
        return finding or names.promised(name)

    def close(self) -> None:
        """Ends a search that is under way."""
        self._stop.set()
