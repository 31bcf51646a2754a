"""Programs with a TLS library inside, and what is known of them from elsewhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from mmsensor.capture.functions import Located, NotCovered
from mmsensor.capture.ladder.elf import ElfFile
from mmsensor.capture.ladder.table import Finding

SOURCE = Path(__file__).parent / "static_tls.c"


@contextmanager
def opened(path: Path) -> Iterator[ElfFile]:
    fd = os.open(path, os.O_RDONLY)
    try:
        yield ElfFile(fd)
    finally:
        os.close(fd)


def linked(folder: Path, *flags: str) -> Path:
    """static_tls.c with Debian's static OpenSSL, not stripped."""
    program = folder / "tls"
    libraries = ["-l:libssl.a", "-l:libcrypto.a", "-ldl", "-lpthread"]
    subprocess.run(
        ["cc", "-O2", *flags, str(SOURCE), "-o", str(program), *libraries], check=True, capture_output=True
    )
    return program


def stripped(path: Path, folder: Path) -> Path:
    target = folder / f"{path.name}.stripped"
    subprocess.run(["strip", "-o", str(target), str(path)], check=True)
    return target


def truth(path: Path, names: Sequence[str]) -> dict[str, int]:
    """File offsets of these functions, as pyelftools reads the full symbol table."""
    with path.open("rb") as file:
        binary = ELFFile(file)
        table = binary.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        return {
            symbol.name: next(binary.address_offsets(symbol["st_value"]))
            for symbol in table.iter_symbols()
            if symbol.name in names and symbol["st_shndx"] != "SHN_UNDEF"
        }


def entries(finding: Finding) -> dict[str, int]:
    """What was found, by name; fails where nothing was."""
    assert isinstance(finding, Located), finding
    return {function.name: function.entry for function in finding.functions}


def reason(finding: Finding) -> str:
    assert isinstance(finding, NotCovered), finding
    return finding.reason
