"""Skipping finds the same end as a parser, however the bytes are split and however far it leaps."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmproto.framing.jsonskip import MAX_DEPTH, MalformedJson, Skip

PLAIN = st.text(max_size=6) | st.integers() | st.sampled_from(('"', "\\", '\\"', "[{", "}", "\x01", "\\\\\\"))
VALUES = st.recursive(
    PLAIN,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def end_of(data: bytes, cuts: list[int]) -> int | None:
    """Where the value that `data` begins with ends, None where it goes on, -1 where it is malformed."""
    skip, position = Skip(), 1
    skip.begin(data[0])
    for cut in (*sorted(cut for cut in cuts if 1 <= cut < len(data)), len(data)):
        piece = data[position:cut]
        try:
            reached = skip.advance(piece, 0)
        except MalformedJson:
            return -1
        if not skip.is_open:
            return position + reached
        position = cut
    return None


@given(VALUES, st.integers(0, 9), st.lists(st.integers(1, 9000), max_size=6), st.binary(max_size=5))
def test_ends_where_a_parser_ends(value: Any, times: int, cuts: list[int], rest: bytes) -> None:
    document = json.dumps([value] * 4**times if times < 5 else {"a": [value] * times}).encode()
    assert end_of(document + rest, cuts) == len(document)
    assert end_of(document[:-1], cuts) is None


@pytest.mark.parametrize("seed", range(150))
def test_damage_is_found_alike_in_any_split(seed: int) -> None:
    rng = random.Random(seed)
    alphabet = rng.choice((b'{}[]"\\ a\x01', b'[]"a0,', b"{}[]", b'"\\a', b'{}[]"\\' + b"0" * 40))
    data = b"[" * rng.choice((1, 1, 60)) + bytes(rng.choices(alphabet, k=rng.choice((40, 4000, 30_000))))
    whole = end_of(data, [])
    for _ in range(5):
        cuts = sorted(rng.sample(range(1, len(data)), k=rng.randrange(1, 12)))
        assert end_of(data, cuts) == whole
    assert end_of(data[:5000], list(range(1, 5000))) == end_of(data[:5000], [])


@pytest.mark.parametrize("cuts", [[], [1], list(range(1, 20_002, 7)), list(range(1, 20_002, 1500))])
def test_nesting_is_bounded_at_the_same_depth(cuts: list[int]) -> None:
    deepest = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    assert end_of(deepest, cuts) == len(deepest)
    assert end_of(b"[" + deepest + b"]", cuts) == -1


def test_a_mismatch_that_looks_like_what_is_open() -> None:
    data = b"[{" + b" " * 5000 + b"[}" + b" " * 5000
    assert end_of(data, []) == -1
