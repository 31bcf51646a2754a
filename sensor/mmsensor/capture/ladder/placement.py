"""Moves probes to where they are cheap, where that is proven to change nothing.

A probe replaces an instruction. A push, a jump or a NOP the kernel carries out by itself; of any other the
processor steps through a copy, which costs ten times as much, on every call of the probed program. Most
builds of libssl begin SSL_read and SSL_write with such another (`sub $24, %rsp`, `endbr64`). Two ways out:

(a) Onwards to the first cheap instruction, if there the stack pointer and every argument are still what
    they were, and nothing in the file jumps to it or to what was passed on the way: then every call comes
    by once, as it did at the first. The search for jumps is made for functions that move bytes; those that
    are called a few times a connection profit where it was.
(b) Into the function underneath (underneath.py), which is probed in the place of all that call it. OpenSSL's
    own BIOs call it too, whose bytes go through none of the public functions.

An instruction that is not known, a jump whose target is not, an argument that was touched: each ends the
proof, and the probe stays at the function's first instruction, where it is right and dear.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from mmsensor.capture.functions import Function
from mmsensor.capture.hooks import BY_NAME
from mmsensor.capture.ladder import instructions, underneath
from mmsensor.capture.ladder.elf import ElfFile, NotElf
from mmsensor.capture.ladder.walk import ARGUMENTS, MAX_STEPS, Code, NotProven, Walk

#: Jumps to a place are looked for in all of the file's code. More than this would take too long in the
#: daemon: libssl has half of one MiB, and takes 12 ms.
_MAX_CODE = 2 << 20
_NEAR_JUMP = re.compile(rb"[\xe8\xe9]|\x0f[\x80-\x8f]")
_NEAR_DISTANCE = struct.Struct("<i")
_SHORT_JUMP = re.compile(rb"[\x70-\x7f\xeb]")
_SHORT_DISTANCE = struct.Struct("<b")
_SHORT_REACH = 128 + 2


@dataclass(frozen=True, slots=True)
class Placement:
    """The functions to probe, and one line for people for each that was moved or had to stay."""

    functions: tuple[Function, ...]
    notes: tuple[str, ...]


def place(file: ElfFile, functions: tuple[Function, ...]) -> Placement:
    """Moves what can be moved. A damaged file moves nothing: this raises only OSError."""
    if file.machine != "x86_64":
        return Placement(functions, ())
    try:
        return _Placer(file).place(functions)
    except NotElf as damage:
        return Placement(functions, (f"nothing moved: {damage}",))


class _Placer:
    def __init__(self, file: ElfFile) -> None:
        self._code = Code(file)
        self._notes: list[str] = []
        self._jumped_to: set[int] | None = None

    def place(self, functions: tuple[Function, ...]) -> Placement:
        # Functions with places of their own for returns were placed by the strategy that found them.
        free = {each.name: each for each in functions if not each.stack_shift and not each.returns}
        placed = [each for each in functions if each.name not in free]
        for one in underneath.UNDERNEATH:
            with suppress(NotProven):  # then (a) is left
                self._go_under(one, free)
        # What moves bytes comes first: only for that are jumps searched.
        ordered = sorted(free.values(), key=lambda function: not BY_NAME[function.name].moves)
        return Placement((*placed, *map(self._moved_on, ordered)), tuple(self._notes))

    def _go_under(self, one: underneath.Underneath, free: dict[str, Function]) -> None:
        """Puts the function underneath in the place of the public ones, where that pays."""
        entries = {name: function.entry for name, function in free.items()}
        public = [entries[each.name] for each in one.wrappers if each.name in entries]
        if all(map(self._begins_cheap, public)):
            return
        entry, names = underneath.find(self._code, one, entries)
        entry = self._cheap(entry, often=True)
        for name in names:
            del free[name]
        free[one.name] = Function(one.name, entry)
        self._notes.append(f"{one.name} is probed for {', '.join(names)}")

    def _begins_cheap(self, entry: int) -> bool:
        first = instructions.decode(self._code.at(entry), 0)
        return first is not None and first.emulated

    def _moved_on(self, function: Function) -> Function:
        try:
            entry = self._cheap(function.entry, often=bool(BY_NAME[function.name].moves))
        except NotProven as why:
            self._notes.append(f"{function.name} stays at its first instruction: {why}")
            return function
        if entry != function.entry:
            self._notes.append(f"{function.name} is probed {entry - function.entry} bytes on")
        return replace(function, entry=entry)

    def _cheap(self, entry: int, *, often: bool) -> int:
        """The first place in a function that is cheap to probe; `often`: it is worth a search for jumps to
        it. Raises NotProven."""
        walk = Walk(self._code, entry)
        passed: list[int] = []
        for _ in range(MAX_STEPS):
            step = walk.here()
            if walk.stack != 0 or walk.arguments != ARGUMENTS:
                raise NotProven("the stack pointer or an argument changes before a cheap one")
            if step.emulated:
                places = [*passed, walk.at][1:]
                if places and not often and self._jumped_to is None:
                    raise NotProven("it is not called often enough to search for jumps past it")
                self._only_way(entry, places)
                return walk.at
            passed.append(walk.at)
            walk.do(step)
        raise NotProven("no cheap instruction is near")

    def _only_way(self, entry: int, places: Iterable[int]) -> None:
        """That nothing jumps to `places`, which follow a function's `entry` one by one."""
        for place in places:
            if place in self._near_jumps(entry) or place in self._short_jumps_from(place):
                raise NotProven("something may jump past its first instruction")

    def _near_jumps(self, entry: int) -> set[int]:
        """Where the file's near jumps and calls go to. The bytes are searched, not disassembled: every jump
        is found, and some that are none."""
        if self._jumped_to is None:
            segment = self._code.segment(entry)
            if segment.file_size > _MAX_CODE:
                raise NotProven("the file has too much code to look for jumps into it")
            code = self._code.file.read(segment.offset, segment.file_size, limit=_MAX_CODE)
            self._jumped_to = set(_targets(code, segment.offset, _NEAR_JUMP, _NEAR_DISTANCE))
        return self._jumped_to

    def _short_jumps_from(self, place: int) -> set[int]:
        """Where the short jumps behind a place go to, as far on as they could reach back to it."""
        return set(_targets(self._code.at(place, _SHORT_REACH), place, _SHORT_JUMP, _SHORT_DISTANCE))


def _targets(code: bytes, offset: int, opcode: re.Pattern[bytes], distance: struct.Struct) -> Iterator[int]:
    """Where all jumps of a kind go to that there may be in `code`, which begins at `offset`."""
    last, behind = len(code) - distance.size, offset + distance.size
    ends = [match.end() for match in opcode.finditer(code)]
    return (behind + at + distance.unpack_from(code, at)[0] for at in ends if at <= last)
