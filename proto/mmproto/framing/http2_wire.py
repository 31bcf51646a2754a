"""What frames of HTTP/2 look like (RFC 9113, sections 4 and 6): data, and the reading of a frame's header."""

from __future__ import annotations

from typing import Final, NamedTuple

DATA: Final = 0
HEADERS: Final = 1
PRIORITY: Final = 2
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x01
ACK: Final = 0x01
END_HEADERS: Final = 0x04
PADDED: Final = 0x08
PRIORITISED: Final = 0x20

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_SIZE: Final = 9
# The largest payload that every end must take. More has to be asked for, and for DATA it is.
USUAL_MAX: Final = 16 * 1024


class Rule(NamedTuple):
    """What RFC 9113 says of the header of a type of frame."""

    flags: int  # those that are defined
    on_stream: bool | None  # belongs to a stream; to the connection; None: to either
    least: int = 0
    most: int = (1 << 24) - 1
    multiple: int = 1


RULES: Final = (
    Rule(END_STREAM | PADDED, True),
    Rule(END_STREAM | END_HEADERS | PADDED | PRIORITISED, True),
    Rule(0, True, 5, 5),
    Rule(0, True, 4, 4),
    Rule(ACK, False, multiple=6),
    Rule(END_HEADERS | PADDED, True, 4),
    Rule(ACK, False, 8, 8),
    Rule(0, False, 8),
    Rule(0, None, 4, 4),
    Rule(END_HEADERS, True),
)


class FrameHeader(NamedTuple):
    length: int
    kind: int
    flags: int
    stream: int


def frame_header(data: bytes, at: int) -> FrameHeader:
    """The header at `at`, where nine bytes stand."""
    number = int.from_bytes(data[at : at + HEADER_SIZE], "big")
    return FrameHeader(number >> 48, number >> 40 & 0xFF, number >> 32 & 0xFF, number & 0x7FFFFFFF)


def is_allowed(header: FrameHeader) -> bool:
    """Whether the protocol allows a frame with this header; of an unknown type, if it is of a usual size."""
    length, kind, _, stream = header
    if kind >= len(RULES):
        return length <= USUAL_MAX
    rule = RULES[kind]
    if rule.on_stream is not None and rule.on_stream != (stream > 0):
        return False
    return rule.least <= length <= rule.most and length % rule.multiple == 0


def fragment(kind: int, flags: int, payload: bytes) -> bytes | None:
    """The part of a header block in a HEADERS or PUSH_PROMISE frame, None where there is none."""
    begin, end = 0, len(payload)
    if flags & PADDED:
        if not payload:
            return None
        begin, end = 1, end - payload[0]
    if kind == PUSH_PROMISE:
        begin += 4
    elif flags & PRIORITISED:
        begin += 5
    return payload[begin:end] if begin <= end else None
