"""What a target is, and the pieces that targets are made of."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Enough for every structure that has a meaning; a larger input is only slower.
MAX_INPUT = 8 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """`run` raises where an invariant does not hold.

    `seeds` are inputs that reach far into the code, `words` are what inputs may be made of besides.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], Sequence[bytes]]
    words: Callable[[], Sequence[bytes]] = tuple


def rng_of(data: bytes) -> random.Random:
    """Chance that is the same each time for the same input, and another for nearly the same."""
    return random.Random(zlib.crc32(data))


def cuts(data: bytes, rng: random.Random) -> Iterator[bytes]:
    """`data` in pieces of random sizes, down to single bytes where it is short."""
    largest = rng.choice((1, 3, 20, 300, 5000) if len(data) < 1000 else (20, 300, 5000))
    position = 0
    while position < len(data):
        size = rng.randint(1, largest)
        yield data[position : position + size]
        position += size


def held(reader: Any, depth: int = 4) -> int:
    """How many bytes the attributes of an object keep, those of the objects in them included."""
    if isinstance(reader, bytes | bytearray | str):
        return len(reader)
    if depth == 0 or callable(reader):
        return 0
    if isinstance(reader, Mapping):
        return sum(held(item, depth - 1) for pair in reader.items() for item in pair)
    if isinstance(reader, list | tuple | set):
        return sum(held(item, depth - 1) for item in reader)
    names = [name for kind in type(reader).__mro__ for name in getattr(kind, "__slots__", ())]
    values = [getattr(reader, name, None) for name in names] + list(getattr(reader, "__dict__", {}).values())
    return sum(held(value, depth - 1) for value in values)
