"""Sizes, retries, reuse and verdicts: what tests of the capture ask of a libssl, chosen call by call.

Usage: libssl LIBRARY CERTIFICATE KEY SCENARIO JSON
"""

from __future__ import annotations

import ctypes
import json
import sys
from typing import Any

from tests.sensor.capture.workloads.control import pattern, wait_for_go
from tests.sensor.capture.workloads.ends import carry, contexts, pair, run, ssl


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


run(
    {
        "sizes": sizes,
        "retries": retries,
        "reuse": reuse,
        "peeking": peeking,
        "verdict": verdict,
        "abandoned": abandoned,
    }
)
