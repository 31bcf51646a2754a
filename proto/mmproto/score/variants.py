"""In which ways a record is sent: framing, content coding, and where the bytes are cut."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from mmproto.score import coding as codings
from mmproto.score import grpc, http1, http2, websocket
from mmproto.score.http1 import Turn
from mmproto.score.record import Record
from mmproto.score.replay import Cut

FRAMINGS: Final = ("length", "chunked", "close", "h2", "websocket", "grpc")
# Names that stand for several.
GROUPS: Final = {
    "h1": ("length", "chunked", "close", "websocket"),
    "h2": ("h2", "grpc"),
}
_HTTP: Final = FRAMINGS[:4]
# One byte at a time takes microseconds a byte.
_SMALL: Final = 6 * 1024


@dataclass(frozen=True, slots=True)
class Variant:
    """One way of sending."""

    framing: str
    coding: str
    cut: Cut

    def __str__(self) -> str:
        return f"{self.framing}/{self.coding}/{self.cut.name.lower()}"

    def write(self, record: Record, seed: int) -> tuple[list[Turn], random.Random]:
        """The bytes of the connection, and the chance that goes on to cut them."""
        rng = random.Random(f"{seed}:{record.name}:{self}")  # noqa: S311 - reproducible on purpose
        if self.framing == "websocket":
            return websocket.write(record, self.coding, rng), rng
        if self.framing == "grpc":
            return grpc.write(record, self.coding, rng), rng
        if self.framing == "h2":
            return http2.write(record, self.coding, rng), rng
        return http1.write(record, self.framing, self.coding, rng), rng


def expand(names: Iterable[str]) -> frozenset[str]:
    """The framings that `names` of framings and of groups stand for."""
    return frozenset(framing for name in names for framing in GROUPS.get(name, (name,)))


def variants_of(record: Record, framings: frozenset[str], names: frozenset[str]) -> list[Variant]:
    """The ways to send `record` in `framings` and the content codings `names`, the plainest first."""
    return [way for way in _all(record) if way.framing in framings and way.coding in names]


def _all(record: Record) -> Iterator[Variant]:
    small = len(record.request_body) + len(record.response_body) <= _SMALL
    if record.is_grpc:
        yield from _each("grpc", ("identity", "gzip"), small=small)
    elif record.is_websocket:
        small = sum(len(message.data) for message in record.messages) <= _SMALL
        yield from _each("websocket", ("identity", "deflate"), small=small)
    else:
        for framing in _HTTP:
            # Where only the close ends a body, one that was cut off cannot be told from a whole one.
            if not (record.aborted and framing == "close"):
                yield from _each(
                    framing, codings.CODINGS if record.response_body else ("identity",), small=small
                )


def _each(framing: str, names: Iterable[str], *, small: bool) -> Iterator[Variant]:
    for index, name in enumerate(names):
        if index == 0:
            yield Variant(framing, name, Cut.WHOLE)
            if small:
                yield Variant(framing, name, Cut.BYTES)
            if framing in _HTTP:
                yield Variant(framing, name, Cut.MIXED)
        yield Variant(framing, name, Cut.RANDOM)
