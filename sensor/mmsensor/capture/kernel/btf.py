"""The kernel's BTF: where the members of its structs are; and the same BTF in words of an older libbpf.

libbpf 0.5 (Ubuntu 22.04) refuses the type information of kernels from 5.17 on as a whole, because of kinds
of type it does not know. None of those matters to our relocations, so they are rewritten in place as old
kinds of the same length, and libbpf is given that copy.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Collection
from pathlib import Path

KERNEL_BTF = Path("/sys/kernel/btf/vmlinux")

_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_MAGIC = 0xEB9F

_ARRAY, _STRUCT, _UNION, _ENUM, _CONST, _PROTOTYPE, _VARIABLE, _SECTION = 3, 4, 5, 6, 10, 13, 14, 15
_INTEGER, _DECLARATION_TAG, _TYPE_TAG, _ENUM64 = 1, 17, 18, 19
#: Bytes that follow a type: per kind, fixed and for each of its members.
_EXTRA = {
    _INTEGER: (4, 0),
    _ARRAY: (12, 0),
    _STRUCT: (0, 12),
    _UNION: (0, 12),
    _ENUM: (0, 8),
    _PROTOTYPE: (0, 8),
    _VARIABLE: (4, 0),
    _SECTION: (0, 12),
    _DECLARATION_TAG: (4, 0),
    _ENUM64: (0, 12),
}


def in_old_words(btf: bytes) -> bytes:
    """Returns the same BTF without the kinds that came after libbpf 0.5. Raises ValueError for no BTF."""
    magic, _version, _flags, header_size, types_at, types_size, _strings_at, _size = _HEADER.unpack_from(btf)
    if magic != _MAGIC:
        raise ValueError("not BTF in this machine's byte order")
    out = bytearray(btf)
    at = header_size + types_at
    end = at + types_size
    while at < end:
        name, info, size = _TYPE.unpack_from(out, at)
        kind, members = info >> 24 & 31, info & 0xFFFF
        fixed, each = _EXTRA.get(kind, (0, 0))
        if kind == _TYPE_TAG:
            _TYPE.pack_into(out, at, 0, _CONST << 24, size)
        elif kind == _DECLARATION_TAG:
            _TYPE.pack_into(out, at, name, _VARIABLE << 24, size)
        elif kind == _ENUM64:
            # A member of a structure is as long as a value: name, type, offset for name and two halves.
            _TYPE.pack_into(out, at, name, _STRUCT << 24 | members, size)
            for member in range(at + _TYPE.size, at + _TYPE.size + members * each, each):
                struct.pack_into("<II", out, member + 4, 0, 0)
        at += _TYPE.size + fixed + each * members
    return bytes(out)


def offsets(btf: bytes, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Where (struct, member) stand, in bytes from the struct's beginning; what there is not is left out.

    Members of unnamed structs and unions inside count as the struct's own, as they do in C. Raises ValueError
    for no BTF.
    """
    types = _Types(btf)
    found: dict[tuple[str, str], int] = {}
    for at in types.named_structs({name for name, _ in wanted}):
        for name, member in wanted:
            if types.name(at) == name and (offset := types.member(at, member)) is not None:
                found.setdefault((name, member), offset)
    return found


class _Types:
    """Types by position in the BTF; type ids count from 1."""

    def __init__(self, btf: bytes) -> None:
        magic, _version, _flags, header, types_at, types_size, strings_at, _size = _HEADER.unpack_from(btf)
        if magic != _MAGIC:
            raise ValueError("not BTF in this machine's byte order")
        self._btf = btf
        self._strings = header + strings_at
        self._at = array("I", [0])  # 150,000 of them, which as a list would stay in our memory
        at = header + types_at
        end = at + types_size
        while at < end:
            self._at.append(at)
            _name, info, _size = _TYPE.unpack_from(btf, at)
            fixed, each = _EXTRA.get(info >> 24 & 31, (0, 0))
            at += _TYPE.size + fixed + each * (info & 0xFFFF)

    def named_structs(self, names: Collection[str]) -> list[int]:
        """Positions of the structs of these names."""
        found = {self._btf.find(b"\0" + name.encode() + b"\0", self._strings) for name in names}
        wanted = {at + 1 - self._strings for at in found if at >= 0}
        return [
            at
            for at in self._at[1:]
            if struct.unpack_from("<I", self._btf, at)[0] in wanted and self._kind(at) == _STRUCT
        ]

    def _kind(self, at: int) -> int:
        return self._btf[at + 7] & 31

    def name(self, at: int) -> str:
        begin = self._strings + _TYPE.unpack_from(self._btf, at)[0]
        return self._btf[begin : self._btf.index(b"\0", begin)].decode()

    def member(self, at: int, wanted: str) -> int | None:
        """Its offset in the struct or union at this position; None where it has no such member."""
        info: int = _TYPE.unpack_from(self._btf, at)[1]
        for place in range(at + _TYPE.size, at + _TYPE.size + 12 * (info & 0xFFFF), 12):
            type_id: int
            bits: int
            _name, type_id, bits = _TYPE.unpack_from(self._btf, place)
            if info >> 31:
                bits &= 0xFFFFFF  # the rest is the width of a bit field
            name = self.name(place)
            if name == wanted:
                return bits // 8
            inner = self._at[type_id]
            if not name and self._kind(inner) in (_STRUCT, _UNION):
                offset = self.member(inner, wanted)
                if offset is not None:
                    return bits // 8 + offset
        return None
