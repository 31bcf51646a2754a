"""Rust programs with rustls: recognised, and not probed.

The functions that plaintext passes through (`Reader::read`, `Writer::write`, `CommonState::buffer_plaintext`)
are ordinary Rust: without a calling convention that anything promises, and free to be inlined, whole or at
some of their callers only. A symbol table that names one says nothing of the copies elsewhere, so no place in
such a file is certain to see every byte. What rustls offers to C (rustls-ffi) is another matter: those
functions have names and a calling convention, and the symbol tables' strategies find them before this one.

It is told by the paths of its sources, which Rust keeps for its panic messages in stripped programs too.
"""

from __future__ import annotations

import re

from mmsensor.capture.functions import NotCovered
from mmsensor.capture.ladder.elf import PF_W, PT_LOAD, ElfFile

#: Cargo's folder of a published version; vendored sources have none. Not tokio-rustls, nor hyper-rustls.
_SOURCE = re.compile(
    rb"/rustls(?:-(\d+\.\d+\.\d+[-+.\w]{0,32}))?/src/(?:conn|common_state|client|server|msgs)\b"
)
_LONGEST = 96


def locate(file: ElfFile) -> NotCovered | None:
    """Which rustls is linked in. Raises NotElf and OSError."""
    found: set[str] = set()
    for segment in file.segments:
        if segment.kind == PT_LOAD and not segment.flags & PF_W:
            for _offset, data in file.chunks(segment.offset, segment.file_size, overlap=_LONGEST):
                found |= {match[1].decode() if match[1] else "" for match in _SOURCE.finditer(data)}
    if not found:
        return None
    versions = " and ".join(sorted(found - {""})) or "of an unknown version"
    return NotCovered(
        "rustls",
        f"rustls {versions} is linked in; Rust promises no calling convention for its functions and may "
        "inline them, so that no place is certain to see every byte",
    )
