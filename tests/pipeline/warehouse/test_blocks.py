"""Blocks hold exactly the rows they were made of: lengths over one byte, absent values, unknown buckets."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mmpipeline.rating.rated import RatedCall
from mmpipeline.store.warehouse.blocks import block_of, row_of_rated
from mmpipeline.store.warehouse.schema import OTHER_TOKENS, TOKEN_COLUMNS
from mmproto.v1.call_pb2 import Call
from tests.pipeline.blocks import columns_in, rows_in

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ["é" * 100, "x" * 20_000]
)
int64 = st.integers(-(2**63), 2**63 - 1)
counts = st.dictionaries(
    st.sampled_from([*(name.removeprefix("tokens_") for name in TOKEN_COLUMNS), "thoughts", "dreams"]),
    st.integers(0, 2**60),
    max_size=4,
)


@st.composite
def rated(draw: st.DrawFn) -> RatedCall:
    call = Call(id=draw(texts), team=draw(texts), response_model=draw(texts), request_model=draw(texts))
    call.started_at_unix_ns = draw(int64)
    if draw(st.booleans()):
        call.duration_s = draw(st.floats(0, 1e9))
    if draw(st.booleans()):
        call.process.command = draw(texts)
    for bucket, count in draw(counts).items():
        call.usage.tokens[bucket] = count
    return RatedCall(call, draw(st.sampled_from([1, -1])), draw(st.none() | int64), draw(texts), draw(texts))


@given(st.lists(rated(), min_size=1, max_size=6))
def test_a_block_holds_its_rows(rows: list[RatedCall]) -> None:
    block = block_of([row_of_rated(row) for row in rows])
    assert rows_in([block]) == rows
    columns = columns_in(block)
    calls = [row.call for row in rows]
    assert columns["id"] == [call.id.encode() for call in calls]
    assert columns["process"] == [call.process.command.encode() for call in calls]
    assert columns["model"] == [(call.response_model or call.request_model).encode() for call in calls]
    assert columns["started_at"] == [
        max(0, min(call.started_at_unix_ns, 4_294_967_295 * 10**9)) for call in calls
    ]
    assert columns["duration_s"] == [
        call.duration_s if call.HasField("duration_s") else None for call in calls
    ]
    sums = [sum(columns[name][at] for name in (*TOKEN_COLUMNS, OTHER_TOKENS)) for at in range(len(rows))]
    assert sums == [sum(call.usage.tokens[bucket] for bucket in call.usage.tokens) for call in calls]
