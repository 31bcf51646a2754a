"""Follows a function instruction by instruction, keeping what is certain of its registers.

Not an emulator: of a register is known what it held at the start, an address in the stack, a constant, or
nothing. What cannot be followed raises NotProven, so that whoever asks is left with what it knew before.
"""

from __future__ import annotations

from typing import NamedTuple

from mmsensor.capture.ladder import instructions
from mmsensor.capture.ladder.elf import PF_X, PT_LOAD, ElfFile, Segment
from mmsensor.capture.ladder.instructions import Instruction, Op

MAX_STEPS = 24  # instructions that a proof follows; the longest that is known takes eleven
POINTER = 8

#: Registers that a called function gives back as they were, and instructions that leave the flags alone.
_KEPT_BY_CALLS = (instructions.RBX, instructions.RSP, instructions.RBP, 12, 13, 14, 15)
_KEEP_FLAGS = (Op.PUSH, Op.MOVE, Op.LOAD, Op.BRANCH)


class NotProven(Exception):
    """Why something could not be shown, for people."""


class Value(NamedTuple):
    """What is known of a register. `kind` says what `number` is:

    - "argument": the register that held it at the start
    - "lower": the same, of which only the lower 32 bits count; the upper ones extend them
    - "stack": an address, in bytes from where the stack pointer was at the start
    - "number": itself
    - "result": nothing, but the value is what the last call gave back
    - "unknown": nothing
    """

    kind: str
    number: int = 0


def _argument(register: int) -> Value:
    return Value("argument", register)


UNKNOWN = Value("unknown")
RESULT = Value("result")
#: In C's order.
ARGUMENTS = tuple(
    map(
        _argument,
        (
            instructions.RDI,
            instructions.RSI,
            instructions.RDX,
            instructions.RCX,
            instructions.R8,
            instructions.R9,
        ),
    )
)


class Code:
    """The executable bytes of a file, by file offset."""

    def __init__(self, file: ElfFile) -> None:
        self.file = file

    def segment(self, offset: int) -> Segment:
        """The code that an offset is in. Inside of it offsets are as far apart as addresses are."""
        for segment in self.file.segments:
            within = 0 <= offset - segment.offset < segment.file_size
            if within and segment.kind == PT_LOAD and segment.flags & PF_X:
                return segment
        raise NotProven(f"a jump out of the code, to {offset:#x}")

    def at(self, offset: int, size: int = instructions.LONGEST) -> bytes:
        """Up to `size` bytes; fewer at the end of the code."""
        segment = self.segment(offset)
        return self.file.read(offset, min(size, segment.offset + segment.file_size - offset))

    def instruction(self, offset: int) -> Instruction:
        found = instructions.decode(self.at(offset), 0)
        if found is None:
            raise NotProven(f"an unknown instruction at {offset:#x}")
        return found


class Walk:
    """A function, as far as it was followed: `at` is the next instruction."""

    def __init__(self, code: Code, entry: int) -> None:
        self.at = entry
        self.registers = [_argument(number) for number in range(instructions.REGISTERS)]
        self.registers[instructions.RSP] = Value("stack", 0)
        #: What the flags tell of, where that is the lower 32 bits of one value.
        self.tested: Value | None = None
        self._code = code

    @property
    def stack(self) -> int | None:
        """Where the stack pointer is, relative to the start; None where that is not known."""
        value = self.registers[instructions.RSP]
        return value.number if value.kind == "stack" else None

    @property
    def arguments(self) -> tuple[Value, ...]:
        """What is now where the arguments were."""
        return tuple(self.registers[value.number] for value in ARGUMENTS)

    def here(self) -> Instruction:
        return self._code.instruction(self.at)

    def target(self) -> int:
        """Where the jump or call goes that is next."""
        step = self.here()
        target = self.at + step.size + step.value
        self._code.segment(target)
        return target

    def do(self, step: Instruction) -> None:
        """Carries out an instruction that leads to the one behind it."""
        self.at += step.size
        if step.op is Op.TEST and not step.wide:
            self.tested = self.registers[step.of]
        elif step.op not in _KEEP_FLAGS:
            self.tested = None
        if step.op is Op.PUSH:
            self.registers[instructions.RSP] = self._moved(instructions.RSP, -POINTER)
        elif step.to >= 0:
            self.registers[step.to] = self._written(step)
        elif step.op not in (Op.NOTHING, Op.TEST):
            raise NotProven(f"a branch at {self.at - step.size:#x}")

    def go(self, step: Instruction, *, jumps: bool) -> None:
        """Follows a jump or branch, or passes by."""
        self.at += step.size + (step.value if jumps else 0)

    def call(self, step: Instruction) -> None:
        """What is left after a function was called, and has returned."""
        self.at += step.size
        self.tested = None
        for register in range(instructions.REGISTERS):
            if register not in _KEPT_BY_CALLS:
                self.registers[register] = UNKNOWN
        self.registers[instructions.RAX] = RESULT

    def _written(self, step: Instruction) -> Value:
        if step.op is Op.CONSTANT:
            return Value("number", step.value)
        if step.op is Op.ADDRESS:
            return self._moved(step.of, step.value)
        if step.op is not Op.MOVE:
            return UNKNOWN
        value = self.registers[step.of]
        if step.wide:
            return value
        # Of a number or address we keep nothing: no compiler takes a half of one here.
        return Value("lower", value.number) if value.kind == "argument" else UNKNOWN

    def _moved(self, register: int, distance: int) -> Value:
        value = self.registers[register]
        return Value("stack", value.number + distance) if value.kind == "stack" else UNKNOWN
