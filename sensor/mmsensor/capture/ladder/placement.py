"""Moves probes to where they are cheap, where that is proven to change nothing.

A probe replaces an instruction. A push, a jump or a NOP the kernel carries out by itself; of any other the
processor steps through a copy, which costs ten times as much, on every call of the probed program. Most
builds of libssl begin SSL_read and SSL_write with such another (`sub $24, %rsp`, `endbr64`). Two ways out:

(a) Onwards to the first cheap instruction, if there the stack pointer and every argument are still what
    they were, and nothing in the file jumps to it or to what was passed on the way: then every call comes
    by once, as it did at the first. The search for jumps is made for functions that move bytes; those that
    are called a few times a connection profit where it was.
(b) Into the function underneath. In OpenSSL SSL_read and SSL_read_ex only pass their arguments on to
    ssl_read_internal, and SSL_write and its sisters to ssl_write_internal. Where following the instructions
    shows that all of them arrive at the same function, with the arguments that it has in OpenSSL's source,
    on the only way on which bytes are moved, that one is probed in their place. It is called by OpenSSL's
    own BIOs too, whose bytes go through none of the others.

An instruction that is not known, a jump whose target is not, an argument that was touched: each ends the
proof, and the probe stays at the function's first instruction, where it is right and dear.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from mmsensor.capture.functions import Function
from mmsensor.capture.hooks import BY_NAME
from mmsensor.capture.ladder import instructions
from mmsensor.capture.ladder.elf import PF_X, PT_LOAD, ElfFile, NotElf, Segment
from mmsensor.capture.ladder.instructions import GREATER, LESS_EQUAL, Instruction, Op
from mmsensor.capture.ladder.symbols import exported

_MAX_STEPS = 24  # instructions that a proof follows; the longest that is known takes eleven
#: Jumps to a place are looked for in all of the file's code. More than this would take too long in the
#: daemon: libssl has half of one MiB, and takes 12 ms.
_MAX_CODE = 2 << 20
_NEAR_JUMP = re.compile(rb"[\xe8\xe9]|\x0f[\x80-\x8f]")
_SHORT_JUMP = re.compile(rb"[\x70-\x7f\xeb]")
_SHORT_REACH = 128 + 2
_DISTANCE = struct.Struct("<i")
_POINTER = 8


class _Value(NamedTuple):
    """What is known of a register: what it held at the start, perhaps of that only the lower 32 bits
    (extended); an address in the stack, relative to where it was; a number; or a call's result."""

    kind: str  # "argument", "lower", "stack", "number", "result" or "unknown"
    number: int = 0


_UNKNOWN = _Value("unknown")
_RESULT = _Value("result")


def _argument(register: int) -> _Value:
    return _Value("argument", register)


_S, _BUFFER = _argument(instructions.RDI), _argument(instructions.RSI)
_THIRD, _FOURTH = _argument(instructions.RDX), _argument(instructions.RCX)
_FIFTH, _SIXTH = _argument(instructions.R8), _argument(instructions.R9)
_SIZE = _Value("lower", instructions.RDX)  # `int num`, not negative, as a size_t
_NO_FLAGS = _Value("number", 0)
_LOCAL = _Value("stack")  # a variable of the caller
_ARGUMENTS = (_S, _BUFFER, _THIRD, _FOURTH, _FIFTH, _SIXTH)

#: Registers that a called function gives back as they were, and instructions that leave the flags alone.
_KEPT_BY_CALLS = (instructions.RBX, instructions.RSP, instructions.RBP, 12, 13, 14, 15)
_KEEP_FLAGS = (Op.PUSH, Op.MOVE, Op.LOAD, Op.BRANCH)

_Arguments = tuple[_Value, ...]


class _Wrapper(NamedTuple):
    """A public function and what it passes on to the one underneath. `reports_itself`: its result is the
    count, so that it must look into the count's place, and shows us that this is the place."""

    name: str
    passes: _Arguments
    reports_itself: bool = False


class _Underneath(NamedTuple):
    """A function of OpenSSL's source, by the row of hooks.HOOKS that says where its arguments are."""

    name: str
    wrappers: tuple[_Wrapper, ...]
    must_not: tuple[str, ...] = ()  # functions that arrive at it would show that it is another


_UNDERNEATH = (
    # int ssl_read_internal(SSL *s, void *buf, size_t num, size_t *readbytes)
    _Underneath(
        "ssl_read_internal",
        (
            _Wrapper("SSL_read", (_S, _BUFFER, _SIZE, _LOCAL, _FIFTH, _SIXTH), reports_itself=True),
            _Wrapper("SSL_read_ex", _ARGUMENTS),
        ),
        must_not=("SSL_peek", "SSL_peek_ex", "SSL_write", "SSL_write_ex"),
    ),
    # int ssl_write_internal(SSL *s, const void *buf, size_t num, size_t *written), before 3.3
    _Underneath(
        "ssl_write_internal",
        (
            _Wrapper("SSL_write", (_S, _BUFFER, _SIZE, _LOCAL, _FIFTH, _SIXTH), reports_itself=True),
            _Wrapper("SSL_write_ex", _ARGUMENTS),
        ),
        must_not=("SSL_read", "SSL_read_ex", "SSL_write_ex2"),
    ),
    # ... and with uint64_t flags before the last, since
    _Underneath(
        "ssl_write_internal_flags",
        (
            _Wrapper("SSL_write", (_S, _BUFFER, _SIZE, _NO_FLAGS, _LOCAL, _SIXTH), reports_itself=True),
            _Wrapper("SSL_write_ex", (_S, _BUFFER, _THIRD, _NO_FLAGS, _FOURTH, _SIXTH)),
            _Wrapper("SSL_write_ex2", _ARGUMENTS),
        ),
        must_not=("SSL_read", "SSL_read_ex"),
    ),
)


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


class _NotProven(Exception):
    """Why a probe stays where it is."""


class _Walk:
    """Follows one function from its first instruction, keeping what is known of the registers."""

    def __init__(self, placer: _Placer, entry: int) -> None:
        self.at = entry
        self.registers = [_argument(number) for number in range(instructions.REGISTERS)]
        self.registers[instructions.RSP] = _Value("stack", 0)
        self.tested: _Value | None = None  # by the flags, on 32 bits
        self._placer = placer

    @property
    def stack(self) -> int | None:
        """Where the stack pointer is, relative to the start; None where that is not known."""
        value = self.registers[instructions.RSP]
        return value.number if value.kind == "stack" else None

    @property
    def arguments(self) -> _Arguments:
        return tuple(self.registers[value.number] for value in _ARGUMENTS)

    def here(self) -> Instruction:
        found = instructions.decode(self._placer.code(self.at), 0)
        if found is None:
            raise _NotProven(f"an unknown instruction at {self.at:#x}")
        return found

    def jump(self, step: Instruction) -> None:
        self.at += step.size + step.value

    def do(self, step: Instruction) -> None:
        """Carries out an instruction that leads to the next one."""
        self.at += step.size
        if step.op is Op.TEST and not step.wide:
            self.tested = self.registers[step.of]
        elif step.op not in _KEEP_FLAGS:
            self.tested = None
        if step.to >= 0 or step.op is Op.PUSH:
            self._change(step)
        elif step.op not in (Op.NOTHING, Op.TEST):
            raise _NotProven(f"a branch at {self.at - step.size:#x}")

    def _change(self, step: Instruction) -> None:
        if step.op is Op.PUSH:
            self._set(instructions.RSP, self._moved(instructions.RSP, -_POINTER))
        elif step.op is Op.CONSTANT:
            self._set(step.to, _Value("number", step.value))
        elif step.op is Op.MOVE:
            self._set(step.to, self._narrowed(step))
        elif step.op is Op.ADDRESS:
            self._set(step.to, self._moved(step.of, step.value))
        else:
            self._set(step.to, _UNKNOWN)

    def call(self, step: Instruction) -> None:
        """What is left after a function was called, and has returned."""
        self.at += step.size
        self.tested = None
        for register in range(instructions.REGISTERS):
            if register not in _KEPT_BY_CALLS:
                self._set(register, _UNKNOWN)
        self._set(instructions.RAX, _RESULT)

    def _set(self, register: int, value: _Value) -> None:
        self.registers[register] = value

    def _moved(self, register: int, distance: int) -> _Value:
        value = self.registers[register]
        return _Value("stack", value.number + distance) if value.kind == "stack" else _UNKNOWN

    def _narrowed(self, step: Instruction) -> _Value:
        value = self.registers[step.of]
        if step.wide:
            return value
        # Of a number or address we keep nothing: no compiler takes a half of one here.
        return _Value("lower", value.number) if value.kind == "argument" else _UNKNOWN


class _Placer:
    def __init__(self, file: ElfFile) -> None:
        self._file = file
        self._jumped_to: set[int] | None = None

    def place(self, functions: tuple[Function, ...]) -> Placement:
        notes: list[str] = []
        present = {each.name: each for each in functions}
        for underneath in _UNDERNEATH:
            self._replace(underneath, present, notes)
        for name, function in sorted(present.items(), key=lambda item: not BY_NAME[item[0]].moves):
            if function.stack_shift or function.returns:
                continue  # placed by the strategy that found it
            try:
                entry = self._cheap(function.entry, often=bool(BY_NAME[name].moves))
            except _NotProven as why:
                notes.append(f"{name} stays at its first instruction: {why}")
                continue
            if entry != function.entry:
                present[name] = replace(function, entry=entry)
                notes.append(f"{name} is probed {entry - function.entry} bytes on")
        return Placement(tuple(present.values()), tuple(notes))

    # -- (a) ---------------------------------------------------------------------------------------

    def _cheap(self, entry: int, *, often: bool) -> int:
        """The first place in a function that is cheap to probe; `often`: it is worth a search for jumps to
        it. Raises _NotProven."""
        walk = _Walk(self, entry)
        passed: list[int] = []
        for _ in range(_MAX_STEPS):
            step = walk.here()
            if walk.stack != 0 or walk.arguments != _ARGUMENTS:
                raise _NotProven("the stack pointer or an argument changes before a cheap one")
            if step.emulated:
                places = [*passed, walk.at][1:]
                if places and not often and self._jumped_to is None:
                    raise _NotProven("it is not called often enough to search for jumps past it")
                self._only_way(entry, places)
                return walk.at
            passed.append(walk.at)
            walk.do(step)
        raise _NotProven("no cheap instruction is near")

    def _only_way(self, entry: int, places: Iterable[int]) -> None:
        """That nothing jumps to `places`, which follow a function's `entry` one by one."""
        for place in places:
            if place in self._jumps(entry) or place in self._short_jumps_back(place):
                raise _NotProven("something may jump past its first instruction")

    def _jumps(self, entry: int) -> set[int]:
        """Where the file's near jumps and calls go to. The bytes are searched, not disassembled: every jump
        is found, and some that are none."""
        if self._jumped_to is None:
            segment = self._segment(entry)
            if segment.file_size > _MAX_CODE:
                raise _NotProven("the file has too much code to look for jumps into it")
            code = self._file.read(segment.offset, segment.file_size, limit=_MAX_CODE)
            last = len(code) - _DISTANCE.size
            found = [match.end() for match in _NEAR_JUMP.finditer(code)]
            behind = segment.offset + _DISTANCE.size
            self._jumped_to = {behind + at + _DISTANCE.unpack_from(code, at)[0] for at in found if at <= last}
        return self._jumped_to

    def _short_jumps_back(self, place: int) -> set[int]:
        """Where the short jumps behind a place go to, as far as they can reach it."""
        code = self.code(place, _SHORT_REACH)
        return {
            place
            + match.end()
            + 1
            + int.from_bytes(code[match.end() : match.end() + 1], "little", signed=True)
            for match in _SHORT_JUMP.finditer(code, 0, len(code) - 1)
        }

    # -- (b) ---------------------------------------------------------------------------------------

    def _replace(self, underneath: _Underneath, present: dict[str, Function], notes: list[str]) -> None:
        """Puts the function underneath in the place of its wrappers, where that is proven and pays."""
        wrappers = [each for each in underneath.wrappers if each.name in present]
        if not wrappers or not wrappers[0].reports_itself:
            return
        try:
            if all(self._begins_cheap(present[each.name].entry) for each in wrappers):
                return
            (entry,) = self._arrivals([(each, present[each.name].entry) for each in wrappers])
            self._none_arrives(underneath.must_not, entry)
            entry = self._cheap(entry, often=True)
        except (_NotProven, ValueError):
            return  # (a) says why they stay
        for each in wrappers:
            del present[each.name]
        present[underneath.name] = Function(underneath.name, entry)
        notes.append(f"{underneath.name} is probed for {', '.join(each.name for each in wrappers)}")

    def _begins_cheap(self, entry: int) -> bool:
        first = instructions.decode(self.code(entry), 0)
        return first is not None and first.emulated

    def _arrivals(self, wrappers: Sequence[tuple[_Wrapper, int]]) -> set[int]:
        """Where the wrappers, given with their entries, arrive; one may go through another that passes on
        its arguments as they are."""
        arrivals = {start: self._arrival(wrapper, start) for wrapper, start in wrappers}
        through = {start: arrivals[start] for wrapper, start in wrappers if wrapper.passes == _ARGUMENTS}
        return {through.get(arrival, arrival) for arrival in arrivals.values()}

    def _arrival(self, wrapper: _Wrapper, entry: int) -> int:
        """The function that a wrapper calls with what it should. Raises _NotProven."""
        walk = self._called(entry, only_if_size=wrapper.reports_itself)
        expected = list(wrapper.passes)
        if wrapper.reports_itself:
            local = expected.index(_LOCAL)
            expected[local] = self._own_variable(walk, walk.arguments[local])
        if walk.arguments != tuple(expected):
            raise _NotProven("other arguments than expected")
        call = walk.here()
        target = walk.at + call.size + call.value
        self._segment(target)
        if wrapper.reports_itself:
            walk.call(call)
            self._reports(walk, expected[local].number)
        return target

    def _called(self, entry: int, *, only_if_size: bool) -> _Walk:
        """Follows a function to its first call, which comes on every way through it; `only_if_size`: on
        every way on which its third argument, an int, is not negative."""
        walk = _Walk(self, entry)
        for _ in range(_MAX_STEPS):
            step = walk.here()
            if step.op is Op.CALL:
                return walk
            if step.op is Op.JUMP:
                walk.jump(step)
            elif step.op is Op.BRANCH and only_if_size:
                self._past_negative(walk, step)
            else:
                walk.do(step)
        raise _NotProven("no call is near")

    def _past_negative(self, walk: _Walk, step: Instruction) -> None:
        known = walk.tested in (_THIRD, _SIZE)
        if not known or step.condition not in (instructions.SIGN, instructions.NO_SIGN):
            raise _NotProven(f"a branch at {walk.at:#x}")
        if step.condition == instructions.NO_SIGN:
            walk.jump(step)
        else:
            walk.at += step.size

    def _own_variable(self, walk: _Walk, value: _Value) -> _Value:
        """The value, if it is the address of a size_t between the stack pointer and the return address."""
        if value.kind != "stack" or walk.stack is None or not walk.stack <= value.number <= -_POINTER:
            raise _NotProven("the count's place is not a variable of the caller")
        return value

    def _reports(self, walk: _Walk, place: int) -> None:
        """That what follows the call returns the count at `place` where the result is above zero."""
        positive = False
        for _ in range(_MAX_STEPS):
            step = walk.here()
            tested = walk.tested == _RESULT
            if step.op is Op.LOAD and step.to == instructions.RAX:
                chosen = step.condition is None if positive else tested and step.condition == GREATER
                if chosen and walk.registers[step.of] == _Value("stack", place - step.value):
                    return
            if step.to == instructions.RAX:
                break
            if step.op is not Op.BRANCH:
                walk.do(step)
            elif not positive and tested and step.condition in (LESS_EQUAL, GREATER):
                positive = True
                walk.at += step.size + (step.value if step.condition == GREATER else 0)
            else:
                break
        raise _NotProven("the result is not the count")

    def _none_arrives(self, names: Iterable[str], entry: int) -> None:
        """That none of the exported functions `names` calls the function at `entry` first."""
        for start in exported(self._file, names).values():
            try:
                walk = self._called(start, only_if_size=True)
            except _NotProven:
                continue  # no thin wrapper, or one of something else
            call = walk.here()
            if walk.at + call.size + call.value == entry:
                raise _NotProven("a function that does something else calls it too")

    # -- the file ----------------------------------------------------------------------------------

    def _segment(self, offset: int) -> Segment:
        """The code that an offset is in. Inside of it offsets are as far apart as addresses are."""
        for segment in self._file.segments:
            within = 0 <= offset - segment.offset < segment.file_size
            if within and segment.kind == PT_LOAD and segment.flags & PF_X:
                return segment
        raise _NotProven(f"a jump out of the code, to {offset:#x}")

    def code(self, offset: int, size: int = instructions.LONGEST) -> bytes:
        """Up to `size` bytes of code; fewer at its end."""
        segment = self._segment(offset)
        return self._file.read(offset, min(size, segment.offset + segment.file_size - offset))
