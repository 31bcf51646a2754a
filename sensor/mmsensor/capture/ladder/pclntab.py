"""Go's table of its own functions (pclntab): by name to addresses, in stripped files too.

The runtime needs the table to unwind stacks, so every Go program carries it whatever was stripped. Its
function addresses count from the start of Go's text, which only the runtime's `moduledata` says for every
version. That is found by its first field, the address of the table, and believed only when all its other
pointers into the table are what the table itself says: no other bytes of a file do that by chance.

Formats of Go 1.18 and later, as `runtime/symtab.go` has them; older ones are recognised and not read.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from mmsensor.capture.ladder.elf import PF_W, PF_X, PT_DYNAMIC, PT_LOAD, ElfFile, NotElf

#: Names of the section, by link mode and version.
_SECTIONS = (".gopclntab", ".data.rel.ro.gopclntab")
_MAGICS = (b"\xf0\xff\xff\xff", b"\xf1\xff\xff\xff")  # Go 1.18 and 1.20
_OLD_MAGICS = (b"\xfb\xff\xff\xff", b"\xfa\xff\xff\xff")  # Go 1.2 and 1.16
_SIZES = b"\0\0\x01\x08"  # two zeros, instructions of one byte (x86), pointers of eight

# Magic and sizes, number of functions and files, the text's start (not in every version), then where the
# parts are: names, compilation units, files, pctab, functions.
_HEADER = struct.Struct("<4s4s8Q")
# moduledata as far as the end of the text: the header's address, slices of the five parts and of the function
# index (address, length, capacity), findfunctab, first and last address in the index, text, end of the text.
_MODULE = struct.Struct("<24Q")
_INDEX_ENTRY = struct.Struct("<2I")  # function's start in the text, its record in the functions part
_RELOCATION = struct.Struct("<3Q")  # address, type, addend
_R_X86_64_RELATIVE = 8
_DT_RELA, _DT_RELASZ = 7, 8
_MAX_FUNCTIONS = 1 << 23


class TooOld(Exception):
    """A table of Go 1.17 or older."""


class NoTable(Exception):
    """There is a table, but not one that can be believed. The text says what is wrong with it."""


class Span(NamedTuple):
    """Addresses of a function's code: first byte, and first byte after it."""

    start: int
    end: int


class _Module(NamedTuple):
    """What the table is made of; addresses and sizes in bytes, `functions` in entries."""

    text: int
    names: int
    names_size: int
    records: int
    records_size: int
    functions: int


class FunctionTable:
    """The table of one file. Methods raise NotElf and OSError."""

    def __init__(self, file: ElfFile, module: _Module) -> None:
        self._file = file
        self._module = module
        self._index = file.offset_of(module.records)

    def find(self, name: str) -> Span | None:
        """The function of that name; None where there is none, or more than one."""
        at = self._name(name.encode())
        if at is None:
            return None
        found = list(self._named(at))
        return found[0] if len(found) == 1 else None

    def _name(self, name: bytes) -> int | None:
        """Where in the names part a name is. The linker writes each once."""
        start = self._file.offset_of(self._module.names)
        wanted = b"\0" + name + b"\0"
        found = next(_occurrences(self._file, start, self._module.names_size, wanted), None)
        return None if found is None else found + 1 - start

    def _named(self, name_at: int) -> Iterator[Span]:
        """Functions with that name. Their records are searched for its position, which is the second of a
        record's fields, and what is found counts where the index has a function with just this record."""
        wanted = name_at.to_bytes(4, "little")
        for offset in _occurrences(self._file, self._index, self._module.records_size, wanted):
            record = offset - 4 - self._index
            if record >= 0 and record % 4 == 0:
                span = self._indexed(self._file.u32(offset - 4), record)
                if span:
                    yield span

    def _indexed(self, start: int, record: int) -> Span | None:
        """By binary search: the index is in the order of addresses."""
        low, high = 0, self._module.functions
        while low < high:
            middle = (low + high) // 2
            if self.entry(middle)[0] < start:
                low = middle + 1
            else:
                high = middle
        if low >= self._module.functions or self.entry(low) != (start, record):
            return None
        return Span(self._module.text + start, self._module.text + self.entry(low + 1)[0])

    def entry(self, number: int) -> tuple[int, int]:
        """Of the index, by number: where the function starts in the text, and where its record is. The one
        after the last function says where that ends."""
        raw = self._file.read(self._index + number * _INDEX_ENTRY.size, _INDEX_ENTRY.size)
        start, record = _INDEX_ENTRY.unpack(raw)
        return start, record


def read_table(file: ElfFile) -> FunctionTable | None:
    """None where the file is not Go's. Raises TooOld, NoTable, NotElf and OSError."""
    old = False
    damaged = ""
    for offset in _candidates(file):
        raw = file.read(offset, _HEADER.size)
        if raw[:4] in _OLD_MAGICS:
            old = True
            continue
        try:
            return FunctionTable(file, _module(file, offset))
        except NoTable as error:
            damaged = str(error)
    if damaged:
        raise NoTable(damaged)
    if old:
        raise TooOld
    return None


def mentions(file: ElfFile, name: str) -> bool:
    """Whether a function's name stands anywhere in what the program has in memory, table or no table."""
    wanted = b"\0" + name.encode() + b"\0"
    return any(
        next(_occurrences(file, segment.offset, segment.file_size, wanted), None) is not None
        for segment in file.segments
        if segment.kind == PT_LOAD
    )


def _candidates(file: ElfFile) -> Iterator[int]:
    """Offsets in the file of what begins as the table does. Other linkers than Go's and GNU's make it a part
    of a larger section, and section headers may be gone altogether."""
    sections = [section for name in _SECTIONS if (section := file.section(name))]
    if sections:
        for section in sections:
            if file.read(section.offset, 8)[4:] == _SIZES:
                yield section.offset
        return
    for segment in file.segments:
        if segment.kind != PT_LOAD:
            continue
        for magic in _MAGICS + _OLD_MAGICS:
            yield from _occurrences(file, segment.offset, segment.file_size, magic + _SIZES)


def _module(file: ElfFile, offset: int) -> _Module:
    """The module that the table at this offset belongs to."""
    fields = _HEADER.unpack(file.read(offset, _HEADER.size))
    magic, _sizes, functions, _files, _text, *parts = fields
    if magic not in _MAGICS or not 0 < functions < _MAX_FUNCTIONS:
        raise NoTable("its header is of no known version")
    header = file.address_of(offset)
    for module in _pointing_at(file, header):
        # The index of functions is the start of the part that holds their records.
        addresses = [header, *(header + part for part in (*parts, parts[-1]))]
        if module[0:1] + module[1:17:3] == tuple(addresses) and module[17] == functions + 1:
            return _checked(file, module, functions)
    raise NoTable("nothing in the file points at all its parts")


def _checked(file: ElfFile, module: tuple[int, ...], functions: int) -> _Module:
    names, names_size = module[1:3]
    records, records_size = module[13:15]
    first, last, text, text_end = module[20:24]
    found = _Module(text, names, names_size, records, records_size, functions)
    if not text <= first < last <= text_end:
        raise NoTable("its functions are outside of the text")
    table = FunctionTable(file, found)
    if first != text + table.entry(0)[0] or last != text + table.entry(functions)[0]:
        raise NoTable("its functions are not where the text is")
    with suppress(NotElf):
        file.offset_of(first, PF_X)
        return found
    raise NoTable("its functions are not in code")


def _pointing_at(file: ElfFile, address: int) -> Iterator[tuple[int, ...]]:
    """What could be a moduledata: 24 words of writable data of which the first is this address, be it stored
    there or, in position-independent files, filled in by a relocation."""
    wanted = address.to_bytes(8, "little")
    for segment in file.segments:
        if segment.kind != PT_LOAD or not segment.flags & PF_W:
            continue
        for offset in _occurrences(file, segment.offset, segment.file_size, wanted):
            with suppress(NotElf):
                yield _MODULE.unpack(file.read(offset, _MODULE.size))
    yield from _relocated(file, address)


def _relocated(file: ElfFile, address: int) -> Iterator[tuple[int, ...]]:
    """The same through the relocations. Those of one structure stand together, in the order of its fields."""
    table = _relocations(file)
    if table is None:
        return
    start, size = table
    wanted = address.to_bytes(8, "little")
    for offset in _occurrences(file, start, size, wanted):
        entry = offset - 2 * 8  # the addend is the last of three words
        if entry >= start and (entry - start) % _RELOCATION.size == 0:
            with suppress(NotElf):
                yield _fill_in(file, entry, start + size)


def _relocations(file: ElfFile) -> tuple[int, int] | None:
    """Offset and size of the table of relocations."""
    dynamic = file.segment(PT_DYNAMIC)
    if dynamic is None:
        return None
    raw = file.read(dynamic.offset, dynamic.file_size - dynamic.file_size % 16)
    tags = dict(struct.iter_unpack("<QQ", raw))
    if _DT_RELA not in tags or _DT_RELASZ not in tags:
        return None
    return file.offset_of(tags[_DT_RELA]), tags[_DT_RELASZ]


def _fill_in(file: ElfFile, entry: int, end: int) -> tuple[int, ...]:
    """The 24 words of which this relocation fills in the first."""
    size = min(end - entry, _MODULE.size // 8 * _RELOCATION.size)
    relocations = list(_RELOCATION.iter_unpack(file.read(entry, size - size % _RELOCATION.size)))
    base = relocations[0][0]
    words = list(_MODULE.unpack(file.read(file.offset_of(base), _MODULE.size)))
    for address, kind, addend in relocations:
        number, odd = divmod(address - base, 8)
        if kind == _R_X86_64_RELATIVE and not odd and 0 <= number < len(words):
            words[number] = addend
    return tuple(words)


def _occurrences(file: ElfFile, start: int, size: int, wanted: bytes) -> Iterator[int]:
    """Offsets in the file of these bytes within a range, each once, in order."""
    for offset, data in file.chunks(start, size, overlap=len(wanted) - 1):
        found = data.find(wanted)
        while found >= 0:
            yield offset + found
            found = data.find(wanted, found + 1)
