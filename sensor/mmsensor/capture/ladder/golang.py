"""Go programs: crypto/tls is compiled into each of them, and found by Go's own table of functions.

Certain are: the names (the runtime unwinds with them), where the text begins (ladder/pclntab.py), the calling
convention and every return (ladder/go_code.py). `Read` and `Write` hold their locks with `defer`, which keeps
Go's compiler from inlining them, with a profile too: each call passes through the functions probed here.
"""

from __future__ import annotations

import re

from mmsensor.capture.functions import Confidence, Function, Located, NotCovered
from mmsensor.capture.ladder import go_code, pclntab
from mmsensor.capture.ladder.elf import PF_X, ElfFile, NotElf

_CONN = "crypto/tls.(*Conn)."
_READ, _WRITE = _CONN + "Read", _CONN + "Write"
#: Probed at entry alone: the end of a connection, and its beginning, which a program has as client, server or
#: both. These are the wrappers that a new Conn is given; a renegotiation does not pass through them.
_CLOSE = _CONN + "Close"
_BIRTHS = (_CONN + "clientHandshake-fm", _CONN + "serverHandshake-fm")

_MAX_CODE = 1 << 16
_VERSION = re.compile(rb"\xff Go buildinf:.{18}.?.?(go1\.[0-9][0-9a-z.]*)", re.DOTALL)


def locate(file: ElfFile) -> Located | NotCovered | None:
    """crypto/tls's functions in this file. Raises NotElf and OSError."""
    try:
        table = pclntab.read_table(file)
    except pclntab.TooOld:
        return _unread(file, "go_too_old", "it was built with Go 1.17 or older; build it with a newer Go")
    except pclntab.NoTable as error:
        return _unread(file, "go_function_table", f"Go's table of functions is damaged: {error}")
    if table is None or table.find(_READ) is None:
        return None
    version = _version(file)
    if file.machine != "x86_64":
        return NotCovered("go_machine", f"crypto/tls of {version}: Go is followed on x86_64 only")
    try:
        functions = tuple(_functions(file, table))
    except (go_code.NotUnderstood, NotElf) as error:
        return NotCovered("go_not_certain", f"crypto/tls of {version}: {error}")
    return Located("go", Confidence.NAMED, f"crypto/tls of {version}, by Go's table of functions", functions)


def _unread(file: ElfFile, reason: str, why: str) -> NotCovered | None:
    """Without the table there are only the names to tell whether the program has anything to do with TLS."""
    if not pclntab.mentions(file, _READ):
        return None
    return NotCovered(reason, f"crypto/tls is compiled in, but {why}")


def _functions(file: ElfFile, table: pclntab.FunctionTable) -> list[Function]:
    """Raises NotUnderstood, with the name of the function, and NotElf."""
    moving = [_function(file, table, name) for name in (_READ, _WRITE)]
    begins = [name for name in _BIRTHS if table.find(name)]
    if not begins:
        raise go_code.NotUnderstood("nothing in it begins a handshake")
    others = [_function(file, table, name) for name in (_CLOSE, *begins)]
    return moving + [Function(each.name, each.entry) for each in others]


def _function(file: ElfFile, table: pclntab.FunctionTable, name: str) -> Function:
    span = table.find(name)
    if span is None:
        raise go_code.NotUnderstood(f"it has no single {name}")
    start = file.offset_of(span.start, PF_X)
    code = file.read(start, span.end - span.start, limit=_MAX_CODE)
    try:
        body = go_code.read_body(code, start)
    except go_code.NotUnderstood as error:
        raise go_code.NotUnderstood(f"{name}: {error}") from None
    return Function(name, body.entry, returns=body.returns)


def _version(file: ElfFile) -> str:
    """The Go it was built with, for people."""
    section = file.section(".go.buildinfo")
    found = _VERSION.search(file.read(section.offset, min(section.size, 64))) if section else None
    return found[1].decode() if found else "an unknown Go"
