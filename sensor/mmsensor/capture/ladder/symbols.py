"""Looks functions up by name: exported ones by hash, the others in the full symbol table.

node exports 90,000 symbols: walking them costs megabytes and tens of milliseconds, looking a dozen names
up in .gnu.hash costs some fifty small reads. Exports are found through the program headers, as the
dynamic loader does it, so a file without section headers will do. The full table, .symtab, has no hash:
it is searched a piece at a time, at the speed of memmem, and holds LOCAL names too.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mmsensor.capture.ladder.elf import PF_X, PT_DYNAMIC, ElfFile

_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH = 4, 5, 6, 0x6FFFFEF5
_STT_FUNC = 2
_SHT_SYMTAB = 2
_SYMBOL = struct.Struct("<IBBHQQ")
_MAX_CHAIN = 1 << 12  # symbols a hash chain may have before the table is taken for damaged
_MAX_TABLE = 1 << 28  # bytes of .symtab or its strings that are worth a search
_MAX_PLACES = 1 << 12  # symbols and names of one lookup: a table with more is made to waste our time


class Symbol(NamedTuple):
    """A function that is defined in the file. `size` may be 0 in hand-written code."""

    name: str
    address: int
    offset: int
    size: int


def exported(file: ElfFile, names: Iterable[str]) -> dict[str, int]:
    """Names that the dynamic symbol table has as functions, to their file offsets."""
    dynamic = _dynamic(file)
    found: dict[str, int] = {}
    if _DT_SYMTAB in dynamic and _DT_STRTAB in dynamic:
        table = file.offset_of(dynamic[_DT_SYMTAB])
        strings = file.offset_of(dynamic[_DT_STRTAB])
        for name in names:
            address = _look_up(file, dynamic, table, strings, name.encode())
            if address is not None:
                found[name] = file.offset_of(address, PF_X)
    return found


def named(file: ElfFile, names: Iterable[str]) -> list[Symbol]:
    """Every function of .symtab with one of these names, LOCAL ones too; a name may be there twice."""
    table = next((each for each in file.sections if each.kind == _SHT_SYMTAB), None)
    if table is None or table.link >= len(file.sections):
        return []
    strings = file.sections[table.link]
    if max(table.size, strings.size) > _MAX_TABLE:
        return []
    wanted = _places_of(file, strings.offset, strings.size, [name.encode() for name in names])
    return list(_defined(file, table.offset, table.size, wanted))


def _places_of(file: ElfFile, offset: int, size: int, names: list[bytes]) -> dict[int, str]:
    """Where in a string table the names are. Linkers share tails: a name may end a longer one."""
    places: dict[int, str] = {}
    overlap = max(map(len, names), default=0) + 1
    for start, chunk in file.chunks(offset, size, overlap=overlap):
        for name in names:
            at = chunk.find(name + b"\0")
            while at >= 0 and len(places) < _MAX_PLACES:
                places[start - offset + at] = name.decode()
                at = chunk.find(name + b"\0", at + 1)
    return places


def _defined(file: ElfFile, offset: int, size: int, wanted: dict[int, str]) -> Iterator[Symbol]:
    found = 0
    for _start, chunk in file.chunks(offset, size - size % _SYMBOL.size):
        name_places = memoryview(chunk).cast("I")[:: _SYMBOL.size // 4].tolist()
        if wanted.keys().isdisjoint(name_places):
            continue
        for index, place in enumerate(name_places):
            if place not in wanted or found >= _MAX_PLACES:
                continue
            _place, info, _other, section, address, length = _SYMBOL.unpack_from(chunk, index * _SYMBOL.size)
            if section and info & 15 == _STT_FUNC:
                found += 1
                yield Symbol(wanted[place], address, file.offset_of(address, PF_X), length)


def _dynamic(file: ElfFile) -> dict[int, int]:
    segment = file.segment(PT_DYNAMIC)
    if segment is None:
        return {}
    raw = file.read(segment.offset, segment.file_size - segment.file_size % 16)
    return {tag: value for tag, value in struct.iter_unpack("<QQ", raw) if tag}


def _look_up(file: ElfFile, dynamic: dict[int, int], table: int, strings: int, name: bytes) -> int | None:
    if _DT_GNU_HASH in dynamic:
        candidates = _gnu_candidates(file, file.offset_of(dynamic[_DT_GNU_HASH]), name)
    elif _DT_HASH in dynamic:
        candidates = _sysv_candidates(file, file.offset_of(dynamic[_DT_HASH]), name)
    else:
        return None
    wanted = name + b"\0"
    for index in candidates:
        raw = file.read(table + index * _SYMBOL.size, _SYMBOL.size)
        at, info, _other, section, address, _size = _SYMBOL.unpack(raw)
        # Defined here and a function; pread, because the name may be the last in the file.
        if section and info & 15 == _STT_FUNC and os.pread(file.fd, len(wanted), strings + at) == wanted:
            return int(address)
    return None


def _gnu_candidates(file: ElfFile, table: int, name: bytes) -> Iterator[int]:
    buckets, first, words, _shift = struct.unpack("<4I", file.read(table, 16))
    if not buckets:
        return
    value = 5381
    for byte in name:
        value = (value * 33 + byte) & 0xFFFFFFFF
    bucket_table = table + 16 + words * 8
    chains = bucket_table + buckets * 4
    index = file.u32(bucket_table + value % buckets * 4)
    if index < first:
        return
    for _ in range(_MAX_CHAIN):
        hashed = file.u32(chains + (index - first) * 4)
        if hashed | 1 == value | 1:
            yield index
        if hashed & 1:
            return
        index += 1


def _sysv_candidates(file: ElfFile, table: int, name: bytes) -> Iterator[int]:
    buckets, chain_length = struct.unpack("<2I", file.read(table, 8))
    if not buckets:
        return
    value = 0
    for byte in name:
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
    index = file.u32(table + 8 + value % buckets * 4)
    for _ in range(_MAX_CHAIN):
        if not 0 < index < chain_length:
            return
        yield index
        index = file.u32(table + 8 + (buckets + index) * 4)
