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
# Bytes can be made up that look like headers at every place, and reading them all would take for ever.
_MAX_BLOCKS_READ: Final = 256
_STATUS: Final = re.compile(r"[1-5]\d\d")
_METHOD: Final = re.compile(r"[A-Z]{3,10}")


def _flag_bytes(mask: int) -> bytes:
    return b"".join(b"\\x%02x" % flags for flags in range(256) if not flags & ~mask)


def _header_pattern(kind: int, rule: wire.Rule) -> bytes:
    """What a header of this type may look like behind its first byte, as far as bytes can say it."""
    length = rb"[\x00-\x40]."
    if rule.least == rule.most:
        length = rb"\x00\x%02x" % rule.least
    elif rule.on_stream:
        length = rb"(?!\x00{2})" + length
    stream = {True: rb"(?!\x00{4})[\x00-\x7f]", False: rb"\x00{4}", None: rb"[\x00-\x7f]"}[rule.on_stream]
    return b"%s\\x%02x[%s]%s" % (length, kind, _flag_bytes(rule.flags), stream)


# A length of less than 64 KiB begins with a zero, and that is quick to look for. What follows is a lookahead:
# places may overlap. An empty frame of DATA is sent to end its stream.
_PLACE: Final = re.compile(
    rb"\x00(?=%s|\x00{3}[\x01\x09](?!\x00{4})[\x00-\x7f])"
    % b"|".join(_header_pattern(kind, rule) for kind, rule in enumerate(wire.RULES)),
    re.DOTALL,
)


class Found(NamedTuple):
    """A frame begins `at`; or, with `need`, it may: that is known when so many bytes stand from there on."""

    at: int
    need: int = 0


class FrameSearch:
    """One search, until a frame is found."""

    def __init__(self) -> None:
        self._blocks_read = 0

    def find(self, data: bytes, start: int, *, final: bool = False) -> Found:
        """The first frame in `data` from `start` on. What comes before `at` can be let go.

        `final`: no more bytes come. Then two frames are enough, if the last one ends where the bytes do.
        """
        # Of the last eight bytes it cannot be said yet that no header begins there.
        tail = len(data) - wire.HEADER_SIZE + 1
        while (place := _PLACE.search(data, start)) is not None and place.start() < tail:
            start = place.start()
            need = self._judge(data, start, final=final)
            if need == 0:
                return Found(start)
            if need > 0 and not final:
                return Found(start, need)
            start += 1
        return Found(max(start, tail), wire.HEADER_SIZE)

    def _judge(self, data: bytes, at: int, *, final: bool) -> int:
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
                if self._opens_message(header.flags, data[body:position]):
                    break
        return 0

    def _opens_message(self, flags: int, payload: bytes) -> bool:
        if self._blocks_read == _MAX_BLOCKS_READ:
            return False
        self._blocks_read += 1
        block = wire.fragment(wire.HEADERS, flags, payload)
        fields = BlockReader(joined_late=True).read(block) if block else None
        if fields is None or not fields.headers or fields.headers[0][0][0] != ":":
            return False
        found = dict(fields.headers)
        return bool(
            _STATUS.fullmatch(found.get(":status", "")) or _METHOD.fullmatch(found.get(":method", ""))
        )


def _is_plausible(header: wire.FrameHeader, most: int) -> bool:
    length, kind, flags, _ = header
    if kind >= len(wire.RULES) or not wire.is_allowed(header) or flags & ~wire.RULES[kind].flags:
        return False
    if kind == wire.SETTINGS:
        return length <= most and not (length and flags & wire.ACK)
    # A frame without bytes is allowed; one that ends nothing either is not sent.
    return 0 < length <= most or (kind == wire.DATA and bool(flags & wire.END_STREAM))
