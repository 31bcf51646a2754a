"""A client that speaks TLS through rustls-ffi, to a server of Python's ssl module in the same process.

Usage: rustls.py LIBRARY CERTIFICATE KEY SIZE
"""

from __future__ import annotations

import ctypes
import ssl
import sys

from tests.sensor.capture.workloads.control import Side, pattern, report, wait_for_go

LIBRARY, CERTIFICATE, KEY = sys.argv[1:4]
SIZE = int(sys.argv[4])

OK, EMPTY = 7000, 7011
_MOVE = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_size_t)
)
_VERIFY = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_void_p)

library = ctypes.CDLL(LIBRARY)


def call(name: str, *arguments: object) -> None:
    result = getattr(library, name)(*arguments)
    assert result == OK, f"{name}: {result}"


class Client:
    """One connection; ciphertext goes to and comes from memory."""

    def __init__(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._callbacks = (_MOVE(self._take), _MOVE(self._give), _VERIFY(lambda *_: OK))
        library.rustls_client_config_builder_new.restype = ctypes.c_void_p
        builder = ctypes.c_void_p(library.rustls_client_config_builder_new())
        call("rustls_client_config_builder_dangerous_set_certificate_verifier", builder, self._callbacks[2])
        config, self._conn = ctypes.c_void_p(), ctypes.c_void_p()
        call("rustls_client_config_builder_build", builder, ctypes.byref(config))
        call("rustls_client_connection_new", config, b"localhost", ctypes.byref(self._conn))
        library.rustls_client_config_free(config)
        self.side = Side(self._conn.value or 0)

    def _take(self, _user: int, to: int, room: int, took: ctypes._Pointer[ctypes.c_size_t]) -> int:
        data = self._incoming.read(room)
        ctypes.memmove(to, data, len(data))
        took[0] = len(data)
        return 0

    def _give(self, _user: int, data: int, size: int, gave: ctypes._Pointer[ctypes.c_size_t]) -> int:
        gave[0] = self._outgoing.write(ctypes.string_at(data, size))
        return 0

    def pump(self) -> bytes:
        """Moves what ciphertext there is, both ways, and gives the plaintext that it made: rustls takes no
        more where that is not read."""
        received = b""
        moved = ctypes.c_size_t()
        library.rustls_connection_wants_write.restype = ctypes.c_bool
        while library.rustls_connection_wants_write(self._conn):
            library.rustls_connection_write_tls(self._conn, self._callbacks[1], None, ctypes.byref(moved))
        while self._incoming.pending:
            library.rustls_connection_read_tls(self._conn, self._callbacks[0], None, ctypes.byref(moved))
            call("rustls_connection_process_new_packets", self._conn)
            while piece := self.read():
                received += piece
        return received

    def write(self, data: bytes) -> int:
        moved = ctypes.c_size_t()
        size = ctypes.c_size_t(len(data))
        call("rustls_connection_write", self._conn, data, size, ctypes.byref(moved))
        self.side.wrote(data[: moved.value])
        return moved.value

    def read(self) -> bytes:
        """What has come; nothing where that is so."""
        buffer, moved = ctypes.create_string_buffer(10_000), ctypes.c_size_t()
        size = ctypes.c_size_t(len(buffer))
        result = library.rustls_connection_read(self._conn, buffer, size, ctypes.byref(moved))
        assert result in (OK, EMPTY), result
        data = buffer.raw[: moved.value] if result == OK else b""
        self.side.got(data)
        return data

    def free(self) -> None:
        library.rustls_connection_free(self._conn)


def serve(server: ssl.SSLObject) -> None:
    """Sends back what has come, where that is possible."""
    try:
        while True:
            server.write(server.read(16384))
    except ssl.SSLWantReadError:
        pass


wait_for_go()
context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
context.load_cert_chain(CERTIFICATE, KEY)
to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
client = Client(to_client, to_server)
answers = context.wrap_bio(to_server, to_client, server_side=True)
for data in (pattern(1), pattern(300), pattern(SIZE)):
    sent, received = 0, b""
    while len(received) < len(data):
        if sent < len(data):
            sent += client.write(data[sent:])
        received += client.pump()
        serve(answers)
    assert received == data
client.free()
report(**client.side.report())
