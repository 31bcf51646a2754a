"""Picks a few values out of a JSON body of any size, without holding it.

A request may carry 100 MB of images and a response 100 MB of vectors, while a dozen short values in them are
all that metering needs. What is wanted is a tree: keys of objects (`"*"` for every item of an array) down to
`VALUE` (take it, whatever it is) or `PRESENT` (only note that it is there). The outcome is the document
pruned to that tree, the same whether it was read whole or in any pieces.

Small bodies are parsed by orjson and pruned; larger ones, and damaged ones, go through `Picker`, which jumps
over strings and unwanted subtrees with regular expressions. It is strict about everything on the way to what
is wanted and about brackets and strings everywhere; commas and literals inside a skipped subtree are not
judged. A repeated key counts with its last value, as in every common parser.

Bounds: `MAX_SMALL` bytes held for a small body, `MAX_VALUE` for one picked value (a larger one is left out),
`MAX_KEY` for a key, `MAX_ITEMS` picked items of an array (the rest is skipped), `MAX_DEPTH` open brackets.
"""

from __future__ import annotations

import json
import re
from enum import Enum, auto
from typing import Any, Final

import orjson

from mmproto.framing.jsonskip import MAX_DEPTH, MalformedJson, Skip

__all__ = [
    "EVERY",
    "MAX_DEPTH",
    "PRESENT",
    "VALUE",
    "JsonBody",
    "MalformedJson",
    "Picker",
    "Tree",
    "Want",
    "prune",
]

MAX_SMALL: Final = 64 * 1024
MAX_VALUE: Final = 64 * 1024
MAX_KEY: Final = 16 * 1024
MAX_SCALAR: Final = 4096
MAX_ITEMS: Final = 256


class Want(Enum):
    """What to do with the value at a leaf of the wanted tree."""

    VALUE = auto()
    PRESENT = auto()


VALUE: Final = Want.VALUE
PRESENT: Final = Want.PRESENT
EVERY: Final = "*"

Tree = dict[str, "Want | Tree"]


_STRING_REST: Final = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_SPACE: Final = re.compile(rb"[ \t\r\n]*+")
_SCALAR_RUN: Final = re.compile(rb'[^ \t\r\n,:"{}\[\]]*+')
_SCALAR: Final = re.compile(rb"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")
_BOM: Final = b"\xef\xbb\xbf"
_MISSING: Final = object()


class _State(Enum):
    VALUE = auto()
    KEY_OR_END = auto()
    KEY = auto()
    COLON = auto()
    ITEM_OR_END = auto()
    COMMA_OR_END = auto()
    SCALAR = auto()
    SKIPPED = auto()  # a string or a container that is left out, or taken as it is
    DONE = auto()


# The byte that ends a level which may end at once.
_ENDS: Final = {_State.KEY_OR_END: 0x7D, _State.ITEM_OR_END: 0x5D}


class _Level:
    """An open object or array on the way to something wanted."""

    __slots__ = ("is_object", "items", "key", "seen", "tree")

    def __init__(self, tree: Tree, is_object: bool) -> None:
        self.tree = tree
        self.is_object = is_object
        self.key = EVERY
        self.seen = 0
        self.items: Any = {} if is_object else []

    def put(self, value: Any) -> None:
        if self.is_object:
            self.items[self.key] = value
        else:
            self.items.append(value)

    def wanted(self) -> Want | Tree | None:
        return self.tree.get(self.key)

    @property
    def is_full(self) -> bool:
        """Whether what follows is beyond the items that are picked."""
        return not self.is_object and self.seen > MAX_ITEMS


class Picker:
    """Reads one document in pieces. After `MalformedJson` it must not be fed again."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._state = _State.VALUE
        self._levels: list[_Level] = []
        self._root: Any = None
        self._held = b""
        self._want: Want | None = None
        self._taken = bytearray()
        self._skip = Skip()
        self._full: list[Any] | None = None  # the picked items of an array of which the rest is skipped
        self._started = False

    def feed(self, data: bytes) -> None:
        """Reads on. Raises MalformedJson."""
        if self._held:
            data, self._held = self._held + data, b""
        position, size = 0, len(data)
        if not self._started:
            if len(data) < len(_BOM) and _BOM.startswith(data):
                self._held = data
                return
            self._started = True
            position = len(_BOM) if data.startswith(_BOM) else 0
        while position < size:
            state = self._state
            if state is _State.SKIPPED:
                position = self._skip_value(data, position)
                continue
            if state is _State.SCALAR:
                position = self._read_scalar(data, position)
                continue
            position = _space_end(data, position)
            if position == size:
                break
            reached = self._step(data, position)
            if reached < 0:
                self._held = data[position:]
                break
            position = reached

    def finish(self) -> Any:
        """The document pruned to what is wanted, None where it is no container. Raises MalformedJson."""
        if self._state is _State.SCALAR and not self._levels:
            self._end_scalar()
        if self._held == _BOM[: len(self._held)] and self._state is _State.VALUE:
            raise MalformedJson("empty")
        if self._state is not _State.DONE:
            raise MalformedJson("cut short")
        return self._root

    def partial(self) -> Any:
        """What was picked so far of a document that was cut short or is damaged."""
        if self._full is not None:
            self._value_read(self._taken_value())
        for index in range(len(self._levels) - 1, 0, -1):
            self._levels[index - 1].put(self._levels[index].items)
        root = self._levels[0].items if self._levels else self._root
        self._levels.clear()
        return root

    def _step(self, data: bytes, position: int) -> int:
        """One token of the levels on the way to what is wanted; -1 where it needs more bytes."""
        byte, state = data[position], self._state
        if byte == _ENDS.get(state) or (state is _State.COMMA_OR_END and byte != 0x2C):
            return self._close_level(byte, position)
        if state in (_State.KEY, _State.KEY_OR_END):
            return self._read_key(data, position)
        if state in (_State.COMMA_OR_END, _State.COLON):
            if state is _State.COLON and byte != 0x3A:
                raise MalformedJson("expected a colon")
            wants_key = state is _State.COMMA_OR_END and self._levels[-1].is_object
            self._state = _State.KEY if wants_key else _State.VALUE
            return position + 1
        if state is _State.DONE:
            raise MalformedJson("bytes after the document")
        return self._begin_value(byte, position)

    def _read_key(self, data: bytes, position: int) -> int:
        if data[position] != 0x22:
            raise MalformedJson("expected a key")
        end = _STRING_REST.match(data, position + 1).end()  # type: ignore[union-attr]  # matches always
        if end - position > MAX_KEY:
            raise MalformedJson("a key is too long")
        if end >= len(data) or data[end] != 0x22:
            return -1
        raw = data[position + 1 : end]
        key = raw.decode("utf-8", "replace") if b"\\" not in raw else _decode(data[position : end + 1])
        if not isinstance(key, str):
            raise MalformedJson("a key is broken")
        self._levels[-1].key = key
        self._state = _State.COLON
        return end + 1

    def _begin_value(self, byte: int, position: int) -> int:
        wanted: Want | Tree | None = self._tree
        if self._levels:
            level = self._levels[-1]
            level.seen += 1
            if level.is_full:
                return self._leave_rest(position)
            wanted = level.wanted()
            if level.is_object:
                # The last of repeated keys counts, even where its value turns out not to be wanted.
                level.items.pop(level.key, None)
        if isinstance(wanted, dict):
            if byte == 0x7B or (byte == 0x5B and EVERY in wanted):
                self._levels.append(_Level(wanted, byte == 0x7B))
                self._state = _State.KEY_OR_END if byte == 0x7B else _State.ITEM_OR_END
                return position + 1
            self._want = None
        else:
            self._want = wanted
        if byte in b'"{[':
            if self._want is VALUE:
                self._taken.append(byte)
            self._skip.begin(byte)
            self._state = _State.SKIPPED
            return position + 1
        if byte in b"}],:":
            raise MalformedJson("expected a value")
        self._state = _State.SCALAR
        return position

    def _leave_rest(self, position: int) -> int:
        """Skips what is left of a full array, up to its end."""
        self._full = self._levels.pop().items
        self._want = None
        self._skip.begin(0x5B)
        self._state = _State.SKIPPED
        return position

    def _close_level(self, byte: int, position: int) -> int:
        level = self._levels.pop()
        if byte != (0x7D if level.is_object else 0x5D):
            raise MalformedJson("expected a comma or the end")
        self._value_read(level.items)
        return position + 1

    def _value_read(self, value: Any) -> None:
        """A value ended; `value` is _MISSING where it was not wanted."""
        if self._levels:
            if value is not _MISSING:
                self._levels[-1].put(value)
            self._state = _State.COMMA_OR_END
        else:
            self._root = None if value is _MISSING else value
            self._state = _State.DONE

    def _taken_value(self) -> Any:
        if self._full is not None:
            items, self._full = self._full, None
            return items
        want, self._want = self._want, None
        if want is PRESENT:
            return True
        if want is None:
            return _MISSING
        raw = bytes(self._taken)
        self._taken.clear()
        return _decode(raw) if len(raw) <= MAX_VALUE else _MISSING

    def _read_scalar(self, data: bytes, position: int) -> int:
        end = _SCALAR_RUN.match(data, position).end()  # type: ignore[union-attr]  # matches always
        if len(self._taken) + end - position > MAX_SCALAR:
            raise MalformedJson("a number is too long")
        # Judged even where it is not wanted: what stands between two commas here is no longer a value.
        self._taken += data[position:end]
        if end < len(data):
            self._end_scalar()
        return end

    def _end_scalar(self) -> None:
        raw = bytes(self._taken)
        if _SCALAR.fullmatch(raw) is None:
            raise MalformedJson("expected a value")
        if self._want is not VALUE:
            self._taken.clear()
        self._value_read(self._taken_value())

    def _skip_value(self, data: bytes, position: int) -> int:
        end = self._skip.advance(data, position)
        if self._want is VALUE and len(self._taken) <= MAX_VALUE:
            self._taken += data[position:end]
        if not self._skip.is_open:
            self._value_read(self._taken_value())
        return end


class JsonBody:
    """One JSON body as it streams in: parsed at once where it is small, picked on the way where it is not."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._small = bytearray()
        self._size = 0
        self._picker: Picker | None = None
        self._broken = False

    @property
    def is_empty(self) -> bool:
        """Whether no byte has come yet."""
        return not self._size

    def feed(self, data: bytes) -> None:
        """Reads on; damage is reported by `finish`."""
        self._size += len(data)
        if self._broken:
            return
        if self._picker is None:
            self._small += data
            if self._size <= MAX_SMALL:
                return
            self._picker = Picker(self._tree)
            data = bytes(self._small)
            self._small.clear()
        try:
            self._picker.feed(data)
        except MalformedJson:
            self._broken = True

    def lose(self) -> None:
        """Bytes are missing: nothing after them can be trusted."""
        self._broken = True

    def finish(self) -> Any:
        """The pruned document, as `Picker.finish`. Raises MalformedJson."""
        if self._broken:
            raise MalformedJson("broken")
        if self._picker is None:
            raw = bytes(self._small)
            try:
                return prune(orjson.loads(raw), self._tree)
            except orjson.JSONDecodeError:
                # orjson is stricter about UTF-8 and nesting than we need to be.
                self._picker = Picker(self._tree)
                self._small.clear()
                try:
                    self._picker.feed(raw)
                except MalformedJson:
                    self._broken = True
                    raise
        return self._picker.finish()

    def partial(self) -> Any:
        """What could be read of a body that was cut short or is damaged, as `Picker.partial`."""
        if self._picker is None:
            self._picker = Picker(self._tree)
            try:
                self._picker.feed(bytes(self._small))
            except MalformedJson:
                self._broken = True
        return self._picker.partial()


def prune(document: Any, tree: Tree) -> Any:
    """`document` reduced to what `tree` wants: a dict, a list, or None where it is neither."""
    if isinstance(document, dict):
        pruned: dict[str, Any] = {}
        for key, wanted in tree.items():
            if key in document:
                if wanted is VALUE:  # by far the most, and not worth a call each
                    pruned[key] = document[key]
                    continue
                value = _pruned_value(document[key], wanted)
                if value is not _MISSING:
                    pruned[key] = value
        return pruned
    if isinstance(document, list) and EVERY in tree:
        wanted = tree[EVERY]
        values = (_pruned_value(item, wanted) for item in document[:MAX_ITEMS])
        return [value for value in values if value is not _MISSING]
    return None


def _pruned_value(value: Any, wanted: Want | Tree) -> Any:
    if wanted is VALUE:
        return value
    if wanted is PRESENT:
        return True
    if isinstance(wanted, dict) and (
        isinstance(value, dict) or (isinstance(value, list) and EVERY in wanted)
    ):
        return prune(value, wanted)
    return _MISSING


def _space_end(data: bytes, position: int) -> int:
    return _SPACE.match(data, position).end()  # type: ignore[union-attr]  # matches always


def _decode(raw: bytes) -> Any:
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            return json.loads(raw.decode("utf-8", "replace"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            raise MalformedJson("a value is broken") from error


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
