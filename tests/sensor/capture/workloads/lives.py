"""What programs do with an SSL object in the course of its life, besides writing and reading.

Usage: lives LIBRARY CERTIFICATE KEY SCENARIO JSON
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from typing import Any

from tests.sensor.capture.workloads.control import pattern
from tests.sensor.capture.workloads.ends import (
    End,
    S,
    carry,
    contexts,
    crypto,
    join,
    pair,
    run,
    shake_hands,
    ssl,
)

_CTRL_MODE, _MODE_PARTIAL_WRITE, _MODE_MOVING_BUFFER = 33, 1, 2
_EARLY_SUCCESS, _EARLY_FINISH = 1, 2
_BIO_SET_SSL, _BIO_CLOSE = 109, 1


def clear(arguments: Any) -> dict[str, Any]:
    """SSL_clear makes an object ready for another handshake: the next use is another connection."""
    context = contexts()
    client, server = pair(context)
    ends = []
    for number in range(arguments["uses"]):
        if number:
            for end in (client, server):
                assert ssl.SSL_clear(end.ssl) == 1
                end.forget()
            join(client, server)
            shake_hands(client, server)
        carry(client, server, 1000 + number, False)
        carry(server, client, 2000 + number, True)
        ends += [client.report(), server.report()]
    client.free()
    server.free()
    return {"ends": ends}


def fork(_arguments: Any) -> dict[str, Any]:
    """A child goes on with its parent's connection, and so does the parent with its own."""
    client, server = pair(contexts())
    carry(client, server, 3000, True)
    waiting, wake = os.pipe()
    reading, telling = os.pipe()
    child = os.fork()
    if not child:
        os.read(waiting, 1)
        client.forget()
        server.forget()
        carry(client, server, 40_009, False)
        carry(server, client, 50_021, True)
        os.write(telling, json.dumps([client.report(), server.report()]).encode())
        os.read(waiting, 1)
        os._exit(0)
    print(json.dumps({"child": child}), flush=True)
    sys.stdin.readline()
    os.write(wake, b"x")
    theirs = json.loads(os.read(reading, 65536))
    carry(server, client, 7000, False)
    ours = [client.report(), server.report()]
    os.write(wake, b"x")
    os.waitpid(child, 0)
    client.free()
    server.free()
    return {"child": child, "ends": ours, "theirs": theirs}


def threads(arguments: Any) -> dict[str, Any]:
    """One connection passed from thread to thread, while others have one each."""
    context = contexts()
    shared = pair(context)
    own = [pair(context) for _ in range(arguments["threads"])]
    turn = threading.Lock()

    def work(client: End, server: End) -> None:
        for size in (1, 777, 20_000):
            carry(client, server, size, True)
            carry(server, client, size, False)
            with turn:
                carry(*shared, size, False)

    workers = [threading.Thread(target=work, args=both) for both in own]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ends = [end for both in (shared, *own) for end in both]
    reports = [end.report() for end in ends]
    for end in ends:
        end.free()
    return {"ends": reports}


def moving_buffers(arguments: Any) -> dict[str, Any]:
    """Writes that are taken in part, each try from another address; reads of nothing in between."""
    client, server = pair(contexts(), buffer=20_000)
    ssl.SSL_ctrl(client.ssl, _CTRL_MODE, _MODE_PARTIAL_WRITE | _MODE_MOVING_BUFFER, None)
    data = pattern(arguments["size"])
    refused = partial = 0
    while client.written_size < len(data):
        left = data[client.written_size :]
        taken = client.write(bytes(bytearray(left)))
        partial += 0 < taken < len(left)
        assert server.read(0) == 0
        if not taken:
            refused += 1
            while server.read(5000):
                pass
    while server.read(5000):
        pass
    ends = [client.report(), server.report()]
    client.free()
    server.free()
    return {"ends": ends, "refused": refused, "partial": partial}


def half_closed(_arguments: Any) -> dict[str, Any]:
    """The client has said that it is done; the server answers all the same."""
    client, server = pair(contexts())
    carry(client, server, 5000, False)
    assert ssl.SSL_shutdown(client.ssl) == 0
    assert server.read(100) == 0
    carry(server, client, 30_011, True)
    assert ssl.SSL_shutdown(server.ssl) == 1
    assert client.read(100) == 0
    ends = [client.report(), server.report()]
    client.free()
    server.free()
    return {"ends": ends}


def early_data(arguments: Any) -> dict[str, Any]:
    """A second connection whose first bytes go out before the handshake is done."""
    context = contexts()
    ssl.SSL_CTX_set_max_early_data(context[1], 1 << 14)
    first, other = pair(context)
    # The ticket comes with the first bytes of the server's.
    carry(other, first, 10, False)
    carry(first, other, 10, False)
    ends = [first.report(), other.report()]
    session = ssl.SSL_get1_session(first.ssl)
    client, server = End(context[0], False), End(context[1], True)
    assert ssl.SSL_set_session(client.ssl, session) == 1
    join(client, server)
    early, moved = pattern(arguments["size"]), S(0)
    assert ssl.SSL_write_early_data(client.ssl, early, len(early), ctypes.byref(moved)) == 1
    client.wrote(early[: moved.value])
    buffer = ctypes.create_string_buffer(1 << 14)
    status = 0
    while status != _EARLY_FINISH:
        status = ssl.SSL_read_early_data(server.ssl, buffer, len(buffer), ctypes.byref(moved))
        if status == _EARLY_SUCCESS:
            server.got(buffer.raw[: moved.value])
        else:
            ssl.SSL_do_handshake(client.ssl)
    assert server.read_size == len(early), "the server took no early data"
    shake_hands(client, server)
    carry(client, server, 3000, True)
    carry(server, client, 4000, False)
    ends += [client.report(), server.report()]
    for end in (first, other, client, server):
        end.free()
    return {"ends": ends}


def filter_bio(_arguments: Any) -> dict[str, Any]:
    """A program that never calls SSL_write itself: it writes into a BIO that has the SSL object inside."""
    client, server = pair(contexts())
    bio = crypto.BIO_new(ssl.BIO_f_ssl())
    crypto.BIO_ctrl(bio, _BIO_SET_SSL, _BIO_CLOSE, client.ssl)
    data = pattern(9000)
    assert crypto.BIO_write(bio, data, len(data)) == len(data)
    client.wrote(data)
    while server.read(65536):
        pass
    assert server.write(data) == len(data)
    buffer = ctypes.create_string_buffer(len(data))
    while client.read_size < len(data):
        count = crypto.BIO_read(bio, buffer, len(buffer))
        assert count > 0
        client.got(buffer.raw[:count])
    ends = [client.report(), server.report()]
    crypto.BIO_free(bio)
    server.free()
    return {"ends": ends}


run(
    {
        "clear": clear,
        "fork": fork,
        "threads": threads,
        "moving_buffers": moving_buffers,
        "half_closed": half_closed,
        "early_data": early_data,
        "filter_bio": filter_bio,
    }
)
