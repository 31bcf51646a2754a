"""The protobuf reader, against Google's own writer: any message, any pieces, any damage."""

from __future__ import annotations

import random
from typing import Any, Final

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import example, given
from hypothesis import strategies as st

from mmproto.providers.protobuf_wire import (
    MAX_ITEMS,
    MAX_TEXT,
    MessageReader,
    Table,
    decode,
    double,
    integer,
    integers,
    message,
    present,
    text,
)

F = descriptor_pb2.FieldDescriptorProto
# name, number, type, label, type of a message
FIELDS: Final = {
    "Inner": [("count", 1, F.TYPE_INT32, 1, ""), ("name", 2, F.TYPE_STRING, 1, "")],
    "Outer": [
        ("id", 1, F.TYPE_STRING, 1, ""),
        ("total", 2, F.TYPE_INT64, 1, ""),
        ("single", 3, F.TYPE_MESSAGE, 1, ".t.Inner"),
        ("many", 200, F.TYPE_MESSAGE, 3, ".t.Inner"),
        ("packed", 5, F.TYPE_INT32, 3, ""),
        ("noise", 6, F.TYPE_BYTES, 1, ""),
        ("ratio", 7, F.TYPE_DOUBLE, 1, ""),
        ("small", 8, F.TYPE_FIXED32, 1, ""),
        ("there", 9, F.TYPE_MESSAGE, 1, ".t.Inner"),
    ],
}
INNER: Final[Table] = {1: integer("count"), 2: text("name")}
TABLE: Final[Table] = {
    1: text("id"),
    2: integer("total"),
    3: message("single", INNER),
    200: message("many", INNER, repeated=True),
    5: integers("packed"),
    7: double("ratio"),
    9: present("there"),
}


def _message_class() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="t.proto", package="t", syntax="proto3")
    for name, fields in FIELDS.items():
        kind = file.message_type.add(name=name)
        for field, number, type_, label, type_name in fields:
            added = kind.field.add(name=field, number=number, label=label)
            added.type = type_
            if type_name:
                added.type_name = type_name
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("t.Outer"))


OUTER: Final = _message_class()
INT32 = st.integers(-(2**31), 2**31 - 1)
INNERS = st.fixed_dictionaries({}, optional={"count": INT32, "name": st.text(max_size=9)})
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=40),
        "total": st.integers(-(2**63), 2**63 - 1),
        "single": INNERS,
        "many": st.lists(INNERS, max_size=4),
        "packed": st.lists(INT32, max_size=5),
        "noise": st.binary(max_size=300),
        "ratio": st.floats(allow_nan=False),
        "small": st.integers(0, 2**32 - 1),
        "there": INNERS,
    },
)


def on_the_wire(document: dict[str, Any]) -> dict[str, Any]:
    """What of a document is written, defaults left out, and wanted."""
    found = {name: value for name, value in document.items() if name not in ("noise", "small")}
    # A negative zero is no default: protobuf compares its bits.
    written = {name for name, value in found.items() if value or str(value) == "-0.0"}
    found = {name: value for name, value in found.items() if name in written | {"single", "there"}}
    for name in ("single", "many"):
        if name in found:
            found[name] = (
                [inner_on_the_wire(one) for one in found[name]]
                if name == "many"
                else inner_on_the_wire(found[name])
            )
    if "there" in found:
        found["there"] = True
    return found


def inner_on_the_wire(document: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if value}


def written(document: dict[str, Any]) -> bytes:
    built = OUTER(**{name: value for name, value in document.items() if name not in ("single", "there")})
    for name in ("single", "there"):
        if name in document:
            getattr(built, name).SetInParent()
            for field, value in document[name].items():
                setattr(getattr(built, name), field, value)
    return bytes(built.SerializeToString())


@example({"ratio": -0.0}, [])
@given(DOCUMENTS, st.lists(st.integers(1, 60), max_size=20))
def test_reads_what_was_written_in_any_pieces(document: dict[str, Any], sizes: list[int]) -> None:
    data = written(document)
    reader = MessageReader(TABLE)
    at = 0
    for size in sizes:
        reader.feed(data[at : at + size])
        at += size
    reader.feed(data[at:])
    assert reader.finish() == on_the_wire(document)
    assert not reader.damaged
    assert decode(data, TABLE) == on_the_wire(document)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_any_bytes_give_the_same_in_any_pieces_and_raise_nothing(data: bytes, size: int) -> None:
    whole, pieces = MessageReader(TABLE), MessageReader(TABLE)
    whole.feed(data)
    for at in range(0, len(data), size):
        pieces.feed(data[at : at + size])
    assert whole.finish() == pieces.finish()
    assert whole.damaged == pieces.damaged


@given(DOCUMENTS, st.data())
def test_a_message_cut_short_has_what_came_before(document: dict[str, Any], data: st.DataObject) -> None:
    encoded = written(document)
    kept = data.draw(st.integers(0, len(encoded)))
    reader = MessageReader(TABLE)
    reader.feed(encoded[:kept])
    found = reader.finish()
    if "total" in found:
        assert found["total"] == document["total"]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x0b", "a group"),
        (b"\x0f", "no wire type"),
        (b"\xff" * 11, "no varint"),
        (b"\x1a\x02\x08\xff\xff\x01", "a field that ends after its message"),
        (b"\x2a\x01\x80", "half a number in a packed list"),
        (b"\x0a\x05ab", "a text cut short"),
    ],
)
def test_damage(data: bytes, why: str) -> None:
    reader = MessageReader(TABLE)
    reader.feed(data)
    reader.finish()
    assert reader.damaged, why


def test_what_is_too_large_is_left_out() -> None:
    rng = random.Random(5)
    document = {"id": "x" * (MAX_TEXT + 1), "noise": rng.randbytes(1 << 20), "total": 7}
    document["many"] = [{"count": number} for number in range(1, MAX_ITEMS + 50)]
    found = decode(written(document), TABLE)
    assert (found["total"], "id" in found, len(found["many"])) == (7, False, MAX_ITEMS)


def test_the_last_of_a_repeated_value_counts_and_halves_of_a_message_are_merged() -> None:
    first = written({"total": 1, "single": {"count": 5}})
    second = written({"total": 2, "single": {"name": "n"}})
    assert decode(first + second, TABLE) == {"total": 2, "single": {"count": 5, "name": "n"}}
