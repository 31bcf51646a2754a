"""Picks a few fields out of a protobuf message of any size, by their numbers, without its compiled schema.

What is wanted is a table: field number -> `Field(name, kind)`, nested for messages. The outcome is a dict
by the names of the JSON mapping, so that a dialect reads a gRPC message as it reads the same message in
JSON. A default (0, "", an empty list) is not on the wire and so not in the dict. Repeated messages are
lists; of a field that is not repeated and comes twice the last counts, and two halves of one message are
merged, as the encoding prescribes.

Bounds: `MAX_TEXT` bytes for a text that is wanted (a longer one is left out), `MAX_ITEMS` of a repeated
field, and the depth of the table. Nothing else is held. Groups, which proto3 does not have, are damage.
Source: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from enum import Enum, auto
from typing import Any, Final, NamedTuple

MAX_TEXT: Final = 4096
MAX_ITEMS: Final = 256
_MAX_VARINT: Final = 10
_INT64: Final = (1 << 63) - 1
_UINT64: Final = (1 << 64) - 1

# Wire types.
_VARINT: Final = 0
_BYTES: Final = 2
_FIXED64: Final = 1
_FIXED: Final[Mapping[int, int]] = {_FIXED64: 8, 5: 4}  # wire type: bytes
_DOUBLE: Final = struct.Struct("<d")


class Kind(Enum):
    """What a wanted field holds."""

    INT = auto()  # int32, int64, bool, enum
    DOUBLE = auto()
    INTS = auto()  # a list of such, packed or not
    TEXT = auto()
    PRESENT = auto()  # only that it is there
    MESSAGE = auto()


class Field(NamedTuple):
    """A wanted field. `fields` is the table of a message."""

    name: str
    kind: Kind
    fields: Mapping[int, Field] = {}
    repeated: bool = False


Table = Mapping[int, Field]


def integer(name: str) -> Field:
    """A number, a boolean or an enum."""
    return Field(name, Kind.INT)


def double(name: str) -> Field:
    """A floating-point number of 64 bits."""
    return Field(name, Kind.DOUBLE)


def integers(name: str) -> Field:
    """A list of numbers or of enums."""
    return Field(name, Kind.INTS)


def text(name: str) -> Field:
    """A string."""
    return Field(name, Kind.TEXT)


def present(name: str) -> Field:
    """Anything whose presence alone counts."""
    return Field(name, Kind.PRESENT)


def message(name: str, fields: Table, *, repeated: bool = False) -> Field:
    """A message, or a list of them."""
    return Field(name, Kind.MESSAGE, fields, repeated)


class _MissingBytes(Exception):  # no error: it ends reading until more has come
    """The field goes on after the bytes that are here."""


class _Damage(Exception):  # caught where it is raised: `feed` never raises
    """What is here is no protobuf message."""


class MessageReader:
    """Reads one message in pieces. Once `damaged`, it reads no further; what came before stands."""

    def __init__(self, fields: Table) -> None:
        self.damaged = False
        self.document: dict[str, Any] = {}
        # Open messages: where each ends, its table and what it holds.
        self._levels: list[tuple[float, Table, dict[str, Any]]] = [(math.inf, fields, self.document)]
        self._held = b""
        self._position = 0  # in the message, of the next byte to be read
        self._skip = 0

    def feed(self, data: bytes) -> None:
        """Reads on."""
        if self._held:
            data, self._held = self._held + data, b""
        at = 0
        try:
            while at < len(data) and not self.damaged:
                if self._skip:
                    size = min(self._skip, len(data) - at)
                    self._skip -= size
                else:
                    size = self._read_field(data, at)
                at += size
                self._position += size
                while self._position >= self._levels[-1][0]:
                    self._levels.pop()
        except _MissingBytes:
            self._held = data[at:]
        except _Damage:
            self.damaged = True

    def finish(self) -> dict[str, Any]:
        """What was found; `damaged` where the message ended in the middle of a field."""
        if self._held or self._skip or len(self._levels) > 1:
            self.damaged = True
        return self.document

    def _read_field(self, data: bytes, at: int) -> int:
        """Reads a short field, or the beginning of a long one; returns how many bytes it took."""
        key, after_key = _varint(data, at)
        field = self._levels[-1][1].get(key >> 3)
        wire_type = key & 7
        if wire_type == _BYTES:
            size, start = _varint(data, after_key)
            self._must_hold(start - at + size)
            return self._read_bytes(field, data, at, start, size)
        if wire_type == _VARINT:
            value, end = _varint(data, after_key)
            self._must_hold(end - at)
            if field is not None:
                self._put_number(field, value)
            return end - at
        if wire_type not in _FIXED:
            raise _Damage
        end = after_key + _FIXED[wire_type]
        self._must_hold(end - at)
        if end > len(data):
            raise _MissingBytes
        if wire_type == _FIXED64 and field is not None and field.kind is Kind.DOUBLE:
            self._put(field, _DOUBLE.unpack_from(data, after_key)[0])
        return end - at

    def _read_bytes(self, field: Field | None, data: bytes, at: int, start: int, size: int) -> int:
        """A field with `size` bytes from `start` on: a text, a message or something unwanted."""
        kind = field.kind if field is not None else Kind.INT
        if field is not None and kind in (Kind.TEXT, Kind.INTS) and size <= MAX_TEXT:
            if len(data) < start + size:
                raise _MissingBytes
            value = data[start : start + size]
            if kind is Kind.TEXT:
                self._put(field, value.decode("utf-8", "replace"))
            else:
                self._put_packed(field, value)
            return start - at + size
        if field is not None and kind is Kind.MESSAGE:
            self._levels.append((self._position + start - at + size, field.fields, self._nested(field)))
            return start - at
        if field is not None and kind is Kind.PRESENT:
            self._put(field, True)
        self._skip = size
        return start - at

    def _nested(self, field: Field) -> dict[str, Any]:
        """The dict that a nested message fills."""
        items = self._levels[-1][2]
        nested: dict[str, Any] = {}
        if not field.repeated:
            nested = items.setdefault(field.name, nested)
        elif len(values := items.setdefault(field.name, [])) < MAX_ITEMS:
            values.append(nested)
        return nested

    def _put(self, field: Field, value: Any) -> None:
        self._levels[-1][2][field.name] = value

    def _put_number(self, field: Field, value: int) -> None:
        if field.kind is Kind.INT:
            self._put(field, _signed(value))
        elif field.kind is Kind.PRESENT:
            self._put(field, True)
        elif field.kind is Kind.INTS:
            numbers = self._levels[-1][2].setdefault(field.name, [])
            if len(numbers) < MAX_ITEMS:
                numbers.append(_signed(value))

    def _put_packed(self, field: Field, packed: bytes) -> None:
        at = 0
        try:
            while at < len(packed):
                value, at = _varint(packed, at)
                self._put_number(field, value)
        except _MissingBytes:
            raise _Damage from None

    def _must_hold(self, size: int) -> None:
        """The open message must be long enough for a field of `size` bytes."""
        if self._position + size > self._levels[-1][0]:
            raise _Damage


def decode(data: bytes, fields: Table) -> dict[str, Any]:
    """A whole message by its table. Of a damaged one, what comes before the damage."""
    reader = MessageReader(fields)
    reader.feed(data)
    return reader.finish()


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """(value, where it ends)."""
    value = 0
    for index, byte in enumerate(data[at : at + _MAX_VARINT]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & _UINT64, at + index + 1
    if len(data) - at >= _MAX_VARINT:
        raise _Damage
    raise _MissingBytes


def _signed(value: int) -> int:
    """A varint as int32 and int64 mean it: negative numbers are written as 64 bits."""
    return value - _UINT64 - 1 if value > _INT64 else value
