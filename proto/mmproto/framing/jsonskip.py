"""Skips JSON strings and containers of any size at close to the speed of memory.

What is skipped is held to two rules only: brackets match and strings end. Commas, colons, numbers and
literals inside are not judged. The outcome is the same however the bytes are split.

Short containers are taken by one regular expression. What goes on for longer is leapt over in windows: a
window is stripped of everything but quotes and brackets by `bytes.translate`, of its strings by the parity of
quotes, and of brackets that close again, and what little remains is compared with the brackets that are open.
The window grows while that succeeds and shrinks towards the end of what is skipped.

Bound: one byte for each of at most `MAX_DEPTH` open brackets.
"""

from __future__ import annotations

import re
from typing import Final

MAX_DEPTH: Final = 10_000


class MalformedJson(ValueError):
    """The bytes are no JSON document: broken syntax, cut short, or nested beyond reason."""


QUOTE: Final = 0x22
BACKSLASH: Final = 0x5C
OPENING: Final = b"{["
CLOSING: Final = b"}]"
_OPENS: Final = {ord("}"): ord("{"), ord("]"): ord("[")}

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRING_IN_LINE: Final = rb'"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+"'
_PATTERN_DEPTH: Final = 4


def skippable(depth: int = _PATTERN_DEPTH, *, in_line: bool = False) -> bytes:
    """A pattern for anything between two brackets, whole containers up to `depth` levels deep included.

    `in_line`: no line may end inside of a string.
    """
    inner = skippable(depth - 1, in_line=in_line) if depth else b""
    containers = rb"|\{" + inner + rb"\}|\[" + inner + rb"\]" if depth else b""
    string = _STRING_IN_LINE if in_line else _STRING
    return rb'[^"{}\[\]]*+(?:(?:' + string + containers + rb')[^"{}\[\]]*+)*+'


_SHORT: Final = re.compile(skippable(), re.DOTALL)
# How far the pattern may look: it is slower than leaping, but nearly all containers end before.
_SHORT_REACH: Final = 2048
_FIRST_WINDOW: Final = 2048
_LAST_WINDOW: Final = 1024
_MAX_WINDOW: Final = 64 * 1024
_ESCAPE: Final = b"\x01"  # stands for an escape that has been seen to
_NOT_STRUCTURE: Final = bytes(set(range(256)) - set(b'"{}[]\\' + _ESCAPE))
# Pairs of brackets are taken out of a window from the inside; what is nested deeper goes the slow way.
_MAX_PASSES: Final = 32


# How far behind an escaped quote its string is looked through at once.
_FIRST_REACH: Final = 256
_MAX_REACH: Final = 64 * 1024
_PAIR: Final = b"\x01\x01"  # as long as the escape that it stands for


class Skip:
    """Skips one string or one container after the other.

    `begin` with its first byte, then `advance` over the bytes behind that one until `is_open` is false.
    """

    __slots__ = ("_brackets", "_escaped", "_window", "in_string")

    def __init__(self) -> None:
        self._brackets = bytearray()
        self._escaped = False  # the last byte was a backslash that escapes the next one
        self._window = 0  # of the last leap over this value, 0 while it may turn out to be short
        self.in_string = False

    @property
    def is_open(self) -> bool:
        """Whether the end of the value has not been seen yet."""
        return self.in_string or bool(self._brackets)

    def begin(self, byte: int) -> None:
        """Begins with a quote or an opening bracket."""
        if byte == QUOTE:
            self.in_string = True
        else:
            self._brackets.append(byte)
        self._window = 0

    def advance(self, data: bytes, position: int) -> int:
        """The position behind the value's end, or len(data) where it goes on. Raises MalformedJson."""
        if self.in_string:
            position = self._string_end(data, position)
        if not self._brackets:
            return position
        size = len(data)
        slow_until = position if self._window else position + _SHORT_REACH
        window = self._window or _FIRST_WINDOW
        while position < size:
            if position >= slow_until and size - position >= _LAST_WINDOW:
                window = min(window, size - position)
                if self._leap(data[position : position + window]):
                    position += window
                    window = min(window * 2, _MAX_WINDOW)
                    continue
                if window > _LAST_WINDOW:
                    window //= 2
                    continue
                slow_until = position + _LAST_WINDOW
            if self.in_string:
                position = self._string_end(data, position)
                continue
            if len(self._brackets) + _PATTERN_DEPTH < MAX_DEPTH:
                short = _SHORT.match(data, position, position + _SHORT_REACH)
                position = short.end()  # type: ignore[union-attr]  # matches always
                if position == size:
                    break
            position = self._step(data, position)
            if not self._brackets:
                break
        self._window = max(window, _FIRST_WINDOW)
        return position

    def _step(self, data: bytes, position: int) -> int:
        """One byte outside of strings."""
        byte = data[position]
        if byte == QUOTE:
            self.in_string = True
        elif byte in OPENING:
            self._brackets.append(byte)
            if len(self._brackets) > MAX_DEPTH:
                raise MalformedJson("nested too deep")
        elif byte in CLOSING and self._brackets.pop() != _OPENS[byte]:
            raise MalformedJson("brackets do not match")
        return position + 1

    def _string_end(self, data: bytes, position: int) -> int:
        """The position behind the string that `position` is in, len(data) where it does not end."""
        if self._escaped:
            if position == len(data):
                return position
            self._escaped = False
            position += 1
        reach = _FIRST_REACH
        while (quote := data.find(b'"', position)) >= 0:
            if quote == position or data[quote - 1] != BACKSLASH:
                self.in_string = False
                return quote + 1
            # Text full of escaped quotes: they are taken out of a stretch at once, from left to right.
            stretch = data[position : quote + reach].replace(b"\\\\", _PAIR).replace(b'\\"', _PAIR)
            end = stretch.find(b'"')
            if end >= 0:
                self.in_string = False
                return position + end + 1
            position += len(stretch)
            if stretch.endswith(b"\\"):
                if position == len(data):
                    self._escaped = True
                    return position
                position += 1
            reach = min(reach * 2, _MAX_REACH)
        self._escaped = _odd_backslashes(data, position, len(data))
        return len(data)

    def _leap(self, window: bytes) -> bool:
        """Takes the whole window where it ends inside of what is skipped; else changes nothing."""
        escaped = False
        if self._escaped:
            window = window[1:]
        if BACKSLASH in window:
            # From left to right, so what is left of a run of backslashes is at most one.
            window = window.replace(b"\\\\", _ESCAPE).replace(b'\\"', _ESCAPE)
            escaped = window.endswith(b"\\")
        structure = window.translate(None, _NOT_STRUCTURE)
        in_string = self.in_string
        if QUOTE in structure:
            pieces = structure.split(b'"')
            structure = b"".join(pieces[int(in_string) :: 2])
            in_string ^= len(pieces) % 2 == 0
        elif in_string:
            structure = b""
        if structure and (BACKSLASH in structure or _ESCAPE in structure or not self._match(structure)):
            return False  # outside of strings a backslash escapes nothing
        self.in_string, self._escaped = in_string, escaped
        return True

    def _match(self, structure: bytes) -> bool:
        """Applies a window's brackets, unless they are too odd or close everything that is open."""
        size, passes = len(structure) + 1, 0
        while size != len(structure) and passes <= _MAX_PASSES:
            size = len(structure)
            structure = structure.replace(b"[]", b"").replace(b"{}", b"")
            passes += 1
        closings = structure.rstrip(OPENING)
        openings = structure[len(closings) :]
        count = len(closings)
        if count >= len(self._brackets) or len(self._brackets) + len(openings) + _MAX_PASSES > MAX_DEPTH:
            return False
        if passes > _MAX_PASSES or closings.translate(_MIRROR) != self._brackets[: -count - 1 : -1]:
            return False
        del self._brackets[len(self._brackets) - count :]
        self._brackets += openings
        return True


# An opening bracket among what is left before the last closing one is one that does not match.
_MIRROR: Final = bytes.maketrans(CLOSING + OPENING, OPENING + b"\0\0")


def _odd_backslashes(data: bytes, start: int, end: int) -> bool:
    """Whether an odd number of backslashes stands right before `end`, none of them before `start`."""
    position = end
    while position > start and data[position - 1] == BACKSLASH:
        position -= 1
    return (end - position) % 2 == 1
