"""Target: every dialect, through the exchange that reads it.

An input has four parts with a line of `=` between them: which route (the dialect's module and the number of
its line), the request document, status and type of the answer, and the answer. What is framed by lengths and
checksums is written as lines, and framed here: events of AWS as `name document`, messages of gRPC by a blank
line, and messages of a session (status 101) one a line.
"""

from __future__ import annotations

import binascii
import importlib
import re
import struct
import zlib
from collections.abc import Iterable
from typing import Any

from mmproto.exchange import Exchange, ReadingRules, RequestHead, ResponseHead
from mmproto.framing.jsonpick import EVERY, Tree, Want
from mmproto.providers import catalogue
from mmproto.providers.dialect import Asked
from mmproto.providers.route import Route
from tests.fuzz.framings import grpc_message, socket_frame
from tests.fuzz.outcomes import RULES, check
from tests.fuzz.target import Target, cuts, rng_of
from tests.proto import wire

# The parts of a compiled pattern, as `re` itself takes one apart.
sre: Any = importlib.import_module("re._constants")
sre_parser: Any = importlib.import_module("re._parser")

_EVENTS = "application/vnd.amazon.eventstream"
_GRPC = "application/grpc"
_SSE = "text/event-stream"
_SEPARATOR = b"\n=\n"
_MAX_FRAME = 120


def _routes() -> dict[str, Route]:
    named: dict[str, Route] = {}
    for dialect in catalogue.DIALECTS:
        module = dialect.__name__.partition(".dialects.")[2]
        named |= {f"{module} {number}": route for number, route in enumerate(dialect.ROUTES)}
    return named


ROUTES = _routes()
_PROVIDERS = sorted({provider for route in ROUTES.values() for provider in route.providers})
_HOSTED = ReadingRules(
    hosts={f"{provider}.test": provider for provider in _PROVIDERS}, hash_key=RULES.hash_key
)


def example(pattern: str) -> str:
    """A path that the pattern matches."""
    return "/" + _written(sre_parser.parse(pattern)).removeprefix("/")


def _written(parsed: Iterable[tuple[Any, Any]]) -> str:
    out = ""
    for kind, value in parsed:
        if kind is sre.LITERAL:
            out += chr(value)
        elif kind in (sre.ANY, sre.NOT_LITERAL):
            out += "m"
        elif kind is sre.IN:
            out += _member(value)
        elif kind is sre.BRANCH:
            out += _written(value[1][0])
        elif kind is sre.SUBPATTERN:
            out += _written(value[3])
        elif kind in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            is_anything = value[2][0][0] is sre.ANY  # a path that ends with nothing loses its slash
            out += _written(value[2]) * max(value[0], int(is_anything))
    return out


def _member(choices: list[tuple[Any, Any]]) -> str:
    kind, value = choices[0]
    return chr(value) if kind is sre.LITERAL else chr(value[0]) if kind is sre.RANGE else "m"


def run(data: bytes) -> None:
    """One sound outcome, the same for any split."""
    parts = data.split(_SEPARATOR, 3)
    parts += [b""] * (4 - len(parts))
    name, request, head, answer = parts
    route = ROUTES.get(name.decode("latin-1"))
    if route is None:
        route = sorted(ROUTES.items())[zlib.crc32(name) % len(ROUTES)][1]
    status, _, kind = head.decode("latin-1").partition(" ")
    code = int(status) if re.fullmatch("[1-5][0-9][0-9]", status) else 200
    body = _framed(code, kind, answer)
    rng = rng_of(data)
    whole = exchanged(route, [request], code, kind, [body])
    assert exchanged(route, cuts(request, rng), code, kind, cuts(body, rng)) == whole


def _framed(status: int, kind: str, answer: bytes) -> bytes:
    if status == 101:
        return b"".join(socket_frame(0x81, line[:_MAX_FRAME]) for line in answer.split(b"\n"))
    if kind.startswith(_EVENTS):
        return b"".join(_event(*line.partition(b" ")[::2]) for line in answer.split(b"\n"))
    if kind.startswith(_GRPC):
        return b"".join(grpc_message(message) for message in answer.split(b"\n\n"))
    return answer


def _event(name: bytes, payload: bytes) -> bytes:
    names = {b":event-type": name, b":message-type": b"event"}
    headers = b"".join(
        bytes([len(key)]) + key + b"\x07" + len(value).to_bytes(2, "big") + value
        for key, value in ((key, value[:999]) for key, value in names.items())
    )
    prelude = struct.pack(">II", len(headers) + len(payload) + 16, len(headers))
    frame = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + payload
    return frame + struct.pack(">I", binascii.crc32(frame))


def exchanged(
    route: Route, request: Iterable[bytes], status: int, kind: str, answer: Iterable[bytes]
) -> list[str]:
    host = f"{min(route.providers)}.test" if route.providers else "api.openai.com"
    method = "POST" if "POST" in route.methods else min(route.methods)
    asked = (("host", host), ("content-type", "application/json"), ("upgrade", "websocket"))
    head = RequestHead(method, example(route.path) + "?model=m", asked[: 3 if status == 101 else 2])
    exchange = Exchange(head, _HOSTED, "fallback", 1)
    for piece in request:
        exchange.request_body(piece, 2)
    exchange.request_end(3)
    exchange.response_head(ResponseHead(status, (("content-type", kind), ("x-request-id", "r"))), 4)
    found = []
    for piece in answer:
        exchange.response_body(piece, 5)
        found += exchange.further(5)
    outcome = exchange.end(6)
    return check([*found, *exchange.further(6), outcome])


_COUNTS = {
    name: number
    for number, name in enumerate(
        ("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "seconds")
    )
}


def skeleton(tree: Tree, name: str = "") -> Any:
    """A document that has everything that a dialect looks for."""
    if EVERY in tree and len(tree) == 1:
        return [_leaf(tree[EVERY], name)]
    return {key: _leaf(wanted, key) for key, wanted in tree.items() if key != EVERY}


def _leaf(wanted: Want | Tree, name: str) -> Any:
    if isinstance(wanted, dict):
        return skeleton(wanted, name)
    lower = name.lower()
    if "usage" in lower:
        return _COUNTS
    if any(word in lower for word in ("token", "count", "second", "units", "images", "chars")):
        return 7
    return wanted is Want.PRESENT or name


def _seeds() -> list[bytes]:
    seeds = []
    for name, route in ROUTES.items():
        dialect = route.dialect(Asked(path=example(route.path)))
        request, answer = (
            wire.dump(skeleton(dialect.request_tree)),
            wire.dump(skeleton(dialect.response_tree)),
        )
        event = wire.dump(skeleton(dialect.event_tree))
        names = sorted(dialect.telling_names) or [""]
        stream = b"".join(b"event: %s\ndata: %s\n\n" % (one.encode(), event) for one in names)
        shapes = [(b"200 application/json", answer), (f"200 {_SSE}".encode(), stream + b"data: [DONE]\n\n")]
        if name.startswith("aws."):
            frames = b"\n".join(b"%s %s" % (one.encode() or b"chunk", event) for one in names)
            shapes.append((f"200 {_EVENTS}".encode(), frames))
        if "grpc" in name:
            shapes = [(f"200 {_GRPC}".encode(), b"\x0a\x01a\x12\x02\x08\x07\x1a\x04\x08\x01\x10\x02")]
        if "realtime" in name or "live" in name or "socket" in name:
            shapes.append((b"101 ", event + b"\n" + event))
        seeds += [_SEPARATOR.join((name.encode(), request, head, body)) for head, body in shapes]
    return seeds


def _words() -> list[bytes]:
    words: set[bytes] = set()
    for route in ROUTES.values():
        dialect = route.dialect(Asked(path="/"))
        for tree in (dialect.request_tree, dialect.response_tree, dialect.event_tree):
            _collect(tree, words)
        words |= {name.encode() for name in dialect.telling_names}
    return sorted(words)


def _collect(tree: Tree, words: set[bytes]) -> None:
    for key, wanted in tree.items():
        words.add(b'"' + key.encode() + b'":')
        if isinstance(wanted, dict):
            _collect(wanted, words)


TARGETS = {"dialects": Target(run, _seeds, _words)}
