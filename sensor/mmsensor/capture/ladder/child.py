"""The child of ladder/search.py: runs slow strategies over the file on standard input.

It reads code that may have been made to break its reader, so it gives up all rights first and has little
memory and time. `python -m mmsensor.capture.ladder.child STRATEGY...` prints one finding as JSON.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import struct
import sys

from mmsensor.capture.functions import Located
from mmsensor.capture.ladder.elf import ElfFile, NotElf
from mmsensor.capture.ladder.findings import to_json
from mmsensor.capture.ladder.table import SLOW, Finding

_NOBODY = 65534
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
#: The whole file is mapped, and it may be large; what it takes on top are the instructions of some functions.
_MEMORY_BEYOND_FILE = 512 << 20
_CPU_S = 60
_ANSWER_BYTES = 1 << 20


def _confine(file_bytes: int) -> None:
    """Leaves nothing but the open file and time to read it."""
    limits = {
        resource.RLIMIT_AS: file_bytes + _MEMORY_BEYOND_FILE,
        resource.RLIMIT_CPU: _CPU_S,
        resource.RLIMIT_FSIZE: _ANSWER_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 16,
        resource.RLIMIT_NPROC: 0,
    }
    for which, limit in limits.items():
        resource.setrlimit(which, (limit, limit))
    os.nice(5)
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    nothing = ctypes.create_string_buffer(24)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0), 8)
    if libc.capset(header, nothing) or libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "rights cannot be given up")


def _search(file: ElfFile, strategies: list[str]) -> Finding:
    """The first that locates; else the first that knows why not."""
    reason: Finding = None
    for row in SLOW:
        if row.name not in strategies:
            continue
        finding: Finding = importlib.import_module(f"mmsensor.capture.ladder.{row.module}").locate(file)
        if isinstance(finding, Located):
            return finding
        reason = reason or finding
    return reason


def main() -> None:
    strategies = sys.argv[1:]
    for row in SLOW:
        if row.name in strategies:
            # While the package's files can still be read.
            importlib.import_module(f"mmsensor.capture.ladder.{row.module}")
    fd = sys.stdin.fileno()
    _confine(os.fstat(fd).st_size)
    try:
        finding = _search(ElfFile(fd), strategies)
    except NotElf:
        finding = None
    json.dump(to_json(finding), sys.stdout)


if __name__ == "__main__":
    main()
