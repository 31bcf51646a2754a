r"""Finds the text in JSON bytes as they pass, without parsing them.

What a model reads and writes stands in strings under a few keys (`places`): `"content": "..."`, or arrays of
strings, `"input": ["...", "..."]`. Such a key followed by a colon cannot stand inside a string, where its
quotes would be escaped; so the bytes need no parsing and may be cut anywhere, a document of 100 MB or a
stream of events alike. Binary framings hand over their JSON payloads.

Of a string that is not complete yet everything but a broken character is handed on; besides it, less than
`_KEY` bytes are held.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import orjson

from mmproto.estimation.meter import Meter, TextMeter

OTHERS: Final = b""
_KEY: Final = 64  # longer than any key with its colon and some white space
_REST: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_NEXT_ITEM: Final = re.compile(rb'[ \t\r\n]*,[ \t\r\n]*"')
# A string may be cut inside an escape, or inside the first of a pair of escaped surrogates.
_BROKEN_ESCAPE: Final = re.compile(
    rb"(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?|\\(?:u[0-9a-fA-F]{0,3})?)\Z"
)
_ESCAPES: Final = re.compile(r"\\(?:u[0-9a-fA-F]{4}|.)", re.DOTALL)


@lru_cache(maxsize=64)
def _pattern(keys: tuple[bytes, ...], marks: tuple[bytes, ...]) -> re.Pattern[bytes]:
    """A key with the beginning of its text, group 1 where that is an array; or a mark, group 2.

    One pattern that begins with a quote: whatever has none, as images do, is passed over in no time.
    """
    opening = rb"(?:" + b"|".join(keys) + rb')"[ \t\r\n]{0,8}:[ \t\r\n]{0,8}(\[[ \t\r\n]{0,8})?"'
    return re.compile(rb'"(?:' + opening + rb"|(" + (b"|".join(marks) or rb"(?!)") + rb')")')


class TextScanner:
    """Feeds a meter the strings under `keys`, however the bytes are split.

    `flowing`: the strings are pieces of one text, as in the events of a stream, and not texts of their own.
    `marks` are other strings (keys or values) to be counted on the way; all that `others`, regular
    expressions, match are counted under `OTHERS`.
    """

    __slots__ = ("_carry", "_in_list", "_in_text", "_joined", "_meter", "_pattern", "found")

    def __init__(
        self,
        keys: tuple[bytes, ...],
        meter: Meter,
        *,
        marks: tuple[bytes, ...] = (),
        others: tuple[bytes, ...] = (),
        flowing: bool = False,
    ) -> None:
        self._pattern = _pattern(keys, marks + others)
        self.found = dict.fromkeys((*marks, OTHERS), 0)
        self._meter = meter
        # Whether it matters to the meter where a string ends.
        self._joined = flowing or isinstance(meter, TextMeter)
        self._carry = b""
        self._in_text = False
        self._in_list = False

    def feed(self, data: bytes) -> None:
        """Reads on."""
        if self._carry:
            data, self._carry = self._carry + data, b""
        texts: list[bytes] = []
        position = 0
        if self._in_text:
            position = self._read_text(data, 0, texts)
        if not self._in_text:
            position = self._search(data, position, texts)
        self._hand_on(texts)

    def _search(self, data: bytes, position: int, texts: list[bytes]) -> int:
        if self._in_list:
            position = self._read_items(data, position, texts)
            if self._in_list:
                return position
        search = self._pattern.search
        while (match := search(data, position)) is not None:
            if (mark := match[2]) is not None:
                self.found[mark if mark in self.found else OTHERS] += 1
                position = match.end()
                continue
            self._in_list = match[1] is not None
            position = self._read_text(data, match.end(), texts)
            if self._in_text:
                return position
            if self._in_list:
                position = self._read_items(data, position, texts)
                if self._in_list:
                    return position
        self._carry = data[max(position, len(data) - _KEY) :]
        return len(data)

    def _read_items(self, data: bytes, position: int, texts: list[bytes]) -> int:
        """Further strings of an array. Leaves `_in_list` set where the bytes end before it is known."""
        while (match := _NEXT_ITEM.match(data, position)) is not None:
            position = self._read_text(data, match.end(), texts)
            if self._in_text:
                return position
        if len(data) - position < _KEY and not data[position:].strip(b" \t\r\n,"):
            self._carry = data[position:]
        else:
            self._in_list = False
        return position

    def _read_text(self, data: bytes, start: int, texts: list[bytes]) -> int:
        """Takes a string from behind its quote; sets `_in_text` where it goes on after `data`."""
        end = _REST.match(data, start).end()  # type: ignore[union-attr]  # matches always
        if end < len(data) and data[end] == 0x22:
            texts.append(data[start:end])
            self._in_text = False
            return end + 1
        self._in_text = True
        whole = _whole_characters(data, start)
        texts.append(data[start:whole])
        self._carry = data[whole:]
        return len(data)

    def _hand_on(self, texts: list[bytes]) -> None:
        meter, last = self._meter, len(texts) - 1
        if self._joined and texts:
            texts, last = [b"".join(texts)], 0
        for number, text in enumerate(_decode(texts)):
            meter.feed(text)
            if not self._joined and (number < last or not self._in_text):
                meter.cut()

    def lose(self) -> None:
        """Bytes are missing: what follows is searched anew."""
        self._carry = b""
        self._in_text = self._in_list = False

    def __repr__(self) -> str:
        return "TextScanner()"


def _whole_characters(data: bytes, start: int) -> int:
    """Where the broken escape or character at the end of `data`, if any, begins."""
    tail = max(start, len(data) - 12)
    # An escape begins at a backslash that no other one escapes.
    for match in _BROKEN_ESCAPE.finditer(data, tail):
        before = match.start()
        slashes = before - start - len(data[start:before].rstrip(b"\\"))
        if slashes % 2 == 0:
            return before
    end = len(data)
    for back in range(1, min(4, end - start) + 1):
        byte = data[end - back]
        if byte >= 0xC0:
            size = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return end - back if size > back else end
        if byte < 0x80:
            break
    return end


def _decode(texts: list[bytes]) -> list[str]:
    if not texts:
        return []
    try:
        decoded: list[str] = orjson.loads(b'["' + b'","'.join(texts) + b'"]')
    except orjson.JSONDecodeError:
        # Control characters, lone surrogates or bytes that are no UTF-8: near enough.
        return [_ESCAPES.sub(" ", text.decode("utf-8", "replace")) for text in texts]
    return decoded
