"""How a workload is driven: it says when it stands ready, runs when told, and reports what it did.

The test can so allow its pid before the first byte, and look at the kernel before the process goes away.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

#: The pattern begins anew here; worked out once, since emulated processors take seconds for it.
_PERIOD = bytes((at * 7 + (at >> 8) * 13) & 255 for at in range(65536))


def pattern(size: int, start: int = 0) -> bytes:
    """`size` bytes that depend on their position, so that a shifted or doubled piece shows."""
    first = start % len(_PERIOD)
    return (_PERIOD * ((first + size) // len(_PERIOD) + 1))[first : first + size]


class Side:
    """What one end of a connection wrote and read, by its SSL object."""

    def __init__(self, ssl: int = 0) -> None:
        self.ssl = ssl
        self.forget()

    def forget(self) -> None:
        """What follows is another connection."""
        self.written_hash = hashlib.sha256()
        self.read_hash = hashlib.sha256()
        self.written_size = 0
        self.read_size = 0

    def wrote(self, data: bytes) -> None:
        self.written_hash.update(data)
        self.written_size += len(data)

    def got(self, data: bytes) -> None:
        self.read_hash.update(data)
        self.read_size += len(data)

    def report(self) -> dict[str, Any]:
        return {
            "ssl": self.ssl,
            "write": [self.written_size, self.written_hash.hexdigest()],
            "read": [self.read_size, self.read_hash.hexdigest()],
        }


def wait_for_go(word: str = "ready") -> None:
    print(word, flush=True)
    sys.stdin.readline()


def report(**facts: Any) -> None:
    """Prints the facts and stays until the test has seen enough."""
    print(json.dumps(facts), flush=True)
    sys.stdin.readline()
