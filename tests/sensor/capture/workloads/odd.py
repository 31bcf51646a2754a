"""Drives odd_tls.c. Usage: odd LIBRARY SCENARIO"""

from __future__ import annotations

import ctypes
import sys
import tempfile

from tests.sensor.capture.workloads.control import pattern, report, wait_for_go

library = ctypes.CDLL(sys.argv[1])
library.SSL_new.restype = ctypes.c_void_p
new, free = library.SSL_new, library.SSL_free
free.argtypes = [ctypes.c_void_p]
CALLBACK = ctypes.CFUNCTYPE(None)


class Connection:
    def __init__(self) -> None:
        self.ssl = ctypes.c_void_p(new(None))

    def write(self, data: bytes) -> None:
        assert library.SSL_write(self.ssl, data, len(data)) == len(data)

    def write_ex(self, data: bytes) -> None:
        written = ctypes.c_size_t()
        assert library.SSL_write_ex(self.ssl, data, ctypes.c_size_t(len(data)), ctypes.byref(written)) == 1

    def read(self, size: int) -> None:
        assert library.SSL_read(self.ssl, ctypes.create_string_buffer(size), size) == size


def jumps() -> list[Connection]:
    one = Connection()
    for size in (10, 300, 20_000):
        one.write_ex(pattern(size))
        one.write(pattern(size))
    return [one]


def callbacks() -> list[Connection]:
    """A read whose callback writes on the same connection and reads on another one."""
    one, other = Connection(), Connection()
    depth = 0

    def inside() -> None:
        nonlocal depth
        depth += 1
        if depth == 1:
            one.write(b"request")
            other.read(31)

    function = CALLBACK(inside)
    library.odd_set_callback(function)
    one.read(17)
    return [one, other]


def lies() -> list[Connection]:
    """A result beyond the buffer, one that no memory holds, a call left by longjmp, a buffer nobody can
    read; then an honest one."""
    one = Connection()
    got = ctypes.c_size_t()
    assert library.SSL_read_ex(
        one.ssl, ctypes.create_string_buffer(64), ctypes.c_size_t(64), ctypes.byref(got)
    )
    assert library.SSL_write_ex(one.ssl, b"", ctypes.c_size_t(1 << 62), ctypes.byref(got))
    library.odd_escape(one.ssl)
    assert library.SSL_write(one.ssl, ctypes.c_void_p(64), 5000) == 5000
    one.write(b"honest")
    return [one]


def signals() -> list[Connection]:
    """A read that a signal interrupts, whose handler writes on another connection."""
    interrupted, handlers = Connection(), Connection()
    library.odd_signal(interrupted.ssl, handlers.ssl)
    return [interrupted, handlers]


def untouched() -> list[Connection]:
    """A buffer whose page is in no page table until somebody looks; then one that is."""
    one = Connection()
    with tempfile.NamedTemporaryFile() as file:
        file.write(pattern(5000))
        file.flush()
        assert library.odd_write_untouched(one.ssl, file.name.encode(), 5000) == 5000
    one.write(b"touched")
    return [one]


wait_for_go()
connections = {
    "jumps": jumps,
    "callbacks": callbacks,
    "lies": lies,
    "signals": signals,
    "untouched": untouched,
}[sys.argv[2]]()
for connection in connections:
    free(connection.ssl)
report(ssl=[connection.ssl.value for connection in connections])
