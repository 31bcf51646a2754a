"""Go programs as every way of building them leaves them: the same functions, or a reason. And nothing else,
whatever is done to the file."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsensor.capture.functions import Function, Located, NotCovered
from mmsensor.capture.ladder import go_code, golang
from mmsensor.capture.ladder.elf import ElfFile, NotElf
from tests.sensor.capture.clients import go

BUILDS = {
    "plain": (),
    "stripped": ("-ldflags=-s -w",),
    "pie-stripped": ("-buildmode=pie", "-ldflags=-s -w"),
    "linked-by-gcc": ("-buildmode=pie", "-ldflags=-linkmode=external -s -w"),
    "unoptimised": ("-gcflags=all=-N -l",),
}


@contextmanager
def opened(path: Path) -> Iterator[ElfFile]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield ElfFile(fd)
    finally:
        os.close(fd)


def locate(path: Path) -> Located | NotCovered | None:
    with opened(path) as file:
        return golang.locate(file)


def located(path: Path) -> dict[str, Function]:
    found = locate(path)
    assert isinstance(found, Located), found
    return {function.name: function for function in found.functions}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("go")


@pytest.fixture(scope="module")
def built(folder: Path) -> Callable[[str], Path]:
    return lambda name: go.build(folder / name, *BUILDS[name])


def disassembled(path: Path, name: str) -> list[tuple[int, str]]:
    """(file offset, instruction) as objdump has them."""
    text = subprocess.run(
        ["objdump", "-d", "-F", "-w", "--no-show-raw-insn", f"--disassemble={name}", str(path)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    start = re.search(r"^([0-9a-f]+) <.*> \(File Offset: 0x([0-9a-f]+)\):$", text, re.MULTILINE)
    assert start, text[:500]
    shift = int(start[2], 16) - int(start[1], 16)
    lines = re.findall(r"^\s+([0-9a-f]+):\s+(\S.*)$", text, re.MULTILINE)
    return [(int(address, 16) + shift, instruction) for address, instruction in lines]


@pytest.mark.parametrize("build", [name for name in BUILDS if "stripped" not in name and "gcc" not in name])
def test_functions_and_returns_are_objdumps(build: str, built: Callable[[str], Path]) -> None:
    path = built(build)
    functions = located(path)
    assert len(functions) == 5
    for name, function in functions.items():
        code = disassembled(path, name)
        places = [at for at, _ in code]
        before = code[: places.index(function.entry)]
        assert before[-1][1].startswith("jbe"), "the stack check comes first"
        assert not any(text.startswith(("push", "sub", "call")) for _, text in before)
        if name.endswith((".Read", ".Write")):
            assert list(function.returns) == [at for at, text in code if text.startswith("ret")]
        else:
            assert not function.returns


@pytest.mark.parametrize("build", BUILDS)
def test_stripping_takes_nothing_away(build: str, built: Callable[[str], Path], tmp_path: Path) -> None:
    path = built(build)
    stripped = tmp_path / "stripped"
    subprocess.run(["strip", "-o", str(stripped), str(path)], check=True)
    assert [f.name for f in located(stripped).values()] == [f.name for f in located(path).values()]
    assert entry_bytes(stripped) == entry_bytes(path)
    without = tmp_path / "without"
    raw = bytearray(path.read_bytes())
    raw[40:48] = bytes(8)  # e_shoff
    raw[60:64] = bytes(4)  # e_shnum, e_shstrndx
    without.write_bytes(raw)
    assert located(without) == located(path)


def test_the_table_needs_no_section_of_its_own(built: Callable[[str], Path], tmp_path: Path) -> None:
    """LLVM's linker makes it a part of a larger one."""
    path, other = built("plain"), tmp_path / "other"
    subprocess.run(["objcopy", "--rename-section", ".gopclntab=.elsewhere", path, other], check=True)
    assert entry_bytes(other) == entry_bytes(path)


def entry_bytes(path: Path) -> list[bytes]:
    raw = path.read_bytes()
    return [raw[function.entry : function.entry + 16] for function in located(path).values()]


def test_go_says_which_it_is(built: Callable[[str], Path]) -> None:
    found = locate(built("stripped"))
    assert isinstance(found, Located)
    version = subprocess.run([go.compiler(), "env", "GOVERSION"], check=True, capture_output=True, text=True)
    assert version.stdout.strip() in found.why


def test_what_has_no_tls_is_nothing(folder: Path) -> None:
    source = folder / "hello.go"
    source.write_text('package main\n\nfunc main() { println("hello") }\n')
    hello = folder / "hello"
    subprocess.run([go.compiler(), "build", "-o", str(hello), str(source)], check=True)
    for path in (hello, Path("/bin/ls"), Path(shutil.which("objdump") or "/bin/cat")):
        assert locate(path) is None


# -- files that are not what they say -----------------------------------------------------------------------


def table_at(raw: bytes | bytearray) -> int:
    (at,) = [
        found.start()
        for found in re.finditer(rb"\xf1\xff\xff\xff\0\0\x01\x08|\xf0\xff\xff\xff\0\0\x01\x08", raw)
    ]
    return at


@pytest.mark.parametrize(
    ("at", "damage", "reason"),
    [
        (0, b"\xfa\xff\xff\xff", "go_too_old"),
        (0, b"\xfb\xff\xff\xff", "go_too_old"),
        (0, b"\x12\x34\x56\x78", "go_function_table"),  # as obfuscators leave it
        (8, struct.pack("<Q", 5), "go_function_table"),
        (8, struct.pack("<Q", 1 << 60), "go_function_table"),
        (32, struct.pack("<Q", 64), "go_function_table"),
    ],
)
def test_a_table_that_is_not_believed(
    at: int, damage: bytes, reason: str, built: Callable[[str], Path], tmp_path: Path
) -> None:
    raw = bytearray(built("stripped").read_bytes())
    start = table_at(raw) + at
    raw[start : start + len(damage)] = damage
    path = tmp_path / "damaged"
    path.write_bytes(raw)
    found = locate(path)
    # A version that is not known may be no offset in every build.
    assert isinstance(found, NotCovered | Located)
    if isinstance(found, NotCovered):
        assert found.reason == reason
    else:
        assert at == 32


def test_code_that_is_not_gos(built: Callable[[str], Path], tmp_path: Path) -> None:
    path = built("stripped")
    raw = bytearray(path.read_bytes())
    read = located(path)["crypto/tls.(*Conn).Read"]
    raw[read.entry : read.entry + 2] = b"\xff\xe0"  # jmp rax
    damaged = tmp_path / "damaged"
    damaged.write_bytes(raw)
    found = locate(damaged)
    assert isinstance(found, NotCovered)
    assert found.reason == "go_not_certain"
    assert "crypto/tls.(*Conn).Read" in found.why


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_gives_the_truth_or_nothing(
    data: st.DataObject, built: Callable[[str], Path], tmp_path: Path
) -> None:
    path = built("pie-stripped")
    raw = bytearray(path.read_bytes())
    truth = set(located(path).values())
    table = table_at(raw)
    regions = [(0, 64 + 56 * 12), (table, table + 72), (table, len(raw))]
    start, end = data.draw(st.sampled_from(regions))
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(start, end - 8))
        size = data.draw(st.sampled_from([1, 4, 8]))
        raw[at : at + size] = data.draw(st.binary(min_size=size, max_size=size))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    damaged = tmp_path / "damaged"
    damaged.write_bytes(raw)
    try:
        found = locate(damaged)
    except NotElf:
        return
    if isinstance(found, Located):
        assert set(found.functions) <= truth


# -- code ---------------------------------------------------------------------------------------------------

CHECK = b"\x49\x3b\x66\x10"  # cmp rsp, [r14+16]
MORE = b"\x48\x89\x44\x24\x08\xe8\x00\x10\x00\x00\x48\x8b\x44\x24\x08"  # put rax by, call, take it back


def function(body: bytes, more: bytes = MORE, check: bytes = CHECK) -> bytes:
    """A function with its stack check around this body."""
    block = check + b"\x76" + bytes([len(body)]) + body + more
    return block + b"\xeb" + struct.pack("<b", -len(block) - 2) + b"\xcc" * 7


BODY = b"\x55\x48\x89\xe5\x5d\xc3"  # push rbp; mov rbp, rsp; pop rbp; ret


def test_a_function_as_go_makes_it() -> None:
    assert go_code.read_body(function(BODY), 1000) == go_code.Body(1006, (1011,))
    large = b"\x4c\x8d\xa4\x24\x00\xff\xff\xff\x4d\x3b\x66\x10"  # lea r12, [rsp-256]; cmp r12, [r14+16]
    assert go_code.read_body(function(BODY * 2, check=large), 0).returns == (19, 25)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        (BODY, "check of its stack"),
        (b"", "check of its stack"),
        (function(b"\x06" + BODY), "unknown instruction"),
        (function(b"\x55\x5d"), "never returns"),
        (function(BODY + b"\xff\xe0"), "only the running program knows"),  # jmp rax
        (function(BODY + b"\xeb\x7f"), "another function"),
        (function(BODY + b"\xe9\x00\x00\x00\x80"), "another function"),
        (function(b"\x55\x75\xfd" + BODY), "back to its beginning"),  # jne to the push
        (function(BODY + b"\xeb\xf2"), "back to its beginning"),  # to the very first
        (function(BODY + b"\xc2\x08\x00"), "does not make"),  # ret 8
        (function(BODY + b"\x0f\x05"), "does not make"),  # syscall
        (function(BODY) + function(BODY), "does not make"),  # more than one function
        (function(BODY, more=b""), "elsewhere"),
        (function(BODY, more=b"\x48\x31\xc0" + MORE), "elsewhere"),  # xor rax, rax: the argument is gone
        (function(BODY, more=MORE + MORE), "elsewhere"),
    ],
)
def test_code_that_is_not_understood(code: bytes, why: str) -> None:
    with pytest.raises(go_code.NotUnderstood, match=why):
        go_code.read_body(code, 0)


@given(st.binary(max_size=64))
def test_any_bytes_are_read_or_refused(code: bytes) -> None:
    for each in (code, function(code)):
        try:
            body = go_code.read_body(each, 0)
        except go_code.NotUnderstood:
            continue
        assert all(each[at] == 0xC3 for at in body.returns)
