"""Cuts the bytes of a connection into pieces and has them read, as the sensor would read them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import Final

from mmproto.outcome import Outcome, ReadingRules
from mmproto.reader import ConnectionReader, Direction
from mmproto.score.http1 import Turn

_START_NS: Final = 1_700_000_000_000_000_000
_STEP_NS: Final = 1_000_000
# A frame of HTTP/2 may end with this many bytes that say nothing.
_MOST_PADDING: Final = 255


class Cut(Enum):
    """Where the bytes of a connection are cut into the pieces that a process moved at once."""

    WHOLE = auto()  # each turn in one piece
    RANDOM = auto()
    BYTES = auto()  # one at a time
    MIXED = auto()  # at random, and the answer begins while the request's body is still being seen


def read(turns: Sequence[Turn], cut: Cut, rng: random.Random) -> list[Outcome]:
    """All outcomes of a connection, which is closed at the end."""
    reader = ConnectionReader(ReadingRules(), "score")
    outcomes: list[Outcome] = []
    now = _START_NS
    for direction, piece in _pieces(turns, cut, rng):
        now += _STEP_NS
        outcomes += reader.feed(direction, piece, now)
    outcomes += reader.close(now)
    return outcomes


def _pieces(turns: Sequence[Turn], cut: Cut, rng: random.Random) -> Iterator[Turn]:
    turns = [turn for turn in turns if turn[1]]
    if cut is Cut.MIXED:
        yield from _mixed(turns, rng)
        return
    for direction, data in turns:
        for piece in _cut(data, cut, rng):
            yield direction, piece


def _cut(data: bytes, cut: Cut, rng: random.Random) -> Iterator[bytes]:
    position = 0
    while position < len(data):
        if cut is Cut.WHOLE:
            size = len(data)
        elif cut is Cut.BYTES:
            size = 1
        else:
            size = rng.choice((rng.randrange(1, 17), rng.randrange(17, 1024), rng.randrange(1024, 20_000)))
        yield data[position : position + size]
        position += size


def _mixed(turns: Sequence[Turn], rng: random.Random) -> Iterator[Turn]:
    """Both directions at once, as two threads of a process have them seen.

    The first head is out before an answer comes, and the request is out before the answer is whole. What is
    said after the answer stays there.
    """
    answers = [index for index, (side, _) in enumerate(turns) if side is Direction.READ]
    first, end = (answers[0], answers[-1] + 1) if answers else (len(turns), len(turns))
    head = first - 1 if first > 1 else first  # a request without a body is one piece with its head
    yield from _each(turns[:head], rng)
    asked = list(_each(turns[head:first], rng))
    answered = list(_each(turns[first:end], rng))
    last: list[Turn] = []
    while answered and sum(len(data) for _, data in last) <= _MOST_PADDING:
        last.insert(0, answered.pop())
    while asked or answered:
        side = asked if asked and (not answered or rng.random() < 0.5) else answered
        yield side.pop(0)
    yield from last
    yield from _each(turns[end:], rng)


def _each(turns: Sequence[Turn], rng: random.Random) -> Iterator[Turn]:
    for direction, data in turns:
        for piece in _cut(data, Cut.RANDOM, rng):
            yield direction, piece
