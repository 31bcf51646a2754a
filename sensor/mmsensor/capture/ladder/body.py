"""What the instructions of one function do: its calls, and the fields of structures that it reads and writes.

For the child process only, as it needs the disassembler. A field is known by its offset alone: which object
a register points to is not followed.
"""

from __future__ import annotations

from collections.abc import Iterable

import capstone
from capstone import x86

_FRAME = {x86.X86_REG_RSP, x86.X86_REG_RBP}
_ARGUMENTS = {"rdi", "rsi", "rdx"}
_COUNTING = {x86.X86_INS_XADD, x86.X86_INS_DEC, x86.X86_INS_SUB}
_STACK = {x86.X86_REG_RSP, x86.X86_REG_RBP, x86.X86_REG_RIP}
_ENDS_BLOCK = {capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL, capstone.CS_GRP_RET, capstone.CS_GRP_INT}
_LAST = {x86.X86_INS_JMP, x86.X86_INS_RET, x86.X86_INS_UD2, x86.X86_INS_INT3, x86.X86_INS_HLT}
_WHOLE = {
    **{f"e{name}": f"r{name}" for name in ("ax", "bx", "cx", "dx", "si", "di", "bp", "sp")},
    **{f"r{number}d": f"r{number}" for number in range(8, 16)},
}


def register(instruction: capstone.CsInsn, index: int) -> str | None:
    """The 64-bit register whose 32- or 64-bit form is operand `index`."""
    operand = _operand(instruction, index)
    if operand is None or operand.type != x86.X86_OP_REG:
        return None
    name = str(instruction.reg_name(operand.reg))
    return _WHOLE.get(name, name)


def immediate(instruction: capstone.CsInsn, index: int) -> int | None:
    operand = _operand(instruction, index)
    return int(operand.imm) if operand is not None and operand.type == x86.X86_OP_IMM else None


def straight_run(body: list[capstone.CsInsn], address: int) -> list[capstone.CsInsn]:
    """The instructions around `address` that run in a row, the jump or call at the end included; none where
    the body does not have the address."""
    middle = next((index for index, each in enumerate(body) if each.address == address), None)
    if middle is None:
        return []
    first = last = middle
    while first > 0 and not _ends_block(body[first - 1]):
        first -= 1
    while last + 1 < len(body) and not _ends_block(body[last]):
        last += 1
    return body[first : last + 1]


def calls(body: list[capstone.CsInsn]) -> list[int]:
    """Targets of the direct calls, in order."""
    targets = (immediate(each, 0) for each in body if each.id == x86.X86_INS_CALL)
    return [target for target in targets if target is not None]


def calls_first(body: list[capstone.CsInsn], target: int) -> bool:
    """Whether its first call is of `target`, with the first three arguments as they came."""
    for each in body:
        if each.id == x86.X86_INS_CALL:
            return immediate(each, 0) == target
        if not _ARGUMENTS.isdisjoint(_written(each)):
            return False
    return False


def runs_to(body: list[capstone.CsInsn], target: int) -> list[list[capstone.CsInsn]]:
    """What runs straight before each direct call of `target`, the call included."""
    return [
        straight_run(body, each.address)
        for each in body
        if each.id == x86.X86_INS_CALL and immediate(each, 0) == target
    ]


def constant(run: list[capstone.CsInsn], name: str) -> int | None:
    """The number that a register holds at the end of a run; None where it is none."""
    value = None
    for each in run:
        if register(each, 0) == name and each.id in (x86.X86_INS_MOV, x86.X86_INS_XOR):
            value = 0 if each.id == x86.X86_INS_XOR and register(each, 1) == name else immediate(each, 1)
        elif name in _written(each):
            value = None
    return value


def stack_slot(run: list[capstone.CsInsn], name: str) -> tuple[int, int] | None:
    """(base register, offset) of the place on the stack that a register points to at the end of a run."""
    place = None
    for each in run:
        if name not in _written(each):
            continue
        place = None
        operand = _operand(each, 1)
        if each.id == x86.X86_INS_LEA and operand is not None and operand.mem.base in _FRAME:
            place = (operand.mem.base, operand.mem.disp)
        elif each.id == x86.X86_INS_MOV and operand is not None and operand.type == x86.X86_OP_REG:
            place = (operand.reg, 0) if operand.reg in _FRAME else None
    return place


def loads_stack(body: list[capstone.CsInsn], place: tuple[int, int]) -> bool:
    """Whether anything is read from that place on the stack."""
    return any(
        operand.type == x86.X86_OP_MEM
        and (operand.mem.base, operand.mem.disp) == place
        and operand.access & capstone.CS_AC_READ
        and each.id != x86.X86_INS_LEA
        for each in body
        for operand in each.operands
    )


def counts_down_locked(body: list[capstone.CsInsn]) -> bool:
    """Whether a count of references goes down, as threads that share an object do it."""
    return any(each.id in _COUNTING and each.prefix[0] == x86.X86_PREFIX_LOCK for each in body)


def methods_called(body: list[capstone.CsInsn]) -> set[int]:
    """Offsets in the tables through which functions are called or jumped to."""
    found = set()
    for index, each in enumerate(body):
        if each.id in (x86.X86_INS_CALL, x86.X86_INS_JMP):
            through = register(each, 0)
            offset = _last_load(body[:index], through) if through else _field(each, 0)
            if offset is not None:
                found.add(offset)
    return found


def _last_load(before: list[capstone.CsInsn], name: str) -> int | None:
    """The offset of the field that a register was last loaded from."""
    for each in reversed(before):
        if name in _written(each):
            return _field(each, 1) if each.id == x86.X86_INS_MOV else None
    return None


def leaves_to_method(body: list[capstone.CsInsn]) -> bool:
    """Whether it jumps on to a method of a table, and so returns what that returns."""
    return any(each.id == x86.X86_INS_JMP and immediate(each, 0) is None for each in body)


def loaded(body: list[capstone.CsInsn]) -> set[int]:
    """Offsets of the fields that are read."""
    return set(_fields(body, capstone.CS_AC_READ))


def stored(body: list[capstone.CsInsn]) -> set[int]:
    """Offsets of the fields that are written."""
    return set(_fields(body, capstone.CS_AC_WRITE))


def cleared(body: list[capstone.CsInsn]) -> set[int]:
    """Offsets of the fields that 0 is moved to."""
    return {
        offset
        for each in body
        if each.id == x86.X86_INS_MOV and immediate(each, 1) == 0 and (offset := _field(each, 0)) is not None
    }


def first_field_of(body: list[capstone.CsInsn], base: str) -> int | None:
    """The offset of the first field that is loaded from the object that register `base` points to, before
    anything is called."""
    for each in body:
        if each.id == x86.X86_INS_CALL:
            return None
        for index, operand in enumerate(each.operands):
            offset = _field(each, index)
            if offset is not None and each.reg_name(operand.mem.base) == base:
                return offset
    return None


def jumps_to(instruction: capstone.CsInsn) -> int | None:
    """Where a direct jump goes, conditional or not."""
    return immediate(instruction, 0) if capstone.CS_GRP_JUMP in instruction.groups else None


def ends_here(instruction: capstone.CsInsn) -> bool:
    """Whether control never runs on to the next instruction."""
    return instruction.id in _LAST


def _fields(body: list[capstone.CsInsn], access: int) -> Iterable[int]:
    for each in body:
        for index, operand in enumerate(each.operands):
            offset = _field(each, index)
            if offset is not None and operand.access & access and each.id != x86.X86_INS_LEA:
                yield offset


def _field(instruction: capstone.CsInsn, index: int) -> int | None:
    """The offset of operand `index` where it is `[register + offset]` and not on the stack."""
    operand = _operand(instruction, index)
    if operand is None or operand.type != x86.X86_OP_MEM:
        return None
    memory = operand.mem
    if memory.index or memory.segment or not memory.base or memory.base in _STACK:
        return None
    return int(memory.disp)


def _written(instruction: capstone.CsInsn) -> set[str]:
    _read, written = instruction.regs_access()
    names = (str(instruction.reg_name(each)) for each in written)
    return {_WHOLE.get(name, name) for name in names}


def _operand(instruction: capstone.CsInsn, index: int) -> x86.X86Op | None:
    return instruction.operands[index] if index < len(instruction.operands) else None


def _ends_block(instruction: capstone.CsInsn) -> bool:
    return not _ENDS_BLOCK.isdisjoint(instruction.groups)
