"""Finding a frame of HTTP/2 among bytes of which the beginning is missing.

Frames have no mark to search for, only a header of nine bytes that is rarely met elsewhere: a small length, a
known type, defined flags, a stream where the type has one. In text it cannot stand at all, for its first byte
is zero. In compressed bytes it stands by chance once in some millions of places, and two or three that follow
each other by their lengths do not. So a place is taken for a frame where

- three headers follow each other by their lengths, or
- before that, a HEADERS frame holds a whole header block that opens with a message's method or status.

What is found depends on the bytes alone, not on how they were split: the first place that holds is taken, and
while it may hold the next one is not looked at. At most `MAX_HELD` bytes are waited for.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from mmproto.framing import http2_wire as wire
from mmproto.framing.hpack_block import BlockReader

_CHAIN: Final = 3
MAX_HELD: Final = (_CHAIN - 1) * (wire.HEADER_SIZE + wire.USUAL_MAX) + wire.HEADER_SIZE
# The last frame of a chain is not waited for: it may be one of those that were asked for.
_LAST_MAX: Final = 1 << 20
_STATUS: Final = re.compile(r"[1-5]\d\d")
_METHOD: Final = re.compile(r"[A-Z]{3,10}")


def _flag_bytes(mask: int) -> bytes:
    return b"".join(b"\\x%02x" % flags for flags in range(256) if not flags & ~mask)


# Length up to 16639, type, flags, and a stream whose first bit is not set. A lookahead: places may overlap.
_PLACE: Final = re.compile(
    rb"(?=\x00[\x00-\x40].(?:%s)[\x00-\x7f])"
    % b"|".join(b"\\x%02x[%s]" % (kind, _flag_bytes(rule.flags)) for kind, rule in enumerate(wire.RULES)),
    re.DOTALL,
)


class Found(NamedTuple):
    """A frame begins `at`; or, with `need`, it may: that is known when so many bytes stand from there on."""

    at: int
    need: int = 0


def find_frame(data: bytes, start: int, *, final: bool = False) -> Found:
    """The first frame in `data` from `start` on. What comes before `at` can be let go.

    `final`: no more bytes come. Then two frames are enough, if the last one ends where the bytes do.
    """
    while (place := _PLACE.search(data, start)) is not None:
        start = place.start()
        need = _judge(data, start, final=final)
        if need == 0:
            return Found(start)
        if need > 0 and not final:
            return Found(start, need)
        start += 1
    at = max(start, len(data) - wire.HEADER_SIZE + 1)
    return Found(at, wire.HEADER_SIZE)


def _judge(data: bytes, at: int, *, final: bool) -> int:
    """0 where a frame begins, -1 where none does, else the bytes from `at` on that it takes to know."""
    position, size = at, len(data)
    for number in range(1, _CHAIN + 1):
        if final and number > 2 and position == size:
            break
        body = position + wire.HEADER_SIZE
        if body > size:
            return body - at
        header = wire.frame_header(data, position)
        last = number == _CHAIN
        if data[position + 5] & 0x80 or not _is_plausible(header, _LAST_MAX if last else wire.USUAL_MAX):
            return -1
        position = body + header.length
        if not last and header.kind == wire.HEADERS and header.flags & wire.END_HEADERS:
            if position > size:
                return position - at
            if _opens_message(header.flags, data[body:position]):
                break
    return 0


def _is_plausible(header: wire.FrameHeader, most: int) -> bool:
    length, kind, flags, _ = header
    if kind >= len(wire.RULES) or not wire.is_allowed(header) or flags & ~wire.RULES[kind].flags:
        return False
    if kind == wire.SETTINGS:
        return length <= most and not (length and flags & wire.ACK)
    # A frame without bytes is allowed; one that ends nothing either is not sent.
    return 0 < length <= most or (kind == wire.DATA and bool(flags & wire.END_STREAM))


def _opens_message(flags: int, payload: bytes) -> bool:
    block = wire.fragment(wire.HEADERS, flags, payload)
    fields = BlockReader(joined_late=True).read(block) if block else None
    if fields is None:
        return False
    found = dict(fields.headers)
    if not all(name.startswith(":") for name, _ in fields.headers[:1]):
        return False
    return bool(_STATUS.fullmatch(found.get(":status", "")) or _METHOD.fullmatch(found.get(":method", "")))
