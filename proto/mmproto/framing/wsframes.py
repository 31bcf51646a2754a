"""Headers of WebSocket frames (RFC 6455, section 5.2), and how to find one in the middle of a stream.

What follows missing bytes is searched for the beginning of a message. A place is taken for one where as many
plausible headers as `_CHAIN` follow one another at the distances that they name, or where there is one whole
uncompressed text that looks like a JSON object. A chance hit of either is rarer than one in ten million
places.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MALFORMED: Final = "malformed_websocket"
EXTENSION: Final = "websocket_extension_unsupported"

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
_OPCODES: Final = frozenset((CONTINUATION, TEXT, BINARY, CLOSE, 9, 10))
_MAX_CONTROL: Final = 125
_MASK_SIZE: Final = 4

# How far the search looks from a place on, so that it never holds more.
REACH: Final = 64 * 1024
_CHAIN: Final = 5
_MESSAGE_START: Final = re.compile(rb"[\x01\x02\x41\x42\x81\x82\xc1\xc2]")


class Header(NamedTuple):
    """The header of one frame."""

    flags: int
    size: int  # of the payload
    mask: bytes  # b"" where the payload is not masked
    end: int  # where the payload begins
    is_shortest: bool  # the size is written as it has to be

    @property
    def opcode(self) -> int:
        return self.flags & 0x0F

    @property
    def is_final(self) -> bool:
        return bool(self.flags & 0x80)

    @property
    def is_compressed(self) -> bool:
        return bool(self.flags & 0x40)

    @property
    def is_control(self) -> bool:
        return bool(self.flags & 0x08)

    def wrong(self, *, may_compress: bool) -> str:
        """Why no endpoint would have sent this, or ""."""
        if self.flags & 0x30 or (self.is_compressed and not may_compress):
            return EXTENSION
        if self.opcode not in _OPCODES or self.size >> 63:
            return MALFORMED
        if self.is_control and (not self.is_final or self.size > _MAX_CONTROL or self.is_compressed):
            return MALFORMED
        return MALFORMED if self.is_compressed and self.opcode == CONTINUATION else ""


def header_at(data: bytes, position: int) -> Header | None:
    """The header at `position`, None where more bytes are needed."""
    if len(data) < position + 2:
        return None
    flags, size = data[position], data[position + 1] & 0x7F
    end = position + 2
    width = {126: 2, 127: 8}.get(size, 0)
    mask_size = _MASK_SIZE if data[position + 1] & 0x80 else 0
    if len(data) < end + width + mask_size:
        return None
    if width:
        size = int.from_bytes(data[end : end + width], "big")
        end += width
    is_shortest = not width or size > (0xFFFF if width == 8 else _MAX_CONTROL)
    return Header(flags, size, data[end : end + mask_size], end + mask_size, is_shortest)


def unmasked(data: bytes, mask: bytes, phase: int) -> bytes:
    """`data` without its mask; `phase` is where in the payload it begins."""
    if not mask:
        return data
    size = len(data)
    start = phase % _MASK_SIZE
    pattern = (mask * (size // _MASK_SIZE + 2))[start : start + size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(pattern, "little")).to_bytes(size, "little")


def find_message(
    data: bytes, position: int, *, is_masked: bool | None, may_compress: bool
) -> tuple[int, bool]:
    """(where a message begins, True), or (from where on bytes have to be kept to go on searching, False)."""
    while (match := _MESSAGE_START.search(data, position)) is not None:
        position = match.start()
        found = _is_message(data, position, is_masked, may_compress)
        if found is None:
            return position, False
        if found:
            return position, True
        position += 1
    return len(data), False


def _is_message(data: bytes, start: int, is_masked: bool | None, may_compress: bool) -> bool | None:
    """Whether a message begins at `start`; None where more bytes are needed to tell."""
    position, inside = start, False  # inside: of a fragmented message
    for index in range(_CHAIN):
        header = header_at(data, position)
        if header is None or position - start > REACH:
            return None if position - start <= REACH else False
        if header.wrong(may_compress=may_compress) or not _may_follow(header, inside, is_masked):
            return False
        if not header.is_control:
            inside = not header.is_final
        position = header.end + header.size
        if index == 0 and _may_be_object(header) and position - start <= REACH:
            if len(data) < position:
                return None
            if _is_object(data, header):
                return True
    return True


def _may_follow(header: Header, inside: bool, is_masked: bool | None) -> bool:
    """Whether an endpoint would send this frame next."""
    if not header.is_shortest or is_masked not in (None, bool(header.mask)):
        return False
    return header.is_control or (header.opcode == CONTINUATION) == inside


def _may_be_object(header: Header) -> bool:
    return header.opcode == TEXT and header.is_final and not header.is_compressed and header.size >= 2


def _is_object(data: bytes, header: Header) -> bool:
    """Whether a whole payload is UTF-8 and a JSON object by its first and last byte."""
    payload = unmasked(data[header.end : header.end + header.size], header.mask, 0)
    if not (payload.startswith(b"{") and payload.endswith(b"}")):
        return False
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
