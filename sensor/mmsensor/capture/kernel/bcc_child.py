"""Runs in the distribution's own Python, not in ours: compiles with BCC, loads, hands over the descriptors.

Standard input is the socket. Each packet is a request in JSON and is answered by one: `constants` (a text of
functions that return one number each) by their numbers; `text` with `programs` and `maps` by the descriptors
of these, in that order. Knows nothing of what it loads, and imports nothing of ours.
"""

from __future__ import annotations

import ctypes
import json
import socket
import sys
from typing import Any

import bcc  # type: ignore[import-not-found]

_PACKET_BYTES = 1 << 20
#: r0 = number; exit
_CONSTANT_BYTES = 16


def constants(request: dict[str, Any]) -> dict[str, int]:
    compiled = bcc.BPF(text=request["constants"].encode(), cflags=request["flags"])
    numbers = {}
    for index in range(bcc.lib.bpf_num_functions(compiled.module)):
        name = bcc.lib.bpf_function_name(compiled.module, index)
        code = compiled.dump_func(name)
        if len(code) != _CONSTANT_BYTES or code[:4] != b"\xb7\0\0\0":
            raise ValueError(f"{name.decode()} is no constant")
        numbers[name.decode()] = int.from_bytes(code[4:8], "little")
    return numbers


def program(compiled: Any, name: str, kind: int, attach_type: int) -> int:
    ctypes.set_errno(0)
    try:
        return int(compiled.load_func(name.encode(), kind, attach_type=attach_type).fd)
    # BCC raises nothing more particular.
    except Exception as error:
        raise OSError(ctypes.get_errno(), name) from error


def loaded(request: dict[str, Any]) -> list[int]:
    compiled = bcc.BPF(text=request["text"].encode(), cflags=request["flags"])
    programs = [program(compiled, *described) for described in request["programs"]]
    return programs + [bcc.lib.bpf_table_fd(compiled.module, name.encode()) for name in request["maps"]]


def answer(request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
    try:
        if "constants" in request:
            return {"constants": constants(request)}, []
        return {}, loaded(request)
    except OSError as error:
        return {"failure": error.strerror, "errno": error.errno}, []
    # Nor here.
    except Exception as error:
        return {"failure": str(error)}, []


def main() -> None:
    with socket.socket(fileno=sys.stdin.fileno()) as connection:
        while packet := connection.recv(_PACKET_BYTES):
            reply, descriptors = answer(json.loads(packet))
            socket.send_fds(connection, [json.dumps(reply).encode()], descriptors)


if __name__ == "__main__":
    main()
