"""Targets: both directions of connections, and HTTP of one direction alone.

A conversation is a list of steps `[kind u8][size u16][size bytes]`: bit 0 of the kind is the direction, and
where its other bits are all set, `size` bytes are missing and none follow.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mmproto.framing import http1
from mmproto.framing.http2 import StreamReader
from mmproto.framing.http2_frames import Piece
from mmproto.reader import ConnectionReader, Direction
from tests.fuzz.outcomes import RULES, check
from tests.fuzz.target import Target, cuts, rng_of
from tests.proto import test_fuzz, test_reader_http2, test_reader_upgrade
from tests.proto.http2_pair import Pair

Step = tuple[Direction, bytes | int]
_DIRECTIONS = (Direction.WRITE, Direction.READ)
_GAP = 0xFE
_MAX_GAP = 70_000


def steps_of(data: bytes) -> Iterator[Step]:
    """The steps that an input stands for; an `int` is a gap of so many bytes."""
    position = 0
    while position + 3 <= len(data):
        kind, size = data[position], int.from_bytes(data[position + 1 : position + 3], "big")
        direction = _DIRECTIONS[kind & 1]
        position += 3
        if kind & _GAP == _GAP:
            yield direction, size + 1
        else:
            yield direction, data[position : position + size]
            position += size


def input_of(steps: Iterable[tuple[Direction, bytes]], options: int = 0) -> bytes:
    """The input that stands for these steps."""
    out = bytes([options])
    for direction, data in steps:
        for start in range(0, len(data), 60_000):
            piece = data[start : start + 60_000]
            out += bytes([_DIRECTIONS.index(direction)]) + len(piece).to_bytes(2, "big") + piece
    return out


def run(data: bytes) -> None:
    """Everything that was begun has one sound outcome, whatever the bytes and however they come."""
    if not data:
        return
    options, steps = data[0], list(steps_of(data[1:]))
    rng = rng_of(data)
    assert outcomes(options, split(steps, rng)) == outcomes(options, steps)


def split(steps: Iterable[Step], rng: random.Random) -> Iterator[Step]:
    for direction, step in steps:
        if isinstance(step, int):
            yield direction, step
        else:
            yield from ((direction, piece) for piece in cuts(step, rng))


def outcomes(options: int, steps: Iterable[Step]) -> list[str]:
    sni = "api.openai.com" if options & 2 else None
    reader = ConnectionReader(RULES, "c", sni, late=bool(options & 1))
    found = []
    for direction, step in steps:
        if isinstance(step, int):
            found += reader.gap(direction, step, 1)
        else:
            found += reader.feed(direction, step, 1)
    found += reader.close(2)
    assert reader.open_exchanges == 0
    return check(found)


def parts_of(reader: Any, steps: Iterable[bytes | int]) -> list[Any]:
    """The parts of one direction, slices of bodies joined."""
    parts: list[Any] = []
    for step in steps:
        for part in reader.gap(step) if isinstance(step, int) else reader.feed(step):
            last = parts.pop() if parts else None
            parts += [part] if last is None else _joined(last, part)
    return [*parts, *reader.close()]


def _joined(last: Any, part: Any) -> list[Any]:
    if isinstance(last, bytes) and isinstance(part, bytes):
        return [last + part]
    if not (isinstance(last, Piece) and isinstance(part, Piece)) or last.stream != part.stream:
        return [last, part]
    if last.end or part.missing:
        return [last, part]
    return [Piece(part.stream, last.data + part.data, part.end, last.missing)]


def one_direction(new: Callable[[int], Any]) -> Callable[[bytes], None]:
    """Any split gives the same parts, with bytes missing and without."""

    def run_direction(data: bytes) -> None:
        if len(data) < 3:
            return
        option, gap, body = data[0], int.from_bytes(data[1:3], "big") % _MAX_GAP, data[3:]
        rng = rng_of(data)
        assert parts_of(new(option), cuts(body, rng)) == parts_of(new(option), [body])
        at = rng.randint(0, len(body))
        holed: list[bytes | int] = [body[:at], gap + 1, body[at:]]
        again: list[bytes | int] = [*cuts(body[:at], rng), gap + 1, *cuts(body[at:], rng)]
        assert parts_of(new(option), again) == parts_of(new(option), holed)

    return run_direction


def new_http1(option: int) -> http1.MessageReader:
    methods = (None, lambda: "POST", lambda: "HEAD", lambda: None)
    return http1.MessageReader(methods[option >> 1 & 3], joined_late=bool(option & 1))


def new_http2(option: int) -> StreamReader:
    return StreamReader(preface=bool(option & 1), joined_late=bool(option & 2))


def _conversations() -> list[bytes]:
    seeds = [
        input_of([(Direction.WRITE, sent), (Direction.READ, received)] * times, times - 1)
        for sent, received in test_fuzz.CONVERSATIONS
        for times in (1, 2)
    ]
    seeds += [input_of(test_reader_http2.steps_of(name)) for name in test_reader_http2.CONVERSATIONS]
    late = test_reader_http2.steps_of("one call")[2:] if "one call" in test_reader_http2.CONVERSATIONS else []
    seeds += [input_of(late, 1), input_of(test_reader_upgrade.OVER_HTTP1)]
    return [*seeds, input_of(test_reader_upgrade.over_http2())]


def _http1() -> list[bytes]:
    sides = [(0, sent) for sent, _ in test_fuzz.CONVERSATIONS] + [
        (2, got) for _, got in test_fuzz.CONVERSATIONS
    ]
    return [bytes([option, 0, 9]) + data for option, data in sides]


def _http2() -> list[bytes]:
    seeds = []
    for make, _ in test_reader_http2.CONVERSATIONS.values():
        pair = Pair()
        make(pair)
        seeds.append(b"\1\0\x09" + pair.bytes_of(Direction.WRITE))
        seeds.append(b"\0\0\x09" + pair.bytes_of(Direction.READ))
    return seeds


TARGETS = {
    "conversation": Target(run, _conversations),
    "http1": Target(one_direction(new_http1), _http1),
    "http2": Target(one_direction(new_http2), _http2),
}
