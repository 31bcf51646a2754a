"""The ladder: every strategy as a row, the sure and cheap ones first.

A cheap strategy reads a few kilobytes and runs in the daemon, for every file that anybody maps executable. A
slow one maps and disassembles a foreign file: it runs in a child process (ladder/search.py), and only for a
file that has one of its markers among its constants. The first row that locates ends the climb; of those
that do not, the first that knows why tells it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mmsensor.capture.functions import Confidence, Located, NotCovered
from mmsensor.capture.ladder import names
from mmsensor.capture.ladder.elf import PT_LOAD, ElfFile

#: What a strategy finds: None where there is nothing of its kind in the file.
Finding = Located | NotCovered | None


@dataclass(frozen=True, slots=True)
class Cheap:
    name: str
    confidence: Confidence
    what: str
    locate: Callable[[ElfFile], Finding]


@dataclass(frozen=True, slots=True)
class Slow:
    """`module` of this package has `locate`; imported in the child alone, for what it needs is large."""

    name: str
    confidence: Confidence
    what: str
    module: str
    markers: tuple[bytes, ...]


CHEAP = (
    Cheap("exported", Confidence.EXPORTED, "the dynamic symbol table has the names", names.exported),
    Cheap("local", Confidence.NAMED, "the full symbol table has the names", names.local),
)
SLOW = (
    Slow(
        "boringssl",
        Confidence.PROVEN,
        "BoringSSL without names: errors raised, and the table of protocol methods",
        "boringssl",
        (b"ssl/ssl_lib.cc\0",),
    ),
    Slow(
        "openssl",
        Confidence.PROVEN,
        "OpenSSL 3 or later without names: errors name their functions, which call each other",
        "openssl",
        (b"ssl/ssl_lib.c\0",),
    ),
    Slow(
        "go",
        Confidence.NAMED,
        "crypto/tls in Go's own table of functions",
        "golang",
        (b"crypto/tls.(*Conn).Read",),
    ),
    Slow(
        "rustls",
        Confidence.PROVEN,
        "rustls by the paths of its sources: recognised, and never certain",
        "rust",
        (b"/rustls-", b"/rustls/src/"),
    ),
)
#: No TLS library is smaller: below this a file is not searched for markers.
_SMALLEST = 200 << 10
#: So many bytes of constants are looked through, half a second's worth: a file may claim any number.
_MOST_SCANNED = 512 << 20
_SHF_ALLOC, _SHF_EXECINSTR, _SHT_NOBITS = 2, 4, 8
_SHT_PROGBITS = 1


def climb(file: ElfFile) -> Finding:
    """The cheap rows. Raises NotElf where the file is damaged, OSError."""
    for row in CHEAP:
        finding = row.locate(file)
        if finding is not None:
            return finding
    return None


def worth_a_search(file: ElfFile) -> tuple[str, ...]:
    """Names of the slow rows whose markers the file has."""
    if file.size < _SMALLEST:
        return ()
    missing = set(SLOW)
    longest = max(len(marker) for row in SLOW for marker in row.markers)
    left = _MOST_SCANNED
    for offset, size in _constants(file):
        for _start, chunk in file.chunks(offset, min(size, left), overlap=longest):
            missing -= {row for row in missing if any(marker in chunk for marker in row.markers)}
        left -= min(size, left)
    return tuple(row.name for row in SLOW if row not in missing)


def _constants(file: ElfFile) -> Iterator[tuple[int, int]]:
    """(offset, size) of what is loaded and no code; all that is loaded where nothing tells code apart."""
    sections = [
        (each.offset, each.size)
        for each in file.sections
        if each.kind == _SHT_PROGBITS and each.flags & (_SHF_ALLOC | _SHF_EXECINSTR) == _SHF_ALLOC
    ]
    loaded = [(each.offset, each.file_size) for each in file.segments if each.kind == PT_LOAD]
    for offset, size in sections or loaded:
        yield offset, max(0, min(size, file.size - offset))
