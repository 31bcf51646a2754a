"""Target: picking fields out of protobuf messages."""

from __future__ import annotations

from typing import Any, Final

from mmproto.providers.protobuf_wire import (
    MAX_ITEMS,
    MessageReader,
    Table,
    integer,
    integers,
    message,
    present,
    text,
)
from tests.fuzz.target import Target, cuts, held, rng_of

_INNER: Final[Table] = {1: integer("modality"), 2: integer("tokenCount"), 3: text("name")}
TABLE: Final[Table] = {
    1: text("id"),
    2: message("choices", {3: integer("finish_reason"), 1: present("delta")}, repeated=True),
    4: message("usage", {**_INNER, 5: message("details", _INNER, repeated=True), 9: integers("tools")}),
    200: integer("large_number"),
}


def run_message(data: bytes) -> None:
    """The same for any split, damage included; nothing is kept that was not in the message."""
    whole = read([data])
    assert read(list(cuts(data, rng_of(data)))) == whole
    _judge(whole[1])


def read(pieces: list[bytes]) -> tuple[bool, dict[str, Any]]:
    reader = MessageReader(TABLE)
    size = sum(map(len, pieces))
    for piece in pieces:
        reader.feed(piece)
        assert held(reader) <= 12 * size + 4096
    document = reader.finish()
    return reader.damaged, document


def _judge(value: Any) -> None:
    if isinstance(value, dict):
        for item in value.values():
            _judge(item)
    elif isinstance(value, list):
        assert len(value) <= MAX_ITEMS
        for item in value:
            _judge(item)
    elif isinstance(value, int):
        assert -(2**63) <= value < 2**63


_SEEDS: Final = (
    b"\x0a\x03abc\x12\x04\x0a\x00\x18\x03\x22\x0e\x08\x04\x10\xac\x02\x2a\x04\x08\x01\x10\x07\x4a\x02\x01\x02",
    b"\xc0\x0c\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01\x31" + bytes(8) + b"\x45" + bytes(4),
    b"\x12\x02\x18\x01" * 300,
    b"\x32\x80\x20" + b"x" * 4096 + b"\x0a\x02\xc3\x28",
)

TARGETS = {"protobuf": Target(run_message, lambda: _SEEDS)}
