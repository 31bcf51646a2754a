"""Calls libssl's functions one by one, two ends in one process joined by memory or pair BIOs.

Python's own ssl module writes at most 16 KiB a call and never uses SSL_read; here every call and its size
is chosen. Usage: libssl.py LIBRARY CERTIFICATE KEY SCENARIO JSON
"""

from __future__ import annotations

import ctypes
import json
import sys
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


def pair(context: tuple[int, int], buffer: int = 0, host: str = "") -> tuple[End, End]:
    """Two connected ends; `buffer` limits what fits between them, 0 for no limit."""
    client, server = End(context[0], False, host), End(context[1], True)
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
    while ssl.SSL_do_handshake(client.ssl) != 1 or ssl.SSL_do_handshake(server.ssl) != 1:
        ssl.SSL_do_handshake(server.ssl)
    return client, server


def carry(sender: End, receiver: End, size: int, extended: bool) -> None:
    """One write call of `size` bytes, then reads until all of it has arrived."""
    assert sender.write(pattern(size, sender.written_size), extended) == size
    left = size
    while left:
        got = receiver.read(min(left, 65536), extended)
        assert got, "the other end has nothing"
        left -= got


def sizes(arguments: Any) -> dict[str, Any]:
    client, server = pair(contexts(), host="sizes.example")
    wait_for_go("connected")
    for size in arguments["sizes"]:
        for extended in (False, True):
            carry(client, server, size, extended)
            carry(server, client, size, extended)
    ends = [client.report(), server.report()]
    client.free()
    server.free()
    return {"ends": ends}


def retries(arguments: Any) -> dict[str, Any]:
    """A write that finds no room is repeated with the same arguments until it is taken."""
    client, server = pair(contexts(), buffer=20_000)
    refused = 0
    for extended in (False, True):
        data = pattern(arguments["size"], client.written_size)
        while not client.write(data, extended):
            refused += 1
            while server.read(4096, extended):
                pass
        while server.read(4096, extended):
            pass
    ends = [client.report(), server.report()]
    client.free()
    server.free()
    return {"ends": ends, "refused": refused}


def reuse(arguments: Any) -> dict[str, Any]:
    """Connections one after the other; the allocator hands the same memory out again."""
    context = contexts()
    ends = []
    for number in range(arguments["connections"]):
        client, server = pair(context)
        carry(client, server, 100 + number, False)
        carry(server, client, 200 + number, True)
        ends += [client.report(), server.report()]
        server.free()
        client.free()
    return {"ends": ends}


def peeking(_arguments: Any) -> dict[str, Any]:
    """What is only looked at has not been read."""
    client, server = pair(contexts())
    client.write(pattern(5000))
    buffer = ctypes.create_string_buffer(5000)
    assert ssl.SSL_peek(server.ssl, buffer, 5000) == 5000
    while server.read(1000):
        pass
    ends = [client.report(), server.report()]
    client.free()
    server.free()
    return {"ends": ends}


def verdict(arguments: Any) -> dict[str, Any]:
    """Two connections; the test may judge one of them between the rounds."""
    context = contexts()
    pairs = [pair(context) for _ in range(2)]
    for _ in range(arguments["rounds"]):
        for client, server in pairs:
            for _ in range(10):
                carry(client, server, 1000, True)
        print(json.dumps([end.report() for both in pairs for end in both]), flush=True)
        sys.stdin.readline()
    return {"ends": [end.report() for both in pairs for end in both]}


def abandoned(arguments: Any) -> dict[str, Any]:
    """Connections that nobody frees: the process just ends."""
    client, server = pair(contexts())
    carry(client, server, arguments["size"], True)
    return {"ends": [client.report(), server.report()]}


if __name__ == "__main__":
    wait_for_go()
    report(**globals()[SCENARIO](json.loads(ARGUMENTS)))
