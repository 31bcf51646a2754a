"""Finds SSL_read, SSL_write and the end of a connection in a stripped program with BoringSSL inside.

BoringSSL tells where its errors arise: every one is put with its reason, its source file and its line. A
function is known by the errors it raises (the numbers in ssl.h and err.h are part of the interface), the
order of their lines is the order in the source, and the functions must fit to each other:

    SSL_write             the one function of ssl_lib.cc with its four errors; it calls a method of the
                          connection's protocol with the caller's bytes
    ssl_read_impl         the errors of a read, earlier in the file; calls another method
    SSL_read, SSL_peek    between the two; they hand out the same two fields of the connection, and
                          SSL_read alone moves them on, by itself or after it has called SSL_peek
    kTLSProtocolMethod    the table of methods of TLS, not DTLS: at the places that SSL_write and
                          ssl_read_impl call there are the functions of s3_pkt.cc that do it
    tls_new, tls_free     in that table. SSL_new and SSL_free call them once for each connection, with the
                          connection as their argument; they take the place of those two, which have
                          nothing to be known by.

Seen to hold for builds with clang and gcc, with and without link-time optimisation, of 2024 to 2026. Any
check that fails leaves the file alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import capstone
from capstone import x86

from mmsensor.capture.functions import Confidence, Function, Located, NotCovered
from mmsensor.capture.ladder import body as doing
from mmsensor.capture.ladder import code as program
from mmsensor.capture.ladder.code import Code, Uncertain
from mmsensor.capture.ladder.elf import PF_X, ElfFile

STRATEGY = "boringssl"

#: The files, and the library's number with which their functions raise errors (ERR_LIB_SSL).
_API, _RECORDS = b"ssl/ssl_lib.cc", b"ssl/s3_pkt.cc"
_SSL_LIBRARY = 16
#: Reasons in the order of their lines, from ssl.h and err.h.
_NOT_WITH_QUIC = 66  # ERR_R_SHOULD_NOT_HAVE_BEEN_CALLED
_WRITE = [_NOT_WITH_QUIC, 226, 215, 111]  # UNINITIALIZED, SSL_HANDSHAKE_FAILURE, BAD_LENGTH
_READ_IMPLEMENTATION = [226, 215]  # after those of what is inlined, which stands before it in the file
_SET_HOST_NAME = [213]  # SSL3_EXT_INVALID_SERVERNAME
_RECORD_WRITE = [194, 111]  # PROTOCOL_IS_SHUTDOWN, BAD_LENGTH; then those of what is inlined
_RECORD_READ = [182, 225, 300]  # UNEXPECTED_RECORD, TOO_MUCH_SKIPPED_EARLY_DATA, ALPN_MISMATCH_ON_EARLY_DATA

_METHOD_NEW, _METHOD_FREE = 8, 16  # bytes into the table of methods, after `is_dtls`


class Raised(NamedTuple):
    """An error that a function raises: the reason's number and the line of its source; -1 if unreadable."""

    reason: int
    line: int


@dataclass(frozen=True)
class _Function:
    code: program.Function
    errors: tuple[Raised, ...]  # by line

    @property
    def start(self) -> int:
        return self.code.start

    @property
    def body(self) -> list[capstone.CsInsn]:
        return self.code.body

    @property
    def reasons(self) -> list[int]:
        return [error.reason for error in self.errors]

    @property
    def lines(self) -> range:
        return range(self.errors[0].line, self.errors[-1].line + 1)


def locate(file: ElfFile) -> Located | NotCovered | None:
    """None where there is no BoringSSL. Raises NotElf, OSError."""
    code = Code(file)
    sources = code.strings(_API)
    if not sources:
        return None
    try:
        api = _raising(code, sources)
        found = _certain(code, api)
    except Uncertain as doubt:
        return NotCovered("boringssl_not_certain", f"BoringSSL is linked in without names; {doubt}")
    return Located(
        STRATEGY,
        Confidence.PROVEN,
        "BoringSSL without names, known by the errors that its functions raise",
        tuple(Function(name, file.offset_of(at, PF_X)) for name, at in found.items()),
    )


def _certain(code: Code, api: list[_Function]) -> dict[str, int]:
    """Names and addresses of the functions to probe. Raises Uncertain."""
    write = _only("SSL_write", [each for each in api if each.reasons == _WRITE])
    implementation = _only(
        "ssl_read_impl",
        [
            each
            for each in api
            if each.reasons[-2:] == _READ_IMPLEMENTATION and each.lines.stop <= write.lines.start
        ],
    )
    read = _only("SSL_read", _readers(code, api, implementation, write))
    methods = _methods(code, write, implementation)
    named = [each for each in api if each.reasons == _SET_HOST_NAME]
    begun = _begin_where_told(code, [read, write, *named])
    for name, each in (("SSL_read", read), ("SSL_write", write)):
        if each.start not in begun:
            raise Uncertain(f"where {name} begins is not certain")
    begins, ends = _life_of_connection(code, methods, write)
    found = {"SSL_read": read.start, "SSL_write": write.start, "tls_new": begins, "SSL_free": ends}
    if len(named) == 1 and named[0].start in begun:
        found["SSL_set_tlsext_host_name"] = named[0].start
    return found


def _only(what: str, functions: list[_Function]) -> _Function:
    if len(functions) != 1:
        raise Uncertain(f"{len(functions) or 'no'} functions look like {what}")
    return functions[0]


# -- errors ----------------------------------------------------------------------------------------


def _raising(code: Code, sources: list[int]) -> list[_Function]:
    """Every function that raises errors of these source files. One with an error that cannot be read has a
    -1 among its reasons and is none that we know."""
    found: dict[int, _Function] = {}
    for place, _source in code.references(sources, "rcx"):
        function = code.function_at(place)
        if function is None:
            continue
        errors = {_error(function.body, place)}
        if function.start in found:
            errors.update(found[function.start].errors)
        found[function.start] = _Function(function, tuple(sorted(errors, key=lambda error: error.line)))
    return list(found.values())


def _error(body: list[capstone.CsInsn], place: int) -> Raised:
    """ERR_put_error(library, 0, reason, file, line): compilers set it up in one straight run of code, which
    loads the file at `place`."""
    values: dict[str, int] = {}
    for each in doing.straight_run(body, place):
        target, value = doing.register(each, 0), doing.immediate(each, 1)
        if each.id == x86.X86_INS_MOV and target and value is not None:
            values[target] = value
    if values.get("rdi", _SSL_LIBRARY) != _SSL_LIBRARY:
        return Raised(-1, -1)
    return Raised(values.get("rdx", -1), values.get("r8", -1))


# -- what makes each function certain --------------------------------------------------------------


def _readers(
    code: Code, api: list[_Function], implementation: _Function, write: _Function
) -> list[_Function]:
    """What hands out the application's data and moves on in it, which SSL_peek does not. SSL_read either has
    all of SSL_peek compiled into it, or calls it before anything else."""
    handing_out = [
        each
        for each in api
        if each.reasons == [_NOT_WITH_QUIC]
        and implementation.start in doing.calls(each.body)
        and implementation.lines.stop <= each.lines.start < write.lines.start
    ]
    readers = [each for each in handing_out if _moves_on(each.body, implementation)]
    if readers or len(handing_out) != 1:
        return readers
    peek = handing_out[0].start
    callers = (code.function_at(place) for place in code.calls_of(frozenset({peek})).get(peek, ()))
    found = {caller.start: caller for caller in callers if caller is not None}
    return [
        _Function(caller, ())
        for caller in found.values()
        if doing.calls_first(caller.body, peek) and _moves_on(caller.body, implementation)
    ]


def _moves_on(function: list[capstone.CsInsn], implementation: _Function) -> bool:
    """Whether it takes from the front of a span: its start, and 8 bytes on its size, are read and written.
    ssl_read_impl waits for that size not to be 0."""
    stored, loaded = doing.stored(function), doing.loaded(function)
    waited_for = doing.loaded(implementation.body)
    return any({at, at + 8} <= stored & loaded and at + 8 in waited_for for at in stored)


def _methods(code: Code, write: _Function, implementation: _Function) -> int:
    """The address of kTLSProtocolMethod."""
    record = _raising(code, code.strings(_RECORDS))
    writes = _only("tls_write_app_data", [each for each in record if each.reasons[:2] == _RECORD_WRITE])
    reads = _only("tls_open_app_data", [each for each in record if each.reasons == _RECORD_READ])
    write_slots = doing.methods_called(write.body)
    # By itself, or by ssl_open_app_data where that is not compiled into it.
    reading = [implementation.body, *map(code.body_from, doing.calls(implementation.body))]
    read_slots = {slot for each in reading for slot in doing.methods_called(each)}
    tables = {
        place - slot
        for place in code.pointers(writes.start)
        for slot in write_slots
        for other in code.pointers(reads.start)
        if other - (place - slot) in read_slots
    }
    if len(write_slots) != 1 or len(tables) != 1:
        raise Uncertain("no table of methods fits to what SSL_write and SSL_read call")
    table = tables.pop()
    if code.bytes_at(table, 1) != b"\0":
        raise Uncertain("the table of methods is that of DTLS")
    return table


def _life_of_connection(code: Code, methods: int, write: _Function) -> tuple[int, int]:
    """tls_new and tls_free: give a connection its state, in the one field from which SSL_write gets it, and
    take it out again."""
    begin, end = code.pointer_at(methods + _METHOD_NEW), code.pointer_at(methods + _METHOD_FREE)
    beginning, ending = code.body_from(begin), code.body_from(end)
    state = doing.first_field_of(ending, "rdi")
    if (
        state is None
        or not doing.cleared(ending) == doing.stored(ending) == {state}
        or state not in doing.stored(beginning) - doing.cleared(beginning)
        or doing.first_field_of(write.body, "rdi") != state
    ):
        raise Uncertain("no function of the table ends a connection as tls_free does")
    return begin, end


def _begin_where_told(code: Code, functions: list[_Function]) -> set[int]:
    """Those starts that are certain. The unwind table knows where functions begin; without it, somebody else
    calls the first byte and nobody one inside."""
    certain = {each.start for each in functions if not each.code.padded}
    padded = [each for each in functions if each.code.padded]
    entrances = {
        each.start: frozenset(one.address for one in each.body if one.address % 16 == 0) for each in padded
    }
    callers = code.calls_of(frozenset().union(*entrances.values())) if padded else {}
    for each in padded:
        own = range(each.start, each.body[-1].address + 1)
        called = {at for at in entrances[each.start] if set(callers.get(at, ())).difference(own)}
        if called == {each.start}:
            certain.add(each.start)
    return certain
