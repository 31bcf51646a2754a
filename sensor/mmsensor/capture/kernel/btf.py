"""The kernel's BTF, in words that an older libbpf understands.

libbpf 0.5 (Ubuntu 22.04) refuses the type information of kernels from 5.17 on as a whole, because of kinds
of type it does not know. None of those matters to our relocations, so they are rewritten in place as old
kinds of the same length, and libbpf is given that copy.
"""

from __future__ import annotations

import struct
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
