"""Files made to harm their reader: only NotElf comes out, nothing takes long, no place is a wrong one."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmsensor.capture.functions import Located
from mmsensor.capture.ladder import boringssl, golang, openssl, table
from mmsensor.capture.ladder.elf import PF_X, ElfFile, NotElf
from tests.sensor.capture.ladder.programs import linked, opened, stripped

LOCATE = (table.climb, boringssl.locate, openssl.locate, golang.locate)


def read_all(path: Path) -> list[Located]:
    """Everything that reads a file, in this process. Any exception but NotElf is a failure."""
    found = []
    try:
        with opened(path) as file:
            assert file.build_id is not None
            table.worth_a_search(file)
            for locate in LOCATE:
                try:
                    finding = locate(file)
                except NotElf:
                    continue
                if isinstance(finding, Located):
                    found.append(finding)
                    for function in finding.functions:
                        file.address_of(function.entry, PF_X)
    except NotElf:
        pass
    return found


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("hostile")
    return stripped(linked(folder), folder).read_bytes()


@pytest.fixture(scope="module")
def header(program: bytes, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, int]]:
    """(offset, size) of what a reader believes in: headers, tables, the unwind table."""
    path = tmp_path_factory.mktemp("hostile") / "program"
    path.write_bytes(program)
    with opened(path) as file:
        tables = [
            (each.offset, each.size)
            for each in file.sections
            if each.name in (".dynsym", ".gnu.hash", ".dynamic", ".eh_frame_hdr", ".eh_frame", ".rela.dyn")
        ]
    headers = [(0, 64 + 56 * 13), (len(program) - 64 * 31, 64 * 31)]
    return headers + tables


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(seed=st.integers(0, 1 << 32), changes=st.integers(1, 64))
def test_damaged_tables(
    seed: int, changes: int, program: bytes, header: list[tuple[int, int]], tmp_path: Path
) -> None:
    chance = random.Random(seed)
    raw = bytearray(program)
    for _ in range(changes):
        offset, size = chance.choice(header)
        raw[offset + chance.randrange(size)] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
    broken = tmp_path / "broken"
    broken.write_bytes(raw)
    read_all(broken)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(left=st.floats(0, 1))
def test_truncated(left: float, program: bytes, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(program[: int(len(program) * left)])
    read_all(broken)


def sparse(path: Path, size: int, segments: list[tuple[int, int, int, int]], sections: int = 0) -> Path:
    """An ELF file of `size` bytes, nearly all of them holes, with (kind, flags, offset, size) segments."""
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    machine = struct.unpack_from("<H", Path("/proc/self/exe").read_bytes()[:20], 18)[0]
    table_at = 64 + 56 * len(segments)
    raw = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(identity, 3, machine, 1, 0, 64, table_at, 0, 64, 56, len(segments), 64, sections, 0),
    )
    for kind, flags, offset, length in segments:
        raw += struct.pack("<IIQQQQQQ", kind, flags, offset, offset, offset, length, length, 8)
    # Every section is all of the file, and loaded, and a symbol table whose names are in the next.
    for number in range(sections):
        kind = 2 if number % 2 else 1
        raw += struct.pack("<IIQQQQIIQQ", 0, kind, 2, 0, 0, size, (number + 1) % sections, 0, 8, 24)
    path.write_bytes(raw)
    os.truncate(path, size)
    return path


@pytest.mark.parametrize("sections", [0, 4000])
def test_gigabytes_of_nothing(sections: int, tmp_path: Path) -> None:
    segments = [(1, 5, 0, 1 << 33), (1, 4, 0, 1 << 33), (2, 6, 0, 1 << 33), (4, 4, 0, 1 << 33)]
    segments.append((0x6474E550, 4, 0, 1 << 33))
    path = sparse(tmp_path / "large", 1 << 33, segments, sections)
    with opened(path) as file:
        assert file.build_id == ""
        assert table.worth_a_search(file) == ()
        with pytest.raises(NotElf):
            table.climb(file)


def test_a_hash_chain_in_a_circle(tmp_path: Path) -> None:
    """The old kind of table links its chains by number: here the only symbol follows itself."""
    path = sparse(tmp_path / "circle", 1 << 20, [(1, 5, 0, 1 << 20), (2, 6, 0x1000, 64)])
    dynamic = struct.pack("<8Q", 4, 0x2000, 5, 0x3000, 6, 0x4000, 0, 0)
    chains = struct.pack("<2I", 1, 2) + struct.pack("<3I", 1, 0, 1)
    with path.open("r+b") as file:
        file.seek(0x1000)
        file.write(dynamic)
        file.seek(0x2000)
        file.write(chains)
    with opened(path) as opened_file:
        assert table.climb(opened_file) is None


def test_numbers_at_their_ends(program: bytes, tmp_path: Path) -> None:
    """Each field of the header and of every segment at 0, 2**63 and all ones."""
    broken = tmp_path / "broken"
    for offset in range(16, 64 + 56 * 13, 8):
        for value in (0, 1 << 63, (1 << 64) - 1):
            raw = bytearray(program)
            struct.pack_into("<Q", raw, offset, value)
            broken.write_bytes(raw)
            try:
                with opened(broken) as file:
                    assert file.build_id is not None
                    table.worth_a_search(file)
                    table.climb(file)
            except NotElf:
                continue


def test_segments_anywhere(program: bytes, tmp_path: Path) -> None:
    """Each place and size of what is loaded at its largest: for the slow strategies too."""
    broken = tmp_path / "broken"
    for header in range(64, 64 + 56 * 13, 56):
        if struct.unpack_from("<I", program, header)[0] != 1:
            continue
        for place in (8, 16, 32):
            raw = bytearray(program)
            struct.pack_into("<Q", raw, header + place, (1 << 64) - 1)
            broken.write_bytes(raw)
            read_all(broken)


def test_a_file_that_shrinks_while_it_is_read(program: bytes, tmp_path: Path) -> None:
    path = tmp_path / "shrinks"
    path.write_bytes(program)
    with opened(path) as file:
        os.truncate(path, 100)
        with pytest.raises(NotElf):
            table.climb(file)


def test_not_a_file_of_ours_at_all(tmp_path: Path) -> None:
    for content in (b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF" + bytes(60), os.urandom(4096)):
        path = tmp_path / "other"
        path.write_bytes(content)
        with pytest.raises(NotElf), opened(path) as file:
            table.climb(file)


def test_an_open_file_is_the_callers(program: bytes, tmp_path: Path) -> None:
    path = tmp_path / "program"
    path.write_bytes(program)
    fd = os.open(path, os.O_RDONLY)
    ElfFile(fd).segment(1)
    os.close(fd)
