"""Header blocks of HTTP/2 (HPACK, RFC 7541) of one direction, read by a bystander.

The static table and the Huffman code are the `hpack` library's. Its decoder is not: it gives up a block at
the first index that it does not know, and a connection that was joined late, or that has a hole, is full of
them. Here such a field is counted as unresolved, and the others of its block are used.

What makes that safe: dynamic entries are numbered from the newest. Whoever has seen every insertion since
some moment knows the entries since then by their right numbers, and everything beyond is unknown, never
wrong. For the same reason an observer may keep more entries than the encoder does, and need not know when a
limit changed: an encoder never names what it has evicted. Only a hole that may have swallowed insertions
spoils the numbers: then `forget` leaves nothing to be named.

Bounds: a table holds `MAX_TABLE` bytes as HPACK counts them, a block yields at most `MAX_FIELDS` of them.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from hpack.huffman_table import HUFFMAN_COMPLETE, HUFFMAN_EMIT_SYMBOL, HUFFMAN_FAIL, HUFFMAN_TABLE
from hpack.table import HeaderTable

from mmproto.framing.http1 import Headers

MAX_TABLE: Final = 64 * 1024
# A block of one-byte indices can name a large entry ten thousand times.
MAX_FIELDS: Final = 256 * 1024
_DEFAULT_TABLE: Final = 4096
_OVERHEAD: Final = 32  # of an entry, by definition
_STATIC: Final = tuple(
    (name.decode("ascii"), value.decode("ascii")) for name, value in HeaderTable.STATIC_TABLE
)
# No table within the bound has more entries: what is named beyond is damage, or no header block.
_MAX_INDEX: Final = len(_STATIC) + MAX_TABLE // _OVERHEAD
# A name that is not known. A real one cannot be empty.
_UNKNOWN: Final = ("", "")
_MAX_INTEGER: Final = 1 << 32


class Fields(NamedTuple):
    """The fields of a block that could be read, pseudo-headers included, and how many could not."""

    headers: Headers
    unresolved: int


class _BadBlockError(Exception):
    """The bytes are no header block."""


class BlockReader:
    """The header blocks of one direction, in their order.

    `joined_late`: earlier blocks were not seen, and with them the encoder's limit.
    """

    def __init__(self, *, joined_late: bool = False) -> None:
        self._entries: deque[tuple[str, str]] = deque()  # the newest first
        self._size = 0
        self._limit = MAX_TABLE if joined_late else _DEFAULT_TABLE

    def read(self, block: bytes) -> Fields | None:
        """The fields of the next block; None where it is none, and then the table is forgotten."""
        try:
            return self._read(block)
        except (_BadBlockError, IndexError):
            self.forget()
            return None

    def forget(self) -> None:
        """Blocks may be missing here: no entry of the table can be named any more."""
        self._entries.clear()
        self._size = 0
        self._limit = MAX_TABLE

    def allow(self, size: int) -> None:
        """The other end lets the encoder use a table of `size` bytes (SETTINGS_HEADER_TABLE_SIZE)."""
        self._limit = max(self._limit, min(size, MAX_TABLE))

    def _read(self, block: bytes) -> Fields:
        headers: list[tuple[str, str]] = []
        unresolved, total, position, end = 0, 0, 0, len(block)
        while position < end:
            first = block[position]
            if first >= 0x80:
                index, position = _integer(block, position, 0x7F)
                field = self._entry(index)
            elif first >= 0x40:
                field, position = self._literal(block, position, 0x3F)
                self._insert(field)
            elif first >= 0x20:
                size, position = _integer(block, position, 0x1F)
                self._limit = min(size, MAX_TABLE)
                self._evict()
                continue
            else:
                field, position = self._literal(block, position, 0x0F)
            if not field[0]:
                unresolved += 1
                continue
            total += len(field[0]) + len(field[1])
            if total > MAX_FIELDS:
                raise _BadBlockError
            headers.append(field)
        return Fields(tuple(headers), unresolved)

    def _entry(self, index: int) -> tuple[str, str]:
        if 0 < index <= len(_STATIC):
            return _STATIC[index - 1]
        if not index or index > _MAX_INDEX:
            raise _BadBlockError
        index -= len(_STATIC) + 1
        return self._entries[index] if index < len(self._entries) else _UNKNOWN

    def _literal(self, block: bytes, position: int, mask: int) -> tuple[tuple[str, str], int]:
        if block[position] & mask:
            index, position = _integer(block, position, mask)
            name = self._entry(index)[0]
        else:
            name, position = _text(block, position + 1)
            if not name:
                raise _BadBlockError
        value, position = _text(block, position)
        return (name, value), position

    def _insert(self, field: tuple[str, str]) -> None:
        self._entries.appendleft(field)
        self._size += len(field[0]) + len(field[1]) + _OVERHEAD
        self._evict()

    def _evict(self) -> None:
        """Drops the oldest down to the limit; an entry above it empties the table, itself included."""
        while self._size > self._limit:
            name, value = self._entries.pop()
            self._size -= len(name) + len(value) + _OVERHEAD


def _integer(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """An integer whose first bits stand under `mask`, and the position after it."""
    value = block[position] & mask
    position += 1
    if value < mask:
        return value, position
    shift = 0
    while True:
        byte = block[position]
        position += 1
        value += (byte & 0x7F) << shift
        shift += 7
        if value > _MAX_INTEGER or shift > 35:
            raise _BadBlockError
        if byte < 0x80:
            return value, position


def _text(block: bytes, position: int) -> tuple[str, int]:
    coded = block[position] & 0x80
    length, position = _integer(block, position, 0x7F)
    end = position + length
    if end > len(block):
        raise _BadBlockError
    text = block[position:end]
    return _huffman(text) if coded else text.decode("latin-1"), end


class _Row(dict[int, "tuple[_Row, str, bool]"]):
    """What each byte does in one state: (next state, text put out, whether a text may end here).

    The library's table goes by half bytes; two of its steps in one, worked out as they are needed. There are
    256 states, so at most 65536 steps.
    """

    __slots__ = ("state",)

    def __init__(self, state: int) -> None:
        self.state = state

    def __missing__(self, byte: int) -> tuple[_Row, str, bool]:
        state, text, flags = self.state, "", 0
        for nibble in (byte >> 4, byte & 0x0F):
            state, flags, symbol = HUFFMAN_TABLE[state * 16 + nibble]
            if flags & HUFFMAN_FAIL:
                raise _BadBlockError
            if flags & HUFFMAN_EMIT_SYMBOL:
                text += chr(symbol)
        step = self[byte] = _ROWS[state], text, bool(flags & HUFFMAN_COMPLETE)
        return step


_ROWS: Final = tuple(_Row(state) for state in range(len(HUFFMAN_TABLE) // 16))


def _huffman(coded: bytes) -> str:
    row, complete, texts = _ROWS[0], True, []
    for byte in coded:
        row, text, complete = row[byte]
        texts.append(text)
    if not complete:
        raise _BadBlockError
    return "".join(texts)
