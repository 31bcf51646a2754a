"""Header blocks against the encoder and the decoder of the `hpack` library; unknown is never wrong."""

from __future__ import annotations

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmproto.framing.hpack_block import MAX_FIELDS, MAX_TABLE, BlockReader, Fields

_NAMES = st.sampled_from(
    [":method", ":path", ":status", "content-type", "x-a", "x-b", "authorization", "z" * 90]
)
_VALUES = st.text(st.characters(max_codepoint=255), max_size=60)
_FIELD = st.tuples(_NAMES, _VALUES, st.booleans())  # the last: never to be indexed
_BLOCKS = st.lists(st.tuples(st.none() | st.integers(0, 9000), st.lists(_FIELD, max_size=8)), max_size=12)


def encoded(
    blocks: list[tuple[int | None, list[tuple[str, str, bool]]]], *, huffman: bool
) -> list[tuple[bytes, list[tuple[str, str]]]]:
    """Blocks of one encoder, whose table changes its size as the first element says, with what they hold."""
    encoder = hpack.Encoder()
    found = []
    for size, fields in blocks:
        if size is not None:
            encoder.header_table_size = size
        raw = [(name.encode(), value.encode("latin-1"), secret) for name, value, secret in fields]
        found.append((encoder.encode(raw, huffman), [(name, value) for name, value, _ in fields]))
    return found


@settings(max_examples=200)
@given(_BLOCKS, st.booleans())
def test_what_was_encoded_is_read(
    blocks: list[tuple[int | None, list[tuple[str, str, bool]]]], huffman: bool
) -> None:
    reader, library = BlockReader(), hpack.Decoder()
    library.max_allowed_table_size = 9000
    for block, fields in encoded(blocks, huffman=huffman):
        reader.allow(9000)
        assert reader.read(block) == Fields(tuple(fields), 0)
        assert [tuple(field) for field in library.decode(block, raw=True)] == [
            (name.encode(), value.encode("latin-1")) for name, value in fields
        ]


@settings(max_examples=300)
@given(_BLOCKS, st.integers(0, 12), st.booleans(), st.booleans())
def test_what_is_read_from_the_middle_is_right_or_unknown(
    blocks: list[tuple[int | None, list[tuple[str, str, bool]]]], missing: int, late: bool, huffman: bool
) -> None:
    """Joined late, or after blocks that a gap has swallowed."""
    reader = BlockReader(joined_late=late)
    all_blocks = encoded(blocks, huffman=huffman)
    if not late:
        for block, _ in all_blocks[: missing // 2]:
            reader.read(block)
        reader.forget()
    for block, fields in all_blocks[missing:]:
        read = reader.read(block)
        assert read is not None
        assert len(read.headers) + read.unresolved == len(fields)
        rest = iter(fields)
        assert all(field in rest for field in read.headers), "not the fields that were sent, in their order"


def test_unknown_entries_become_known_again() -> None:
    encoder = hpack.Encoder()
    encoder.encode([("x-a", "1")])
    reader = BlockReader(joined_late=True)
    assert reader.read(encoder.encode([("x-a", "1"), ("x-b", "2"), ("x-a", "3")])) == Fields(
        (("x-b", "2"),), 2
    )
    # The name of the last one was not known, its value was: as an entry it stays unknown.
    assert reader.read(encoder.encode([("x-b", "2"), ("x-a", "3")])) == Fields((("x-b", "2"),), 1)


BAD = [
    b"\x80",  # index 0
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff",  # an integer without an end
    b"\xff\xff\xff\x7f",  # an index beyond any table
    b"\x40\x05ab",  # shorter than it says
    b"\x40\x00\x01a",  # a name of no length
    b"\x40\x01a\x81\x00",  # a Huffman text that ends in the middle of a symbol
    b"\x40\x01a\x84\xff\xff\xff\xff",  # and one that holds the end-of-string symbol
    b"\x41",
    b"\x00",
]


@pytest.mark.parametrize("block", BAD)
def test_what_is_no_block(block: bytes) -> None:
    reader = BlockReader()
    reader.read(hpack.Encoder().encode([("x-a", "1")]))
    assert reader.read(block) is None
    assert reader.read(b"\xbe") == Fields((), 1), "after it no entry can be named"


@given(st.binary(max_size=300))
def test_any_bytes_are_fields_or_none(block: bytes) -> None:
    BlockReader(joined_late=True).read(block)


def test_a_block_that_names_a_large_entry_over_and_over() -> None:
    reader = BlockReader(joined_late=True)
    assert reader.read(b"\x40\x01a\x7f" + b"\x81\x17" + b"v" * 3072) is not None
    assert reader.read(b"\xbe" * (MAX_FIELDS // 3072 - 1)) is not None
    assert reader.read(b"\xbe" * (MAX_FIELDS // 3072 + 1)) is None


def test_a_table_never_holds_more_than_its_bound() -> None:
    encoder, reader = hpack.Encoder(), BlockReader(joined_late=True)
    encoder.header_table_size = (1 << 32) - 1
    for number in range(3000):
        reader.read(encoder.encode([("x-a", f"{number:0100}")]))
    assert reader._size <= MAX_TABLE
    assert len(reader._entries) == MAX_TABLE // (3 + 100 + 32)
