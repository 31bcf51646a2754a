"""Messages are read in bulk, and that is the same as reading each alone, whatever is among them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from mmpipeline.workers.decoding import RECORD_HEADERS, decode
from mmpipeline.workers.headers import Header
from mmproto.delivery.records import call_record, decision_record
from mmproto.v1.call_pb2 import Call
from mmproto.v1.ingest_pb2 import IngestBatch
from mmproto.v1.routing_pb2 import RoutingDecision
from tests.pipeline.calls import call_id, make_call


@dataclass(frozen=True, slots=True)
class Raw:
    """A message."""

    content: bytes | None
    said: list[Header] = field(default_factory=lambda: list(RECORD_HEADERS))

    def value(self) -> bytes | None:
        return self.content

    def headers(self) -> list[Header]:
        return self.said


def test_bulk_is_the_same_as_each_alone() -> None:
    rng = random.Random(1)
    kinds: list[Callable[[], bytes]] = [
        lambda: call_record(make_call(call_id(rng), team="x" * rng.randrange(200))),
        lambda: decision_record(RoutingDecision(id=call_id(rng))),
        lambda: IngestBatch(
            schema_version=1, node="n", calls=[make_call(call_id(rng)), make_call(call_id(rng))]
        ).SerializeToString(),
        lambda: call_record(make_call(call_id(rng)))[: rng.randrange(1, 40)],
        lambda: rng.randbytes(rng.randrange(40)),
        lambda: b"",
    ]
    for _ in range(300):
        chosen = rng.choices(kinds, weights=[20, 5, 1, 1, 1, 1], k=rng.randrange(1, 30))
        messages = [Raw(make()) for make in chosen]
        together = decode(messages)
        for index, message in enumerate(messages):
            alone = decode([message])
            assert [c for i, c in together.calls if i == index] == [c for _, c in alone.calls]
            assert [d for i, d in together.decisions if i == index] == [d for _, d in alone.decisions]
            assert [r for i, r in together.unreadable if i == index] == [r for _, r in alone.unreadable]
            assert alone.calls or alone.decisions or alone.unreadable


def test_a_record_that_is_cut_off_does_not_eat_the_next() -> None:
    whole = call_record(make_call(call_id(random.Random(2)), team="t" * 200))  # two bytes of length
    longer = bytearray(whole)
    longer[1:3] = _varint(len(whole) - 3 + 50)  # says that fifty bytes more belong to it
    found = decode([Raw(bytes(longer)), Raw(whole), Raw(whole)])
    assert found.unreadable == [(0, "undecodable")]
    assert [index for index, _ in found.calls] == [1, 2]
    assert found.calls[0][1] == Call.FromString(whole[3:])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("content-type", b"application/json", "content_type"),
        ("content-type", None, "content_type"),
        ("schema", b"modelmeter.v1.Call", "schema"),
        ("schema-version", b"2", "schema_version"),
        ("schema-version", b"0", "schema_version"),
        ("schema-version", b"one", "schema_version"),
    ],
)
def test_what_the_headers_say(name: str, value: bytes | None, reason: str) -> None:
    record = call_record(make_call(call_id(random.Random(3))))
    headers: list[Header] = [(key, value if key == name else said) for key, said in RECORD_HEADERS]
    assert decode([Raw(record, headers)]).unreadable == [(0, reason)]
    missing: list[Header] = [(key, said) for key, said in RECORD_HEADERS if key != name]
    assert decode([Raw(record, missing)]).unreadable == [(0, name.replace("-", "_"))]


def test_headers_of_others_beside_ours_do_not_matter() -> None:
    record = call_record(make_call(call_id(random.Random(4))))
    headers: list[Header] = [("traceparent", b"00-1"), *reversed(RECORD_HEADERS)]
    assert len(decode([Raw(record, headers)]).calls) == 1


def _varint(number: int) -> bytes:
    return bytes([number & 0x7F | 0x80, number >> 7])
