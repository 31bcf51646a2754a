"""Finds exported functions in an ELF file by hash, without reading its symbol table.

node exports 90,000 symbols: walking them costs megabytes and tens of milliseconds, looking nine names
up in .gnu.hash costs some fifty small reads. Everything is found through the program headers, as the
dynamic loader does it, so a file without section headers will do. Plain pread and no mmap: a file that
is truncated while we read gives an error and not SIGBUS.
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterable
from dataclasses import dataclass

_PT_LOAD, _PT_DYNAMIC, _PT_NOTE = 1, 2, 4
_PF_X = 1
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_GNU_HASH = 4, 5, 6, 0x6FFFFEF5
_STT_FUNC = 2
_NT_GNU_BUILD_ID = 3
_MACHINE = {"x86_64": 62, "aarch64": 183}.get(platform.machine(), -1)

_HEADER = struct.Struct("<16sHHIQQQIHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_MAX_NOTES = 1 << 16
_MAX_CHAIN = 1 << 16  # symbols a hash chain may have before the table is taken for damaged


class NotElf(Exception):
    """Not a 64-bit ELF file of this machine, or a damaged one."""


@dataclass(frozen=True, slots=True)
class Exports:
    """`offsets`: symbol to file offset of its first instruction. `build_id` is hexadecimal or empty."""

    build_id: str
    offsets: dict[str, int]


def read_exports(fd: int, symbols: Iterable[str]) -> Exports:
    """Looks `symbols` up in the dynamic symbol table. Raises NotElf, OSError."""
    return _File(fd).exports(symbols)


class _File:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._size = os.fstat(fd).st_size
        raw = os.pread(fd, _HEADER.size, 0)
        if len(raw) < _HEADER.size or raw[:4] != b"\x7fELF":
            raise NotElf("no ELF header")
        identity, _kind, machine, _version, _entry, at, _sections, _flags, _size, entry_size, entries = (
            _HEADER.unpack(raw)
        )
        if identity[4] != 2 or identity[5] != 1 or machine != _MACHINE:
            raise NotElf("built for another machine")
        if entry_size != _PROGRAM_HEADER.size:
            raise NotElf("program headers of an unknown size")
        table = self._read(at, entry_size * entries)
        self._segments = list(_PROGRAM_HEADER.iter_unpack(table))

    def _read(self, offset: int, size: int) -> bytes:
        if offset + size > self._size:
            raise NotElf("offset outside the file")
        data = os.pread(self._fd, size, offset)
        if len(data) != size:
            raise NotElf("truncated")
        return data

    def _u32(self, offset: int) -> int:
        return int.from_bytes(self._read(offset, 4), "little")

    def _offset_of(self, address: int, needs: int = 0) -> int:
        """Virtual address to file offset, through a PT_LOAD with the flags that it `needs`."""
        for kind, flags, offset, start, _physical, file_size, _memory_size, _align in self._segments:
            if kind == _PT_LOAD and flags & needs == needs and start <= address < start + file_size:
                at = int(offset + address - start)
                if at < self._size:
                    return at
        raise NotElf("address outside every segment")

    def exports(self, symbols: Iterable[str]) -> Exports:
        dynamic = self._dynamic()
        found: dict[str, int] = {}
        if _DT_SYMTAB in dynamic and _DT_STRTAB in dynamic:
            symbol_table = self._offset_of(dynamic[_DT_SYMTAB])
            strings = self._offset_of(dynamic[_DT_STRTAB])
            for name in symbols:
                address = self._lookup(dynamic, symbol_table, strings, name.encode())
                if address is not None:
                    found[name] = self._offset_of(address, _PF_X)
        return Exports(self._build_id(), found)

    def _dynamic(self) -> dict[int, int]:
        for kind, _flags, offset, _start, _physical, file_size, _memory_size, _align in self._segments:
            if kind == _PT_DYNAMIC:
                raw = self._read(offset, file_size - file_size % 16)
                return {tag: value for tag, value in struct.iter_unpack("<QQ", raw) if tag}
        return {}

    def _lookup(self, dynamic: dict[int, int], symbol_table: int, strings: int, name: bytes) -> int | None:
        if _DT_GNU_HASH in dynamic:
            candidates = self._gnu_candidates(self._offset_of(dynamic[_DT_GNU_HASH]), name)
        elif _DT_HASH in dynamic:
            candidates = self._sysv_candidates(self._offset_of(dynamic[_DT_HASH]), name)
        else:
            return None
        for index in candidates:
            raw = self._read(symbol_table + index * _SYMBOL.size, _SYMBOL.size)
            at, info, _other, section, address, _size = _SYMBOL.unpack(raw)
            # Defined here and a function; pread, because the name may be the last in the file.
            if section and info & 15 == _STT_FUNC:
                wanted = name + b"\0"
                if os.pread(self._fd, len(wanted), strings + at) == wanted:
                    return int(address)
        return None

    def _gnu_candidates(self, table: int, name: bytes) -> Iterable[int]:
        buckets, first, words, _shift = struct.unpack("<4I", self._read(table, 16))
        if not buckets:
            return
        value = 5381
        for byte in name:
            value = (value * 33 + byte) & 0xFFFFFFFF
        bucket_table = table + 16 + words * 8
        chains = bucket_table + buckets * 4
        index = self._u32(bucket_table + value % buckets * 4)
        if index < first:
            return
        for _ in range(_MAX_CHAIN):
            hashed = self._u32(chains + (index - first) * 4)
            if hashed | 1 == value | 1:
                yield index
            if hashed & 1:
                return
            index += 1

    def _sysv_candidates(self, table: int, name: bytes) -> Iterable[int]:
        buckets, chain_length = struct.unpack("<2I", self._read(table, 8))
        if not buckets:
            return
        value = 0
        for byte in name:
            value = (value << 4) + byte
            high = value & 0xF0000000
            value = (value ^ (high >> 24)) & ~high & 0xFFFFFFFF
        index = self._u32(table + 8 + value % buckets * 4)
        for _ in range(_MAX_CHAIN):
            if not 0 < index < chain_length:
                return
            yield index
            index = self._u32(table + 8 + (buckets + index) * 4)

    def _build_id(self) -> str:
        for kind, _flags, offset, _start, _physical, size, _memory_size, align in self._segments:
            if kind != _PT_NOTE or size > _MAX_NOTES:
                continue
            notes = self._read(offset, size)
            step = 8 if align == 8 else 4
            at = 0
            while at + 12 <= len(notes):
                name_size, value_size, note = struct.unpack_from("<3I", notes, at)
                value = at + 12 + -(-name_size // step) * step
                if note == _NT_GNU_BUILD_ID and notes[at + 12 : at + 16] == b"GNU\0":
                    return notes[value : value + value_size].hex()
                at = value + -(-value_size // step) * step
        return ""
