"""The picker equals a parser followed by pruning, for any document, any tree and any split."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmproto.framing.jsonpick import (
    EVERY,
    MAX_KEY,
    MAX_SMALL,
    PRESENT,
    VALUE,
    JsonBody,
    MalformedJson,
    Picker,
    Tree,
    prune,
)

KEYS = st.sampled_from(("a", "b", "c", "*", "usage", 'qu"ote', "\\", "é", ""))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(alphabet=st.characters(codec="utf-8"), max_size=12)
    | st.sampled_from(('"', "\\", '\\"', "{}", "[", "]}", "a\\\\", "\n\t"))
)
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
TREES: st.SearchStrategy[Any] = st.dictionaries(
    KEYS,
    st.recursive(
        st.sampled_from((VALUE, PRESENT)),
        lambda inner: st.dictionaries(KEYS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)


def pick(data: bytes, tree: Tree, sizes: list[int]) -> Any:
    picker = Picker(tree)
    position, index = 0, 0
    while position < len(data):
        size = sizes[min(index, len(sizes) - 1)]
        picker.feed(data[position : position + size])
        position += size
        index += 1
    return picker.finish()


@settings(max_examples=300)
@given(
    DOCUMENTS,
    TREES,
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.booleans(),
    st.sampled_from((None, 1)),
)
def test_equals_a_parser(
    document: Any, tree: Tree, sizes: list[int], ascii_only: bool, indent: int | None
) -> None:
    data = json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode()
    expected = prune(json.loads(data), tree)
    assert pick(data, tree, sizes) == expected
    assert pick(b" \r\n\t" + data + b"\n ", tree, [1 << 20]) == expected


TREE: Tree = {"model": VALUE, "usage": VALUE, "input": PRESENT, "choices": {EVERY: {"finish_reason": VALUE}}}


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(
    ("text", "picked"),
    [
        ('{"model":"a","model":"b"}', {"model": "b"}),
        ('{"choices":[{"finish_reason":"x"}],"choices":[]}', {"choices": []}),
        ('{"choices":[{"finish_reason":"x"}],"choices":7}', {}),
        ('{"mod\\u0065l":"a"}', {"model": "a"}),
        ('\ufeff{"model":"a"}', {"model": "a"}),
        ('   \n\n {"model":null}', {"model": None}),
        ('{"usage":{"a":[1,{"b":"}"}]},"input":[[[]]]}', {"usage": {"a": [1, {"b": "}"}]}, "input": True}),
        ('{"other":' + "[" * 2000 + "]" * 2000 + ',"model":"deep"}', {"model": "deep"}),
        ("[1,2]", None),
        ("7", None),
        ('"text"', None),
    ],
)
def test_documents(text: str, picked: Any, small: bool) -> None:
    assert body(text.encode(), padded=not small).finish() == picked


@pytest.mark.parametrize("small", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "}",
        "{]",
        '{"a"}',
        '{"a":}',
        '{"a":1,}',
        '{"a":1}{',
        '{"a":1 "b":2}',
        '{"a":tru}',
        "nul",
        '{"model":"x',
        '{"a":[1,2}',
        '{"usage":{"a":[}}',
        "{'a':1}",
        '{"a":01}',
        '{"a":NaN}',
        '{"model":+1}',
        "[" * 20_000,
    ],
)
def test_malformed(text: str, small: bool) -> None:
    with pytest.raises(MalformedJson):
        body(text.encode(), padded=not small).finish()


def body(data: bytes, *, padded: bool) -> JsonBody:
    """`data` as a body, padded with white space beyond what is parsed at once where asked to."""
    reader = JsonBody(TREE)
    for piece in (data, b" " * (MAX_SMALL + 1)) if padded else (data,):
        reader.feed(piece)
    return reader


def test_lone_surrogates_and_broken_utf8_are_no_reason_to_lose_the_rest() -> None:
    reader = body(b'{"model":"\\ud800x","other":"\xff\xfe","usage":{"a":1}}', padded=False)
    picked = reader.finish()
    assert picked["usage"] == {"a": 1}


def test_partial_keeps_what_was_whole() -> None:
    for padding in (0, MAX_SMALL):
        reader = JsonBody(TREE)
        reader.feed(b" " * padding + b'{"model":"a","choices":[{"finish_reason":"stop"},{"finish_rea')
        assert reader.partial() == {"model": "a", "choices": [{"finish_reason": "stop"}, {}]}


def test_a_value_beyond_the_bound_is_left_out() -> None:
    reader = body(b'{"usage":"' + b"x" * (2 * MAX_SMALL) + b'","model":"a"}', padded=False)
    assert reader.finish() == {"model": "a"}


@pytest.mark.parametrize("size", [1000, 1 << 20])
def test_a_key_beyond_the_bound_is_damage_however_it_comes(size: int) -> None:
    for length, malformed in ((MAX_KEY - 1, False), (MAX_KEY, True)):
        data = b'{"' + b"k" * length + b'":1,"model":"a"}'
        try:
            assert pick(data, TREE, [size]) == {"model": "a"}
        except MalformedJson:
            assert malformed
        else:
            assert not malformed


def test_memory_stays_bounded() -> None:
    pieces = (
        (b'{"input":"', b'","model":"a"}', b"QUJD" * 4096),
        (b'{"input":[[0]', b'],"model":"a"}', b",[0.125,-0.5,1e-3]" * 900),
        (b'{"input":[{}', b'],"model":"a"}', b',{"a":{"b":[{"c":"d\\"e"}]}}' * 600),
    )
    for head, tail, middle in pieces:
        tracemalloc.start()
        reader = JsonBody(TREE)
        reader.feed(head)
        for _ in range(600):  # ~10 MB
            reader.feed(middle)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        reader.feed(tail)
        assert reader.finish() == {"input": True, "model": "a"}
        assert peak < 1 << 20
