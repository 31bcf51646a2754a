"""The small decoder against a real disassembler, over everything that a libssl consists of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import capstone
import pytest
from capstone import x86
from hypothesis import example, given
from hypothesis import strategies as st

from mmsensor.capture.ladder import instructions
from mmsensor.capture.ladder.elf import ElfFile
from mmsensor.capture.ladder.instructions import Instruction, Op

_REGISTERS = (
    *("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi"),
    *(f"r{number}" for number in range(8, 16)),
)
_CONDITIONS = ("o", "no", "b", "ae", "e", "ne", "be", "a", "s", "ns", "p", "np", "l", "ge", "le", "g")


def disassembler() -> capstone.Cs:
    machine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    machine.detail = True
    return machine


def _parts() -> Iterator[tuple[str, str]]:
    """(name of a register or of a part of one, its 64 bits)"""
    for name in _REGISTERS[:8]:
        short = name[1:]
        low = f"{short[0]}l" if short.endswith("x") else f"{short}l"
        for part in (name, f"e{short}", short, low, f"{short[0]}h"):
            yield part, name
    for name in _REGISTERS[8:]:
        for part in ("", "d", "w", "b"):
            yield name + part, name


_WHOLE = dict(_parts())


def whole(machine: capstone.Cs, register: int) -> str:
    name = str(machine.reg_name(register))
    return _WHOLE.get(name, name)


def written(machine: capstone.Cs, truth: capstone.CsInsn) -> set[str]:
    _read, write = truth.regs_access()
    return {whole(machine, register) for register in write} - {"rflags", "eflags", "rip"}


def claimed(found: Instruction) -> set[str]:
    if found.op is Op.PUSH or found.op is Op.CALL:
        return {"rsp"}
    return {_REGISTERS[found.to]} if found.to >= 0 else set()


def assert_same(machine: capstone.Cs, found: Instruction, truth: capstone.CsInsn) -> None:
    shown = f"{truth.bytes.hex()} {truth.mnemonic} {truth.op_str}: {found}"
    assert found.size == truth.size, shown
    name = truth.mnemonic.removeprefix("bnd ")
    assert written(machine, truth) == claimed(found), shown
    operands = truth.operands
    memory = next((each.mem for each in operands if each.type == x86.X86_OP_MEM), None)
    if found.op in (Op.JUMP, Op.BRANCH, Op.CALL):
        assert operands[0].imm == truth.address + found.size + found.value, shown
        expected = {Op.JUMP: "jmp", Op.CALL: "call"}.get(found.op) or f"j{_CONDITIONS[found.condition or 0]}"
        assert name == expected, shown
    elif found.op in (Op.LOAD, Op.ADDRESS) and memory is not None:
        assert _REGISTERS[found.of] == machine.reg_name(memory.base), shown
        assert (memory.disp, memory.index, memory.segment) == (found.value, 0, 0), shown
        conditional = f"cmov{_CONDITIONS[found.condition]}" if found.condition is not None else "mov"
        assert name == ("lea" if found.op is Op.ADDRESS else conditional), shown
    elif found.op is Op.ADDRESS:
        assert (name, operands[1].imm) == (("add", found.value) if name == "add" else ("sub", -found.value))
        assert operands[0].size == 8, shown
    elif found.op is Op.MOVE:
        assert name == ("movsxd" if found.signed else "mov"), shown
        assert whole(machine, operands[1].reg) == _REGISTERS[found.of], shown
        assert found.wide == (operands[1].size == 8), shown
    elif found.op is Op.TEST:
        assert name == "test" and operands[0].reg == operands[1].reg, shown
        assert whole(machine, operands[0].reg) == _REGISTERS[found.of], shown
        assert found.wide == (operands[0].size == 8), shown
    elif found.op is Op.CONSTANT:
        assert (name, found.value) == ("xor", 0) or (name, operands[1].imm) == ("mov", found.value), shown


def test_a_good_part_of_libssl(libssl: Path) -> None:
    """What is known is known rightly, and it is most of what compilers write."""
    machine = disassembler()
    with libssl.open("rb") as opened:
        file = ElfFile(opened.fileno())
        text = file.section(".text")
        assert text is not None
        code = file.read(text.offset, min(text.size, 1 << 17))
    known = total = 0
    for truth in machine.disasm(code, 0):
        total += 1
        found = instructions.decode(code, truth.address)
        if found is not None:
            known += 1
            assert_same(machine, found, truth)
    assert total > 20_000
    assert known > total / 2


@pytest.mark.parametrize(
    ("code", "emulated"),
    [
        ("55", True),  # push %rbp
        ("41 57", True),  # push %r15
        ("48 55", False),  # with a prefix that means nothing, and that the kernel does not know
        ("90", True),
        ("eb 05", True),
        ("e9 00 01 00 00", True),
        ("74 05", True),
        ("0f 84 00 01 00 00", True),
        ("e8 00 01 00 00", False),  # the kernel would, but nobody probes there
        ("66 90", False),
        ("0f 1f 40 00", False),
        ("f3 0f 1e fa", False),  # endbr64
        ("48 83 ec 18", False),  # sub $24,%rsp
        ("85 d2", False),
    ],
)
def test_what_the_kernel_carries_out_by_itself(code: str, emulated: bool) -> None:
    found = instructions.decode(bytes.fromhex(code), 0)
    assert found is not None
    assert found.emulated is emulated


@pytest.mark.parametrize(
    "code",
    [
        "",
        "0f",
        "48",
        "e8 00 01 00",  # cut off
        "48 8b 84 24 00",
        "c3",
        "ff e0",  # jmp *%rax
        "ff 25 00 00 00 00",
        "48 81",
        "66 89 d8",  # a part of a register
        "f2 e9 00 00 00 00",
        "0f 05",
        "c4 e2 79 18 07",
        "67 8b 07",
    ],
)
def test_what_it_does_not_know_it_does_not_guess(code: str) -> None:
    assert instructions.decode(bytes.fromhex(code), 0) is None


@given(st.binary(max_size=20))
@example(bytes.fromhex("6300"))  # movslq without the prefix that makes it extend
def test_any_bytes(code: bytes) -> None:
    found = instructions.decode(code, 0)
    if found is None:
        return
    truth = next(disassembler().disasm(code, 0), None)
    # No assembler writes them, but the processor allows combinations that disassemblers disagree about.
    assert found.size <= len(code)
    if truth is not None and truth.size == found.size:
        assert_same(disassembler(), found, truth)
