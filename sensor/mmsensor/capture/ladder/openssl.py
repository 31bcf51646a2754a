"""Finds the functions of OpenSSL 3 and later in a stripped program that it is linked into.

OpenSSL 3 raises its errors with the name of the function that does: ERR_set_debug(file, line, function). A
name is the more certain as the functions must fit to each other:

    ssl_read_internal     says so itself, and so does SSL_read, which calls it with a place on its stack for
    ssl_write_internal    the count; SSL_read_ex passes through it too. The other direction alike
    their methods         ssl_read, ssl_peek and ssl_write are neighbours in SSL_METHOD, so the places that
                          the two call there are 16 bytes apart
    SSL_free              counts references down, frees the extra data of class 0 (an SSL; SSL_CTX_free does
                          it with class 1) and frees with ssl_lib.c as the place
    SSL_new               says so itself, and frees what it made, or leaves all to a method

Seen to hold for OpenSSL 3.0 to 4.0. Any check that fails leaves the file alone.
"""

from __future__ import annotations

from collections.abc import Iterable

from mmsensor.capture.functions import Confidence, Function, Located, NotCovered
from mmsensor.capture.ladder import body as doing
from mmsensor.capture.ladder import code as program
from mmsensor.capture.ladder.code import Code, Uncertain
from mmsensor.capture.ladder.elf import PF_X, ElfFile

STRATEGY = "openssl"

_FILE = b"ssl/ssl_lib.c"
#: Functions of that file that raise errors themselves. Those beside the four are named because one that is
#: compiled into another one makes that one's name doubtful.
_READ, _WRITE = "ssl_read_internal", "ssl_write_internal"
_NAMES = (
    *("SSL_read", _READ, "SSL_write", _WRITE, "SSL_new", "SSL_peek", "ssl_peek_internal"),
    *("SSL_read_early_data", "SSL_write_early_data", "SSL_sendfile", "SSL_do_handshake", "SSL_shutdown"),
)
#: SSL_METHOD has ssl_read, ssl_peek, ssl_write in a row.
_READ_TO_WRITE = 16
_CLASS_SSL, _CLASS_CONTEXT = 0, 1  # CRYPTO_EX_INDEX_SSL, CRYPTO_EX_INDEX_SSL_CTX


def locate(file: ElfFile) -> Located | NotCovered | None:
    """None where there is no OpenSSL. Raises NotElf, OSError."""
    code = Code(file)
    sources = code.strings(_FILE)
    if not sources:
        return None
    try:
        functions = _certain(code, sources)
    except Uncertain as doubt:
        return NotCovered("openssl_not_certain", f"OpenSSL is linked in without names; {doubt}")
    return Located(
        STRATEGY,
        Confidence.PROVEN,
        "OpenSSL without symbols, known by the names in its errors",
        tuple(Function(name, file.offset_of(at, PF_X)) for name, at in functions.items()),
    )


def _certain(code: Code, sources: list[int]) -> dict[str, int]:
    """Names and addresses of the functions to probe. Raises Uncertain."""
    named = _named(code)
    read, write = _one(named, _READ), _one(named, _WRITE)
    _calls_with_count(_one(named, "SSL_read"), read, ("rcx",))
    place = _calls_with_count(_one(named, "SSL_write"), write, ("rcx", "r8"))
    reads, writes = doing.methods_called(read.body), doing.methods_called(write.body)
    if not any(slot + _READ_TO_WRITE in writes for slot in reads):
        raise Uncertain("its read and its write call no neighbouring methods")
    free = _free(code, sources)
    found = {
        _READ: read.start,
        _WRITE if place == "rcx" else "ssl_write_internal_flags": write.start,
        "SSL_free": free,
    }
    makers = named.get("SSL_new", [])
    if len(makers) == 1 and (free in doing.calls(makers[0].body) or doing.leaves_to_method(makers[0].body)):
        found["SSL_new"] = makers[0].start
    return found


def _named(code: Code) -> dict[str, list[program.Function]]:
    """Functions by the one name with which they raise errors; with two names, by none."""
    names: dict[int, set[str]] = {}
    functions: dict[int, program.Function] = {}
    texts = {text: name for name in _NAMES for text in code.exact_strings(name.encode())}
    for place, text in code.references(texts, "rdx"):
        function = code.function_at(place)
        if function is not None and not function.padded:
            names.setdefault(function.start, set()).add(texts[text])
            functions[function.start] = function
    named: dict[str, list[program.Function]] = {}
    for start, own in names.items():
        if len(own) == 1:
            named.setdefault(own.pop(), []).append(functions[start])
    return named


def _one(named: dict[str, list[program.Function]], name: str) -> program.Function:
    functions = named.get(name, [])
    if len(functions) != 1:
        raise Uncertain(f"{len(functions) or 'no'} functions call themselves {name} and nothing else")
    return functions[0]


def _calls_with_count(caller: program.Function, inner: program.Function, registers: Iterable[str]) -> str:
    """The register in which the caller passes the place for the count, which it then returns. Raises
    Uncertain."""
    runs = doing.runs_to(caller.body, inner.start)
    for name in registers:
        places = [doing.stack_slot(run, name) for run in runs]
        if places and all(place is not None and doing.loads_stack(caller.body, place) for place in places):
            return name
    raise Uncertain(f"the function at {caller.start:#x} does not call what it should, as it should")


def _free(code: Code, sources: list[int]) -> int:
    """SSL_free, beside SSL_CTX_free. Raises Uncertain."""
    starts: dict[int, program.Function] = {}
    for place, _source in code.references(sources):
        function = code.function_at(place)
        if function is not None and not function.padded and doing.counts_down_locked(function.body):
            starts[function.start] = function
    classes: dict[int, set[tuple[int, int]]] = {}  # callee: (class, caller)
    for function in starts.values():
        for callee in set(doing.calls(function.body)):
            for run in doing.runs_to(function.body, callee):
                first = doing.constant(run, "rdi")
                if first in (_CLASS_SSL, _CLASS_CONTEXT):
                    classes.setdefault(callee, set()).add((first, function.start))
    found = {
        start
        for users in classes.values()
        for kind, start in users
        if kind == _CLASS_SSL and any(other == _CLASS_CONTEXT and at != start for other, at in users)
    }
    if len(found) != 1:
        raise Uncertain(f"{len(found) or 'no'} functions look like SSL_free")
    return found.pop()
