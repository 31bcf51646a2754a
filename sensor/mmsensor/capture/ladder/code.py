"""Machine code of a stripped file: who refers to an address, and where functions begin and end.

For the child process only (ladder/search.py): it maps whole files and disassembles them, neither of which
the daemon can afford. What is found here are candidates; the strategies decide what is certain.

Function bounds come from the unwind table, which survives `strip`. Where a linker left it out (bun, most of
Chromium) a function begins after padding that no code runs into, at a multiple of 16, and somebody calls it.
"""

from __future__ import annotations

import mmap
import re
import struct
from bisect import bisect_right
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import capstone

from mmsensor.capture.ladder import body as doing
from mmsensor.capture.ladder.elf import PF_W, PF_X, PT_GNU_EH_FRAME, PT_LOAD, ElfFile, NotElf, Segment

_LONGEST_FUNCTION = 1 << 14
_LONGEST_INSTRUCTION = 15
_LONGEST_STRING = 1 << 12
_MAX_UNWIND_TABLE = 1 << 26
#: How an address gets into an argument register: `lea reg, [rip + d]`, and `mov r32, imm` in a program that
#: is linked to run at a fixed address.
_LEA = {"rdi": b"\x48\x8d\x3d", "rsi": b"\x48\x8d\x35", "rdx": b"\x48\x8d\x15", "rcx": b"\x48\x8d\x0d"}
_MOV = {"rdi": b"\xbf", "rsi": b"\xbe", "rdx": b"\xba", "rcx": b"\xb9"}
_ANY_LEA = rb"[\x48\x4c]\x8d[\x05\x0d\x15\x1d\x25\x2d\x35\x3d]"
_ANY_MOV = tuple(bytes([0xB8 + number]) for number in range(8))
_WIDE = b"\x41"  # before an opcode: of the registers r8 to r15
_CALL = re.compile(rb"[\xe8\xe9](?=(.{4}))", re.DOTALL)
_RELOCATED = struct.Struct("<QQ")  # where, and how; what stands there is next to it
_RELATIVE = 8  # R_X86_64_RELATIVE
_ADDRESS = (1 << 64) - 1  # a damaged file may have larger ones


class Uncertain(Exception):
    """A check does not hold; the message says which, for people."""


@dataclass(frozen=True, eq=False)
class Function:
    """The function whose first byte is at address `start`; `body` are its instructions by address. Where it
    is only `padded` and not in the unwind table, it is a function if `calls_of` knows a call of it."""

    start: int
    body: list[capstone.CsInsn]
    padded: bool


class Range(NamedTuple):
    """One loaded piece of the file: address, offset and size in bytes."""

    address: int
    offset: int
    size: int


class Code:
    """The code and constants of `file`, mapped. Damage raises NotElf; a file that shrinks meanwhile kills."""

    def __init__(self, file: ElfFile) -> None:
        self.file = file
        self._bytes = mmap.mmap(file.fd, 0, prot=mmap.PROT_READ)
        self._decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
        self._decoder.detail = True
        self._functions: dict[tuple[int, int, bool], Function] = {}
        loads = [each for each in file.segments if each.kind == PT_LOAD and each.offset < file.size]
        self._loaded = [_inside(file, each) for each in loads]
        self._text = [_inside(file, each) for each in loads if each.flags & PF_X]
        # Strings of a program linked the old way are in the segment of its code.
        self._constants = [_inside(file, each) for each in loads if not each.flags & PF_W]

    def is_code(self, address: int) -> bool:
        return any(each.address <= address < each.address + each.size for each in self._text)

    def bytes_at(self, address: int, size: int) -> bytes:
        offset = self.file.offset_of(address)
        return self._bytes[offset : offset + size]

    # -- what refers to what -----------------------------------------------------------------------

    def strings(self, ending: bytes) -> list[int]:
        """Addresses of the constants `...ending`, each taken from its first printable character."""
        found = []
        for piece in self._constants:
            for at in self._find(ending + b"\0", piece):
                start = at
                while start > max(piece.offset, at - _LONGEST_STRING) and 32 <= self._bytes[start - 1] < 127:
                    start -= 1
                found.append(piece.address + start - piece.offset)
        return found

    def exact_strings(self, text: bytes) -> list[int]:
        """Addresses of the constant, also where it is the tail of a longer one: linkers share tails."""
        return [
            piece.address + at - piece.offset
            for piece in self._constants
            for at in self._find(text + b"\0", piece)
        ]

    def references(self, addresses: Collection[int], register: str = "") -> list[tuple[int, int]]:
        """(instruction, address) for each that puts one of the addresses into an argument register, or into
        any register where none is given."""
        lea = re.escape(_LEA[register]) if register else _ANY_LEA
        pattern = re.compile(lea + b"(?=(.{4}))", re.DOTALL)
        opcodes = (_MOV[register],) if register else _ANY_MOV
        wanted = frozenset(addresses)
        found = []
        for piece in self._text:
            ahead = piece.address - piece.offset
            for match in pattern.finditer(self._bytes, piece.offset, piece.offset + piece.size):
                here = match.start() + ahead
                address = here + 7 + int.from_bytes(match[1], "little", signed=True)
                if address in wanted:
                    found.append((here, address))
            for address in wanted:
                for at in self._find(struct.pack("<I", address), piece) if address < 1 << 32 else ():
                    opcode = self._bytes[max(0, at - 2) : at]
                    if opcode[1:] in opcodes:
                        wide = not register and opcode[:1] == _WIDE
                        found.append((at + ahead - (2 if wide else 1), address))
        return sorted(found)

    def pointers(self, address: int) -> list[int]:
        """Where in the data a pointer to `address` is, or will be once the loader has been there."""
        wanted = struct.pack("<Q", address & _ADDRESS)
        found = {
            piece.address + at - piece.offset
            for piece in self._loaded
            if piece not in self._text
            for at in self._find(wanted, piece)
        }
        places = set()
        for at in found:
            here = self.file.offset_of(at)
            place, kind = _RELOCATED.unpack(self._bytes[max(0, here - 16) : here].rjust(16, b"\0"))
            places.add(place if kind == _RELATIVE and self._is_loaded(place) else at)
        return sorted(places)

    def pointer_at(self, address: int) -> int:
        """The pointer in the data at `address`, as it is once the loader has been there."""
        relocation = struct.pack("<QQ", address & _ADDRESS, _RELATIVE)
        for piece in self._constants:
            for at in self._find(relocation, piece):
                return int.from_bytes(self._bytes[at + 16 : at + 24], "little")
        return int.from_bytes(self.bytes_at(address, 8), "little")

    def _is_loaded(self, address: int) -> bool:
        return any(each.address <= address < each.address + each.size for each in self._loaded)

    def calls_of(self, targets: frozenset[int]) -> dict[int, list[int]]:
        """Direct calls and tail calls in the whole of the code: each target with the addresses it is called
        from. Bytes that only look like a call are among them."""
        found: dict[int, list[int]] = {}
        for piece in self._text:
            ahead = piece.address - piece.offset + 5
            for match in _CALL.finditer(self._bytes, piece.offset, piece.offset + piece.size):
                target = match.start() + ahead + int.from_bytes(match[1], "little", signed=True)
                if target in targets:
                    found.setdefault(target, []).append(match.start() + ahead - 5)
        return found

    def _find(self, wanted: bytes, piece: Range) -> Iterator[int]:
        """File offsets of every occurrence in `piece`."""
        end = piece.offset + piece.size
        at = self._bytes.find(wanted, piece.offset, end)
        while at >= 0:
            yield at
            at = self._bytes.find(wanted, at + 1, end)

    # -- functions ---------------------------------------------------------------------------------

    def function_at(self, address: int) -> Function | None:
        """The function that `address` is in; None where it cannot be told."""
        bounds = self._unwound(address)
        if bounds:
            return self._function(*bounds, padded=False)
        for start in self._after_padding(address):
            function = self._function(start, start + _LONGEST_FUNCTION, padded=True)
            if any(each.address == address for each in function.body):
                return function
        return None

    def body_from(self, start: int) -> list[capstone.CsInsn]:
        """The instructions of the function that is known to begin at `start`; none where there is no code."""
        bounds = self._unwound(start)
        end = bounds[1] if bounds and bounds[0] == start else start + _LONGEST_FUNCTION
        return self._function(start, end, padded=False).body

    def _function(self, start: int, end: int, *, padded: bool) -> Function:
        """Follows the code from `start`, but not out of the range. What only a computed jump leads to is
        left out."""
        known = self._functions.get((start, end, padded))
        if known:
            return known
        body: dict[int, capstone.CsInsn] = {}
        ahead = [start]
        while ahead:
            at = ahead.pop()
            while start <= at < min(end, start + _LONGEST_FUNCTION) and at not in body:
                instruction = next(self._decoder.disasm(self._code_at(at), at, 1), None)
                if instruction is None:
                    break
                body[at] = instruction
                if (target := doing.jumps_to(instruction)) is not None:
                    ahead.append(target)
                if doing.ends_here(instruction):
                    break
                at += instruction.size
        function = Function(start, [body[at] for at in sorted(body)], padded)
        self._functions[start, end, padded] = function
        return function

    def _code_at(self, address: int) -> bytes:
        try:
            return self.bytes_at(address, _LONGEST_INSTRUCTION) if self.is_code(address) else b""
        except NotElf:
            return b""

    def _after_padding(self, address: int) -> Iterator[int]:
        """Multiples of 16 at or below `address` that follow an int3, which is what lld pads with."""
        for start in range(address // 16 * 16, address - _LONGEST_FUNCTION, -16):
            if self._code_at(start - 1)[:1] == b"\xcc":
                yield start

    def _unwound(self, address: int) -> tuple[int, int] | None:
        """Start and end of the function as the unwind table has it."""
        starts, entries = self._unwind_table
        index = bisect_right(starts, address) - 1
        if index < 0:
            return None
        # An entry is its length, its parent's distance, then start and size: pcrel, signed, four bytes, as
        # every x86-64 compiler has it. Where the start says otherwise it is not of that form.
        try:
            raw = self.bytes_at(entries[index], 16)
        except NotElf:
            return None
        if len(raw) < 16:
            return None
        _length, _parent, distance, size = struct.unpack("<IIiI", raw)
        start = entries[index] + 8 + distance
        return (start, start + size) if start == starts[index] and address < start + size else None

    @cached_property
    def _unwind_table(self) -> tuple[list[int], list[int]]:
        """Starts of functions in order, and the addresses of their unwind entries; empty where there is no
        table, or none with the usual encoding."""
        segment = self.file.segment(PT_GNU_EH_FRAME)
        if segment is None or segment.file_size < 12:
            return self._unwind_entries()
        raw = self.file.read(segment.offset, segment.file_size, limit=_MAX_UNWIND_TABLE)
        version, _frame, count_form, table_form = raw[:4]
        (count,) = struct.unpack_from("<I", raw, 8)
        if (version, count_form, table_form) != (1, 0x03, 0x3B) or 12 + 8 * count > len(raw):
            return [], []
        pairs = struct.unpack_from(f"<{2 * count}i", raw, 12)
        starts = [segment.address + each for each in pairs[::2]]
        return (starts, [segment.address + each for each in pairs[1::2]]) if _is_sorted(starts) else ([], [])

    def _unwind_entries(self) -> tuple[list[int], list[int]]:
        """The same from the entries themselves, as in a static program, which has no table of them."""
        section = self.file.section(".eh_frame")
        found: list[tuple[int, int]] = []
        if section is None or section.size > _MAX_UNWIND_TABLE:
            return [], []
        raw = self.file.read(section.offset, section.size, limit=_MAX_UNWIND_TABLE)
        at = 0
        while at + 16 <= len(raw):
            length, parent, distance = struct.unpack_from("<IIi", raw, at)
            if not 12 <= length < _LONGEST_FUNCTION:
                break
            if parent:
                found.append((section.address + at + 8 + distance, section.address + at))
            at += 4 + length
        found.sort()
        return [start for start, _entry in found], [entry for _start, entry in found]


def _inside(file: ElfFile, segment: Segment) -> Range:
    """What of a segment is in the file."""
    return Range(segment.address, segment.offset, min(segment.file_size, file.size - segment.offset))


def _is_sorted(numbers: list[int]) -> bool:
    return all(one <= other for one, other in pairwise(numbers))
