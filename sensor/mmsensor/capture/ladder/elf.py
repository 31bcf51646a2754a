"""An ELF file as the ladder reads it: bounded reads, segments, sections, the build-id, and no trust.

The files are other people's: any number in them may be absurd. Every read is checked against the file and
against a limit, so that the worst a file can do is `NotElf`. Plain pread and no mmap: a file that is
truncated while we read gives an error and not SIGBUS. Only 64-bit little-endian files of this machine.
"""

from __future__ import annotations

import os
import platform
import struct
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

PT_LOAD, PT_DYNAMIC, PT_NOTE, PT_GNU_EH_FRAME = 1, 2, 4, 0x6474E550
PF_X, PF_W, PF_R = 1, 2, 4
_SHT_NOBITS = 8
_NT_GNU_BUILD_ID = 3
_MACHINE = {"x86_64": 62, "aarch64": 183}.get(platform.machine(), -1)

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")

_MAX_READ = 1 << 20
_MAX_SECTIONS = 4096
_MAX_NAME = 64
_MAX_NOTES = 1 << 16
_MAX_BUILD_ID = 64
_CHUNK = 3 << 18  # of a long range at once; whole symbols of 24 bytes


class NotElf(Exception):
    """Not a 64-bit ELF file of this machine, or a damaged one."""


class Segment(NamedTuple):
    """A program header: `kind` is a PT_ number, `flags` are PF_ bits, the rest bytes."""

    kind: int
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int
    align: int


class Section(NamedTuple):
    """A section header with its name; `link` is the index of the section it belongs with."""

    name: str
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    entry_size: int


class ElfFile:
    """Reads the open file `fd`, which stays the caller's. Every method raises NotElf and OSError."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.size = os.fstat(fd).st_size
        raw = os.pread(fd, _HEADER.size, 0)
        if len(raw) < _HEADER.size or raw[:4] != b"\x7fELF":
            raise NotElf("no ELF header")
        header = _HEADER.unpack(raw)
        identity, self.kind, machine, _version, self.entry, segments_at = header[:6]
        if identity[4] != 2 or identity[5] != 1 or machine != _MACHINE:
            raise NotElf("built for another machine")
        self._sections_at = header[6]
        segment_size, segments, self._section_size, self._sections, self._names = header[9:14]
        if segments and segment_size != _PROGRAM_HEADER.size:
            raise NotElf("program headers of an unknown size")
        table = self.read(segments_at, segment_size * segments, limit=_PROGRAM_HEADER.size << 16)
        self.segments = tuple(
            Segment(kind, flags, offset, address, file_size, memory_size, align)
            for kind, flags, offset, address, _physical, file_size, memory_size, align in (
                _PROGRAM_HEADER.iter_unpack(table)
            )
        )

    @property
    def machine(self) -> str:
        """As `platform.machine()` has it: files of other machines are NotElf."""
        return platform.machine()

    # -- bytes -------------------------------------------------------------------------------------

    def read(self, offset: int, size: int, *, limit: int = _MAX_READ) -> bytes:
        """Exactly `size` bytes; more than `limit` is taken for damage."""
        if size > limit:
            raise NotElf("an absurd size")
        if offset + size > self.size:
            raise NotElf("offset outside the file")
        data = os.pread(self.fd, size, offset)
        if len(data) != size:
            raise NotElf("truncated")
        return data

    def chunks(self, offset: int, size: int, *, overlap: int = 0) -> Iterator[tuple[int, bytes]]:
        """(file offset, bytes) of a long range, each `overlap` bytes into the next, for a search in it."""
        end = offset + size
        while offset < end:
            yield offset, self.read(offset, min(_CHUNK + overlap, end - offset), limit=_CHUNK + overlap)
            offset += _CHUNK

    def u32(self, offset: int) -> int:
        return int.from_bytes(self.read(offset, 4), "little")

    # -- addresses ---------------------------------------------------------------------------------

    def offset_of(self, address: int, needs: int = 0) -> int:
        """Virtual address to file offset, through a PT_LOAD with the flags that it `needs`."""
        for segment in self.segments:
            if segment.kind != PT_LOAD or segment.flags & needs != needs:
                continue
            within = address - segment.address
            if 0 <= within < segment.file_size and segment.offset + within < self.size:
                return segment.offset + within
        raise NotElf("address outside every segment")

    def address_of(self, offset: int, needs: int = 0) -> int:
        """File offset to virtual address, through a PT_LOAD with the flags that it `needs`."""
        for segment in self.segments:
            if segment.kind != PT_LOAD or segment.flags & needs != needs:
                continue
            if 0 <= offset - segment.offset < segment.file_size:
                return segment.address + offset - segment.offset
        raise NotElf("offset in no segment")

    # -- parts -------------------------------------------------------------------------------------

    @cached_property
    def sections(self) -> tuple[Section, ...]:
        """The section headers, with damage taken for their absence: nothing that runs needs them."""
        try:
            return tuple(self._read_sections())
        except NotElf:
            return ()

    def _read_sections(self) -> Iterator[Section]:
        if not 0 < self._sections <= _MAX_SECTIONS or self._section_size != _SECTION_HEADER.size:
            return
        size = self._section_size
        headers = list(_SECTION_HEADER.iter_unpack(self.read(self._sections_at, size * self._sections)))
        if self._names >= len(headers):
            return
        names = self.read(headers[self._names][4], headers[self._names][5])
        for name_at, kind, flags, address, offset, length, link, _info, _align, entry_size in headers:
            name = names[name_at : name_at + _MAX_NAME].partition(b"\0")[0].decode("utf-8", "replace")
            yield Section(name, kind, flags, address, offset, length, link, entry_size)

    def section(self, name: str) -> Section | None:
        """The first section of that name that has bytes in this file."""
        return next((each for each in self.sections if each.name == name and each.kind != _SHT_NOBITS), None)

    def segment(self, kind: int) -> Segment | None:
        """The first program header of that PT_ number."""
        return next((each for each in self.segments if each.kind == kind), None)

    @cached_property
    def build_id(self) -> str:
        """Hexadecimal; empty where the linker left none."""
        for segment in self.segments:
            if segment.kind != PT_NOTE or segment.file_size > _MAX_NOTES:
                continue
            notes = self.read(segment.offset, segment.file_size)
            step = 8 if segment.align == 8 else 4
            at = 0
            while at + 12 <= len(notes):
                name_size, value_size, note = struct.unpack_from("<3I", notes, at)
                value = at + 12 + -(-name_size // step) * step
                if note == _NT_GNU_BUILD_ID and notes[at + 12 : at + 16] == b"GNU\0":
                    return notes[value : value + min(value_size, _MAX_BUILD_ID)].hex()
                at = value + -(-value_size // step) * step
        return ""
