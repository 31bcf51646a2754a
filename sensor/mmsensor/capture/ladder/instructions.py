"""The few x86-64 instructions with which compilers begin functions, and nothing else.

Runs inside the daemon on other people's files, so it is a table and not a disassembler: what it does not
know it does not guess at (`decode` gives None), and its caller's proof ends there. What an instruction does
is told as far as the proofs in placement.py need it: which register it writes, and from what.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, auto

RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8, R9 = range(10)
REGISTERS = 16
LONGEST = 15  # bytes an instruction can have

#: The low four bits of a conditional instruction's opcode.
SIGN, NO_SIGN, LESS_EQUAL, GREATER = 0x8, 0x9, 0xE, 0xF


class Op(Enum):
    """What an instruction does to registers; `to`, `of` and `value` are fields of Instruction."""

    NOTHING = auto()  # flags or memory at most
    PUSH = auto()
    CONSTANT = auto()  # to = value
    MOVE = auto()  # to = of
    ADDRESS = auto()  # to = of + value
    LOAD = auto()  # to = memory at of + value; only where `condition` holds, if it has one
    CLOBBER = auto()  # to = who knows
    TEST = auto()  # flags of `of`
    JUMP = auto()  # by `value` from its end
    BRANCH = auto()  # by `value` from its end where `condition` holds
    CALL = auto()  # to `value` from its end


@dataclass(frozen=True, slots=True)
class Instruction:
    """`wide`: on 64 bits; otherwise on the lower 32, and the upper ones of `to` become `signed` or zero.

    `emulated`: the kernel carries it out by itself when a probe sits on it, instead of letting the
    processor step through a copy: an order of magnitude cheaper. True of pushes, jumps and the one-byte
    NOP since Linux 4.15 (arch/x86/kernel/uprobes.c); of calls too, but where one comes the stack pointer has
    moved, so that no probe would be put there.
    """

    op: Op
    size: int
    to: int = -1
    of: int = -1
    value: int = 0
    condition: int | None = None
    wide: bool = True
    signed: bool = False
    emulated: bool = False


@dataclass(frozen=True, slots=True)
class _Operands:
    """What a ModRM byte says: `register`, and either `other` (a register) or memory at `base` +
    `displacement`. `other` is -1 for memory, `base` for an address of any other form."""

    register: int
    other: int
    base: int
    displacement: int
    end: int


@dataclass(frozen=True, slots=True)
class _Start:
    """An instruction up to and with its opcode; `after` is what follows it."""

    code: bytes
    begin: int
    after: int
    opcode: int
    rex: int
    segment: bool  # memory operands are relative to fs

    @property
    def wide(self) -> bool:
        return bool(self.rex & _REX_W)

    def signed(self, at: int, size: int) -> int:
        return int(struct.unpack_from("<b" if size == 1 else "<i", self.code, at)[0])

    def operands(self) -> _Operands:
        modrm, at = self.code[self.after], self.after + 1
        mode, low = modrm >> 6, modrm & 7
        register = modrm >> 3 & 7 | (self.rex & _REX_R) << 1
        extended = (self.rex & _REX_B) << 3
        if mode == 3:
            return _Operands(register, low | extended, -1, 0, at)
        indexed = False
        if low == 4:
            sib, at = self.code[at], at + 1
            indexed = bool(sib >> 3 & 7 != 4 or self.rex & _REX_X)
            low = sib & 7
        absolute = mode == 0 and low == 5  # or relative to the instruction
        size = 4 if absolute else (0, 1, 4)[mode]
        displacement = self.signed(at, size) if size else 0
        base = -1 if absolute or indexed or self.segment else low | extended
        return _Operands(register, -1, base, displacement, at + size)


_Decoder = Callable[[_Start], Instruction | None]
_REX_W, _REX_R, _REX_X, _REX_B = 8, 4, 2, 1
_FS = 0x64

# endbr64, and NOPs of all lengths as assemblers pad with them; the long ones have a ModRM byte.
_ENDBR = b"\xf3\x0f\x1e\xfa"
_LONG_NOP = re.compile(rb"\x66*\x2e?\x0f\x1f")
_PREFIXED_NOP = re.compile(rb"\x66+\x90")


def decode(code: bytes, at: int) -> Instruction | None:
    """The instruction at `at`; None where it is not one of the few, or `code` ends in it."""
    try:
        found = _padding(code, at) or _table_entry(code, at)
        return found if found and at + found.size <= len(code) else None
    except (IndexError, struct.error):
        return None


def _padding(code: bytes, at: int) -> Instruction | None:
    if code.startswith(_ENDBR, at):
        return Instruction(Op.NOTHING, len(_ENDBR))
    prefixed = _PREFIXED_NOP.match(code, at)
    if prefixed:
        return Instruction(Op.NOTHING, prefixed.end() - at)
    long = _LONG_NOP.match(code, at)
    if long:
        return _nothing(_Start(code, at, long.end(), 0x0F1F, 0, False))
    return None


def _table_entry(code: bytes, begin: int) -> Instruction | None:
    at = begin
    segment = code[at] == _FS
    at += segment
    rex = code[at] & 15 if code[at] & 0xF0 == 0x40 else 0
    at += code[at] & 0xF0 == 0x40
    opcode = code[at]
    at += 1
    if opcode == 0x0F:
        opcode = 0x0F00 | code[at]
        at += 1
    decoder = _DECODERS.get(opcode)
    return decoder(_Start(code, begin, at, opcode, rex, segment)) if decoder else None


def _nothing(start: _Start) -> Instruction:
    return Instruction(Op.NOTHING, start.operands().end - start.begin)


def _nop(start: _Start) -> Instruction | None:
    # With a REX prefix it may be an exchange of registers.
    return None if start.rex else Instruction(Op.NOTHING, start.after - start.begin, emulated=True)


def _push(start: _Start) -> Instruction:
    register = start.opcode & 7 | (start.rex & _REX_B) << 3
    # The kernel knows no other prefix here.
    emulated = start.rex in (0, _REX_B)
    return Instruction(Op.PUSH, start.after - start.begin, of=register, emulated=emulated)


def _constant(start: _Start) -> Instruction | None:
    if start.wide:
        return None
    register = start.opcode & 7 | (start.rex & _REX_B) << 3
    value = struct.unpack_from("<I", start.code, start.after)[0]
    return Instruction(Op.CONSTANT, start.after + 4 - start.begin, to=register, value=value)


def _jump(start: _Start) -> Instruction | None:
    """Jumps and calls relative to their end, with one byte of distance or four."""
    if start.rex:
        return None
    near = start.opcode == 0xEB or start.opcode & ~15 == 0x70
    size = 1 if near else 4
    distance, length = start.signed(start.after, size), start.after + size - start.begin
    if start.opcode == 0xE8:
        return Instruction(Op.CALL, length, value=distance)
    if start.opcode in (0xE9, 0xEB):
        return Instruction(Op.JUMP, length, value=distance, emulated=True)
    return Instruction(Op.BRANCH, length, value=distance, condition=start.opcode & 15, emulated=True)


def _compare(start: _Start) -> Instruction:
    operands = start.operands()
    length = operands.end - start.begin
    if start.opcode == 0x85 and operands.other == operands.register:
        return Instruction(Op.TEST, length, of=operands.register, wide=start.wide)
    return Instruction(Op.NOTHING, length)


def _store(start: _Start) -> Instruction | None:
    """mov to memory, or from a register to another."""
    operands = start.operands()
    length = operands.end - start.begin
    if operands.other < 0:
        return Instruction(Op.NOTHING, length)
    if start.opcode == 0x88:
        return Instruction(Op.CLOBBER, length, to=operands.other) if start.rex else None
    return Instruction(Op.MOVE, length, to=operands.other, of=operands.register, wide=start.wide)


def _store_constant(start: _Start) -> Instruction | None:
    operands = start.operands()
    size = 1 if start.opcode == 0xC6 else 4
    if operands.other >= 0 or operands.register & 7:
        return None
    return Instruction(Op.NOTHING, operands.end + size - start.begin)


def _load(start: _Start) -> Instruction:
    """mov, or cmov, into a register; movslq where it extends the sign."""
    operands = start.operands()
    length, to = operands.end - start.begin, operands.register
    condition = start.opcode & 15 if start.opcode & ~15 == 0x0F40 else None
    extends = start.opcode == 0x63
    if extends and not start.wide:
        return Instruction(Op.CLOBBER, length, to=to)  # no compiler's way to copy 32 bits
    wide = start.wide and not extends
    signed = start.wide and extends
    if operands.other >= 0 and condition is None:
        return Instruction(Op.MOVE, length, to=to, of=operands.other, wide=wide, signed=signed)
    if operands.base < 0 or signed:
        return Instruction(Op.CLOBBER, length, to=to)
    value = operands.displacement
    return Instruction(Op.LOAD, length, to=to, of=operands.base, value=value, condition=condition, wide=wide)


def _address(start: _Start) -> Instruction | None:
    operands = start.operands()
    length, to = operands.end - start.begin, operands.register
    if operands.other >= 0:
        return None
    if operands.base < 0 or not start.wide:
        return Instruction(Op.CLOBBER, length, to=to)
    return Instruction(Op.ADDRESS, length, to=to, of=operands.base, value=operands.displacement)


def _exclusive_or(start: _Start) -> Instruction | None:
    operands = start.operands()
    length = operands.end - start.begin
    if operands.other < 0:
        return None
    if operands.other == operands.register:
        return Instruction(Op.CONSTANT, length, to=operands.other, value=0)
    return Instruction(Op.CLOBBER, length, to=operands.other if start.opcode == 0x31 else operands.register)


def _with_constant(start: _Start) -> Instruction | None:
    """add, sub and cmp with a constant; the ModRM byte says which."""
    operands = start.operands()
    size = 1 if start.opcode == 0x83 else 4
    value, length = start.signed(operands.end, size), operands.end + size - start.begin
    kind = operands.register & 7
    if kind == 7:
        return Instruction(Op.NOTHING, length)
    if operands.other < 0 or kind not in (0, 5):
        return None
    if not start.wide:
        return Instruction(Op.CLOBBER, length, to=operands.other)
    changed = value if kind == 0 else -value
    return Instruction(Op.ADDRESS, length, to=operands.other, of=operands.other, value=changed)


_ROWS: tuple[tuple[Iterable[int], _Decoder], ...] = (
    (range(0x50, 0x58), _push),
    (range(0xB8, 0xC0), _constant),
    ((0x90,), _nop),
    (range(0x70, 0x80), _jump),
    (range(0x0F80, 0x0F90), _jump),
    ((0xE8, 0xE9, 0xEB), _jump),
    ((0x38, 0x39, 0x3A, 0x3B, 0x84, 0x85), _compare),
    ((0x88, 0x89), _store),
    ((0xC6, 0xC7), _store_constant),
    ((0x8B, 0x63), _load),
    (range(0x0F40, 0x0F50), _load),
    ((0x8D,), _address),
    ((0x31, 0x33), _exclusive_or),
    ((0x81, 0x83), _with_constant),
)
_DECODERS = {opcode: decoder for opcodes, decoder in _ROWS for opcode in opcodes}
