"""Drives a framing with bytes that are cut anywhere, and puts the pieces of large events together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from hypothesis import strategies as st

from mmproto.framing.events import Event, EventFraming

# Sizes of pieces, used one after the other, the last of them for the rest.
SIZES = st.lists(st.integers(1, 40) | st.integers(1, 90_000), min_size=1, max_size=12)
WHOLE = [1 << 40]


class Read(NamedTuple):
    """What a framing made of a body: whole events as (name, data), what is left of one, its reasons."""

    events: list[tuple[str, bytes]]
    unfinished: bytes = b""
    problem: str = ""
    missing: str = ""


def cut(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """`data` in pieces of `sizes`."""
    position, size = 0, 1
    given = iter(sizes)
    while position < len(data):
        size = next(given, size)
        yield data[position : position + size]
        position += size


def joined(events: Iterable[Event]) -> tuple[list[tuple[str, bytes]], bytes]:
    """The events with the pieces of large ones joined, and the pieces of one that has no end."""
    whole: list[tuple[str, bytes]] = []
    held: list[bytes] = []
    for name, piece, last in events:
        held.append(piece)
        if last:
            whole.append((name, b"".join(held)))
            held = []
    return whole, b"".join(held)


def read(new: Callable[[], EventFraming], *bodies: bytes, sizes: Iterable[int] = WHOLE) -> Read:
    """What comes out of the bodies; between two of them bytes are missing."""
    framing = new()
    sizes = list(sizes)
    events: list[Event] = []
    for index, body in enumerate(bodies):
        if index:
            framing.lose()
        for piece in cut(body, sizes):
            events += framing.feed(piece)
    events += framing.finish()
    return Read(*joined(events), framing.problem, framing.missing)


def data_of(result: Read) -> list[bytes]:
    """The data of whole events, where nothing else came and nothing was wrong."""
    assert result[1:] == (b"", "", ""), result[1:]
    return [data for _, data in result.events]
