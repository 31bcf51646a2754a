"""Targets: picking values out of JSON documents, and skipping over the rest."""

from __future__ import annotations

from typing import Any

import orjson

from mmproto.framing.jsonpick import (
    EVERY,
    MAX_SMALL,
    PRESENT,
    VALUE,
    JsonBody,
    MalformedJson,
    Picker,
    Tree,
    prune,
)
from tests.fuzz.target import Target, cuts, held, rng_of

TREE: Tree = {
    "model": VALUE,
    "usage": {"n": VALUE, "details": {EVERY: {"count": VALUE}}},
    "input": PRESENT,
    "choices": {EVERY: {"a": VALUE, "b": PRESENT}},
    EVERY: {"model": VALUE},
}


def run_picker(data: bytes) -> None:
    """The same for any split; what a strict parser reads is read the same; nothing else is made up."""
    rng = rng_of(data)
    whole = pick([data])
    assert pick(list(cuts(data, rng))) == whole
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    assert whole == ("read", prune(document, TREE))


def pick(pieces: list[bytes]) -> tuple[str, Any]:
    picker = Picker(TREE)
    size = sum(map(len, pieces))
    try:
        for piece in pieces:
            picker.feed(piece)
        assert held(picker) <= 3 * size + 1024
        return "read", picker.finish()
    except MalformedJson:
        return "malformed", None


def run_body(data: bytes) -> None:
    """A document that was large reads as the small one; what is picked of a cut one is of the whole."""
    if data.startswith(b"\xef"):
        return  # a byte order mark is one at the very beginning only
    rng = rng_of(data)
    small, large = JsonBody(TREE), JsonBody(TREE)
    small.feed(data)
    large.feed(b" " * (MAX_SMALL + 1))
    for piece in cuts(data, rng):
        large.feed(piece)
    try:
        read = small.finish()
    except MalformedJson:
        small.partial()
        large.partial()
        return
    assert large.finish() == read
    cut = JsonBody(TREE)
    cut.feed(data[: rng.randint(0, len(data))])
    if rng.random() < 0.3:
        cut.lose()
    cut.partial()


_SEEDS = (
    b'{"model":"a\\u0065","usage":{"n":12,"details":[{"count":1},{"count":2e3}]},"input":[[1],{"x":"}"}]}',
    b'\xef\xbb\xbf {"choices":[{"a":1,"b":{}},{"a":null}],"model":"x","model":"y"}\r\n',
    b'[{"model":"a"},[],"\\"\\\\",true,-1.5e-7]',
    b'{"input":"' + b"QUJD" * 900 + b'","choices":[' + b'{"a":"\\\\\\""},' * 300 + b"0]}",
    b'{"x":[' + b"[0.25,-1]," * 700 + b'{"a":"' + b'\\"' * 900 + b'"}],"model":"m"}',
)

TARGETS = {"jsonpick": Target(run_picker, lambda: _SEEDS), "jsonbody": Target(run_body, lambda: _SEEDS)}
