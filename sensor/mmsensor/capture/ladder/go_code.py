"""Where a compiled Go function is probed: past its stack check, and on each of its returns.

Nearly every Go function begins by comparing the stack pointer with the goroutine's limit (in r14: that it is
there at all shows the register calling convention). Where the stack is too small it jumps to its end, calls
`runtime.morestack`, and begins anew, perhaps on another stack. The instruction after the check is therefore
passed once a call, nothing is pushed yet and every argument is still in its register. Since Go 1.21 it is
`push rbp`, which the kernel emulates: far cheaper than the comparison, which it single-steps.

Go checks its return addresses when it copies a stack, so a uretprobe, which replaces them, kills the program
(golang/go#22008). The RET instructions are probed instead, each of them, which needs all of the function's
code to be understood. What is not understood is not probed.

For the ladder's child process only: the disassembler is more than the daemon can afford.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from capstone import CS_ARCH_X86, CS_MODE_64, Cs, CsInsn

_CHECK = ("cmp", "rsp, qword ptr [r14 + 0x10]")
#: Functions with a large frame compare what will be left of the stack.
_CHECK_LARGE = ("cmp", "r12, qword ptr [r14 + 0x10]")
_LARGE_FRAME = "r12, [rsp - "
_PADDING = b"\xcc"
#: Arguments are put by and taken back around the call of `runtime.morestack`, as they are.
_SPILLS = frozenset({"mov", "movsd", "movss", "movups", "nop", "nopw", "nopl"})
_NEVER = frozenset({"iretq", "retf", "retfq", "syscall", "sysret", "int", "int3", "hlt"})


class NotUnderstood(Exception):
    """The code is not as Go's compiler makes it. The text says where it differs."""


class Body(NamedTuple):
    """Addresses: of the first instruction after the stack check, and of every RET."""

    entry: int
    returns: tuple[int, ...]


def read_body(code: bytes, address: int) -> Body:
    """Of a whole function that begins at this address. Raises NotUnderstood."""
    instructions = _disassemble(code.rstrip(_PADDING), address)
    check = _stack_check(instructions)
    entry = instructions[check + 1].address
    _prove_single_entry(instructions, check)
    returns = tuple(each.address for each in instructions if each.mnemonic == "ret")
    if not returns:
        raise NotUnderstood("it never returns")
    return Body(entry, returns)


def _disassemble(code: bytes, address: int) -> list[CsInsn]:
    instructions = list(Cs(CS_ARCH_X86, CS_MODE_64).disasm(code, address))
    if sum(each.size for each in instructions) != len(code):
        raise NotUnderstood("an unknown instruction")
    return instructions


def _stack_check(instructions: Sequence[CsInsn]) -> int:
    """Index of the check's jump."""
    shape = [(each.mnemonic, each.op_str) for each in instructions[:3]]
    if len(shape) == 3 and shape[0] == _CHECK and shape[1][0] == "jbe":
        at = 1
    elif (
        len(instructions) > 3
        and shape[0][0] == "lea"
        and shape[0][1].startswith(_LARGE_FRAME)
        and shape[1] == _CHECK_LARGE
        and shape[2][0] == "jbe"
    ):
        at = 2
    else:
        raise NotUnderstood("it does not begin with the check of its stack")
    if at + 1 >= len(instructions):
        raise NotUnderstood("it ends with the check of its stack")
    return at


def _prove_single_entry(instructions: Sequence[CsInsn], check: int) -> None:
    """Raises NotUnderstood unless the way in is through the check alone, and the way out through a RET."""
    start, end = instructions[0].address, instructions[-1].address + instructions[-1].size
    entry = instructions[check + 1].address
    anew = _morestack(instructions, _target(instructions[check]))
    for number, each in enumerate(instructions):
        if each.mnemonic in _NEVER or (each.mnemonic == "ret" and each.op_str):
            raise NotUnderstood(f"an instruction that Go does not make: {each.mnemonic}")
        if not each.mnemonic.startswith("j"):
            continue
        target = _target(each)
        if not start <= target < end:
            raise NotUnderstood("it jumps into another function")
        if start <= target <= entry and number != anew:
            raise NotUnderstood("it jumps back to its beginning")


def _morestack(instructions: Sequence[CsInsn], address: int) -> int:
    """Index of the jump that begins anew after the stack has grown; the block at this address leads there."""
    start = instructions[0].address
    calls = 0
    for number, each in enumerate(instructions):
        if each.address < address:
            continue
        if each.mnemonic == "call":
            calls += 1
        elif each.mnemonic == "jmp" and calls == 1 and _target(each) == start:
            return number
        elif each.mnemonic not in _SPILLS:
            break
    raise NotUnderstood("its stack check leads elsewhere than to a larger stack")


def _target(jump: CsInsn) -> int:
    try:
        return int(jump.op_str, 16)
    except ValueError:
        raise NotUnderstood("a jump whose target only the running program knows") from None
