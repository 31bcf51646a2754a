"""The elements of a streamed array: shapes, damage, large ones, losses, and any split."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.framing.pieces import SIZES, data_of, read
from tests.proto.framing.test_documents import VALUES

from mmproto.framing import jsonarray
from mmproto.framing.events import MAX_HELD
from mmproto.framing.jsonarray import ArrayReader


@given(st.lists(VALUES, max_size=6), st.sampled_from((None, 0, 2)), SIZES)
def test_any_split_of_any_array(values: list[Any], indent: int | None, sizes: list[int]) -> None:
    found = data_of(read(ArrayReader, json.dumps(values, indent=indent).encode() + b"\n", sizes=sizes))
    assert [json.loads(element) for element in found] == values


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize(
    ("body", "events", "problem"),
    [
        (b'[{"a":1}\n,\r\n{"b":2}\n]\n', [b'{"a":1}', b'{"b":2}'], ""),
        (b'{"error":{}}\n', [b'{"error":{}}'], ""),
        (b"[]", [], ""),
        (b"[1, null,true]", [b"1", b"null", b"true"], ""),
        (b'[{"a":1},{"b":', [b'{"a":1}', b'{"b":'], ""),
        (b'[{"a":1}', [b'{"a":1}'], ""),
        (b'[{"a":1},]', [b'{"a":1}'], jsonarray.MALFORMED),
        (b'[{"a":1}{"b":2}]', [b'{"a":1}'], jsonarray.MALFORMED),
        (b'[{"a":1},{"b":[}},{"c":1}]', [b'{"a":1}'], jsonarray.MALFORMED),
        (b'[{"a":1}] [', [b'{"a":1}'], jsonarray.MALFORMED),
        (b"]", [], jsonarray.MALFORMED),
    ],
)
def test_bodies(body: bytes, events: list[bytes], problem: str, size: int) -> None:
    result = read(ArrayReader, body, sizes=[size])
    assert [data for _, data in result.events] == events
    assert result.problem == problem


@given(st.text(alphabet='{}[]",:\\\n a1', max_size=200).map(str.encode), SIZES)
def test_any_split_of_anything(body: bytes, sizes: list[int]) -> None:
    assert read(ArrayReader, body, sizes=sizes) == read(ArrayReader, body)


@given(SIZES)
def test_a_large_element_comes_in_pieces(sizes: list[int]) -> None:
    large = b'{"image":"' + b"A" * (3 * MAX_HELD) + b'"}'
    body = b'[{"a":1},' + large + b',{"b":2}]'
    found = data_of(read(ArrayReader, body, sizes=[max(size, 900) for size in sizes]))
    assert found == [b'{"a":1}', large, b'{"b":2}']


def test_a_large_element_is_not_held() -> None:
    reader = ArrayReader()
    reader.feed(b'[{"a":"')
    for _ in range(50):
        assert all(not piece.last for piece in reader.feed(b"x" * 60_000))
        assert len(reader._open._held) <= MAX_HELD


@pytest.mark.parametrize("size", [1, 2, 3, 4, 1000])
def test_after_a_loss_the_next_element_is_found_where_it_is_certain(size: int) -> None:
    before, after = b'[{"a": 1}\n,\r\n{"b"', b': [\n    {},\n    {}\n  ]\n}\n,\r\n{"c": 4}\n]\n'
    assert data_of(read(ArrayReader, before, after, sizes=[size])) == [b'{"a": 1}', b'{"c": 4}']
    compact = read(ArrayReader, b'[{"a":1},{"b"', b':2},{"c":3}]', sizes=[size])
    assert compact.events == [("", b'{"a":1}')]
    assert compact.problem == jsonarray.LOST
