"""JSON documents one after another: what separates them, damage, large ones, and any split."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.proto.framing.pieces import SIZES, data_of, read

from mmproto.framing.documents import DocumentReader
from mmproto.framing.events import MAX_HELD

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers() | st.text(max_size=5) | st.sampled_from(('"', "\\", "}{", "\n{")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=15,
)
DOCUMENTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=3) | st.lists(VALUES, max_size=3)
BETWEEN = st.sampled_from((b"\n", b"\r\n", b"", b" ", b"\n\n", b"\x1e", b"\t\r\n "))


@given(st.lists(st.tuples(DOCUMENTS, BETWEEN, st.sampled_from((None, 1))), max_size=6), SIZES)
def test_any_split_of_any_documents(parts: list[tuple[Any, bytes, int | None]], sizes: list[int]) -> None:
    body = b"".join(json.dumps(value, indent=indent).encode() + end for value, end, indent in parts)
    found = data_of(read(DocumentReader, body, sizes=sizes))
    assert [json.loads(document) for document in found] == [value for value, _, _ in parts]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("body", "events"),
    [
        (b'{"a":1}\n{"b":2}\n', [b'{"a":1}', b'{"b":2}']),
        (b'{"a":1}{"b":2}', [b'{"a":1}', b'{"b":2}']),
        (b'\xef\xbb\xbf{"a":1}\r\n\r\n[2]', [b'{"a":1}', b"[2]"]),
        (b'{"a":\n{"b":2}\n}\n', [b'{"a":\n{"b":2}\n}']),
        (b'1\n"x"\n{"a":1}', [b"1", b'"x"', b'{"a":1}']),
        (b'data: {"a":1}\n{"b":2}\n', [b'data: {"a":1}', b'{"b":2}']),
        (b'{"a":"x\n{"b":2}\n', [b'{"a":"x', b'{"b":2}']),
        (b'{"a":"x\\\n{"b":2}\n', [b'{"a":"x\\', b'{"b":2}']),
        (b'{"a":[1,2}} "c"\n{"b":2}\n', [b'{"a":[1,2}} "c"', b'{"b":2}']),
        (b"[DONE]\n", [b"[DONE]"]),
        (b'{"a":1}\n{"b":', [b'{"a":1}', b'{"b":']),
        (b"\n \n", []),
    ],
)
def test_bodies(body: bytes, events: list[bytes], size: int) -> None:
    assert data_of(read(DocumentReader, body, sizes=[size])) == events


@given(st.binary(max_size=300) | st.text(alphabet='{}[]"\\\n a1', max_size=300).map(str.encode), SIZES)
def test_any_split_of_anything(body: bytes, sizes: list[int]) -> None:
    assert read(DocumentReader, body, sizes=sizes) == read(DocumentReader, body)


@given(SIZES)
def test_a_large_document_comes_in_pieces(sizes: list[int]) -> None:
    large = b'{"image":"' + b"A" * (3 * MAX_HELD) + b'","list":[' + b"1,\n" * 40_000 + b"2]}"
    body = b'{"a":1}\n' + large + b'\n{"b":2}\n'
    found = data_of(read(DocumentReader, body, sizes=[max(size, 900) for size in sizes]))
    assert found == [b'{"a":1}', large, b'{"b":2}']


def test_a_large_document_is_not_held() -> None:
    reader = DocumentReader()
    reader.feed(b'{"a":"')
    for _ in range(50):
        assert all(not piece.last for piece in reader.feed(b"x" * 60_000))
        assert len(reader._open._held) <= MAX_HELD


@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_after_a_loss_the_next_document_that_begins_a_line_is_read(size: int) -> None:
    before, after = b'{"a":1}\n{"b":', b'2}\n  {"inner": 3}\n{"c":4}\n{"d":5}'
    assert data_of(read(DocumentReader, before, after, sizes=[size])) == [b'{"a":1}', b'{"c":4}', b'{"d":5}']
