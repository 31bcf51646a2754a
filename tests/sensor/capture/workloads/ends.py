"""Both ends of a TLS connection in one process, joined by memory or pair BIOs; every call of libssl by hand.

Python's own ssl module writes at most 16 KiB a call and never uses SSL_read; here every call and its size
is chosen. For workloads that are called with LIBRARY CERTIFICATE KEY SCENARIO JSON.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections.abc import Callable
from typing import Any

from tests.sensor.capture.workloads.control import Side, pattern, report, wait_for_go

P, N, S = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
LIBRARY, CERTIFICATE, KEY, SCENARIO, ARGUMENTS = sys.argv[1:6]

crypto = ctypes.CDLL("libcrypto.so.3", ctypes.RTLD_GLOBAL)
ssl = ctypes.CDLL(LIBRARY)
for library, name, result, arguments in (
    (ssl, "TLS_client_method", P, []),
    (ssl, "TLS_server_method", P, []),
    (ssl, "SSL_CTX_new", P, [P]),
    (ssl, "SSL_CTX_use_certificate_file", N, [P, ctypes.c_char_p, N]),
    (ssl, "SSL_CTX_use_PrivateKey_file", N, [P, ctypes.c_char_p, N]),
    (ssl, "SSL_new", P, [P]),
    (ssl, "SSL_free", None, [P]),
    (ssl, "SSL_set_bio", None, [P, P, P]),
    (ssl, "SSL_set_connect_state", None, [P]),
    (ssl, "SSL_set_accept_state", None, [P]),
    (ssl, "SSL_do_handshake", N, [P]),
    (ssl, "SSL_ctrl", ctypes.c_long, [P, N, ctypes.c_long, P]),
    (ssl, "SSL_read", N, [P, P, N]),
    (ssl, "SSL_read_ex", N, [P, P, S, P]),
    (ssl, "SSL_write", N, [P, P, N]),
    (ssl, "SSL_write_ex", N, [P, P, S, P]),
    (ssl, "SSL_peek", N, [P, P, N]),
    (ssl, "SSL_clear", N, [P]),
    (ssl, "SSL_shutdown", N, [P]),
    (ssl, "SSL_get1_session", P, [P]),
    (ssl, "SSL_set_session", N, [P, P]),
    (ssl, "SSL_CTX_set_max_early_data", N, [P, ctypes.c_uint32]),
    (ssl, "SSL_write_early_data", N, [P, P, S, P]),
    (ssl, "SSL_read_early_data", N, [P, P, S, P]),
    (ssl, "BIO_f_ssl", P, []),
    (crypto, "BIO_ctrl", ctypes.c_long, [P, N, ctypes.c_long, P]),
    (crypto, "BIO_write", N, [P, P, N]),
    (crypto, "BIO_read", N, [P, P, N]),
    (crypto, "BIO_free", N, [P]),
    (crypto, "BIO_new", P, [P]),
    (crypto, "BIO_s_mem", P, []),
    (crypto, "BIO_up_ref", N, [P]),
    (crypto, "BIO_new_bio_pair", N, [P, S, P, S]),
):
    function = getattr(library, name)
    function.restype = result
    function.argtypes = arguments


class End(Side):
    def __init__(self, context: int, server: bool, host: str = "") -> None:
        super().__init__(ssl.SSL_new(context))
        if host:
            ssl.SSL_ctrl(self.ssl, 55, 0, ctypes.c_char_p(host.encode()))
        (ssl.SSL_set_accept_state if server else ssl.SSL_set_connect_state)(self.ssl)

    def write(self, data: bytes, extended: bool = False) -> int:
        """Bytes taken by this one call; 0 where it must be tried again."""
        moved = S(0)
        if extended:
            count = moved.value if ssl.SSL_write_ex(self.ssl, data, len(data), ctypes.byref(moved)) else 0
        else:
            count = max(0, ssl.SSL_write(self.ssl, data, len(data)))
        self.wrote(data[:count])
        return count

    def read(self, size: int, extended: bool = False) -> int:
        buffer = ctypes.create_string_buffer(size)
        moved = S(0)
        if extended:
            count = moved.value if ssl.SSL_read_ex(self.ssl, buffer, size, ctypes.byref(moved)) else 0
        else:
            count = max(0, ssl.SSL_read(self.ssl, buffer, size))
        self.got(ctypes.string_at(buffer, count))
        return count

    def free(self) -> None:
        ssl.SSL_free(self.ssl)


def contexts() -> tuple[int, int]:
    client = ssl.SSL_CTX_new(ssl.TLS_client_method())
    server = ssl.SSL_CTX_new(ssl.TLS_server_method())
    assert ssl.SSL_CTX_use_certificate_file(server, CERTIFICATE.encode(), 1) == 1
    assert ssl.SSL_CTX_use_PrivateKey_file(server, KEY.encode(), 1) == 1
    return client, server


def join(client: End, server: End, buffer: int = 0) -> None:
    """Puts the two ends at one wire; `buffer` limits what fits between them, 0 for no limit."""
    if buffer:
        one, two = P(), P()
        crypto.BIO_new_bio_pair(ctypes.byref(one), buffer, ctypes.byref(two), buffer)
        ssl.SSL_set_bio(client.ssl, one, one)
        ssl.SSL_set_bio(server.ssl, two, two)
    else:
        there, back = crypto.BIO_new(crypto.BIO_s_mem()), crypto.BIO_new(crypto.BIO_s_mem())
        crypto.BIO_up_ref(there)
        crypto.BIO_up_ref(back)
        ssl.SSL_set_bio(client.ssl, back, there)
        ssl.SSL_set_bio(server.ssl, there, back)


def shake_hands(client: End, server: End) -> None:
    while ssl.SSL_do_handshake(client.ssl) != 1 or ssl.SSL_do_handshake(server.ssl) != 1:
        ssl.SSL_do_handshake(server.ssl)


def pair(context: tuple[int, int], buffer: int = 0, host: str = "") -> tuple[End, End]:
    """Two connected ends."""
    client, server = End(context[0], False, host), End(context[1], True)
    join(client, server, buffer)
    shake_hands(client, server)
    return client, server


def carry(sender: End, receiver: End, size: int, extended: bool) -> None:
    """One write call of `size` bytes, then reads until all of it has arrived."""
    assert sender.write(pattern(size, sender.written_size), extended) == size
    left = size
    while left:
        got = receiver.read(min(left, 65536), extended)
        assert got, "the other end has nothing"
        left -= got


def run(scenarios: dict[str, Callable[[Any], dict[str, Any]]]) -> None:
    """The main program of a workload: runs the scenario that it was called for, when told."""
    wait_for_go()
    report(**scenarios[SCENARIO](json.loads(ARGUMENTS)))
