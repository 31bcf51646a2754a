"""Whatever the bytes are, no exception escapes, memory stays bounded and every exchange has one outcome."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.proto import wire

from mmproto import har
from mmproto.exchange import Dropped, Failed, Outcome, ReadingRules, Recognised
from mmproto.reader import ConnectionReader, Direction

CONVERSATIONS: tuple[tuple[bytes, bytes], ...] = (
    (
        wire.request("api.openai.com", "/v1/chat/completions", wire.chat_request(stream=True)),
        wire.response(
            wire.sse(wire.chat_chunks(usage=wire.chat_usage()), done=True),
            content_type="text/event-stream",
            framing="chunked",
        ),
    ),
    (
        wire.request("api.openai.com", "/v1/chat/completions", wire.chat_request()),
        wire.response(wire.chat_completion(), encoding="gzip"),
    ),
    (
        wire.request("api.anthropic.com", "/v1/messages", wire.chat_request(stream=True)),
        wire.response(
            wire.sse(wire.message_events(), names=True),
            content_type="text/event-stream",
            framing="chunked",
            chunk=33,
        ),
    ),
    (
        wire.request("api.openai.com", "/v1/responses", {"model": "m", "input": "x", "stream": True}),
        wire.response(
            wire.sse(wire.response_events(), names=True), content_type="text/event-stream", framing="close"
        ),
    ),
    (
        wire.request("api.openai.com", "/v1/embeddings", {"model": "m", "input": "x"}),
        wire.response(
            {"object": "list", "data": [], "model": "m", "usage": {"prompt_tokens": 3, "total_tokens": 3}},
            framing="chunked",
            encoding="deflate",
            chunk=7,
        ),
    ),
)


def check(outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
        assert isinstance(outcome, Recognised | Dropped | Failed)
        if isinstance(outcome, Recognised):
            assert all(count >= 0 for count in outcome.call.usage.tokens.values())
            outcome.call.SerializeToString()
        else:
            assert outcome.reason


@given(st.lists(st.tuples(st.sampled_from(Direction), st.binary(max_size=200)), max_size=12), st.booleans())
def test_random_bytes(pieces: list[tuple[Direction, bytes]], late: bool) -> None:
    reader = ConnectionReader(wire.RULES, "c", late=late)
    outcomes: list[Outcome] = []
    for direction, data in pieces:
        outcomes += reader.feed(direction, data, 1)
    check(outcomes + reader.close(2))
    assert reader.open_exchanges == 0


@pytest.mark.parametrize("seed", range(60))
def test_mutated_conversations(seed: int) -> None:
    rng = random.Random(seed)
    for sent, received in CONVERSATIONS:
        reader = ConnectionReader(wire.RULES, "c", late=rng.random() < 0.2)
        outcomes: list[Outcome] = []
        for direction, clean in ((Direction.WRITE, sent), (Direction.READ, received)) * rng.choice((1, 3)):
            data = mutate(rng, clean)
            position = 0
            while position < len(data):
                size = rng.choice((1, 7, 50, 400, 5000))
                if rng.random() < 0.05:
                    outcomes += reader.gap(direction, size, 1)
                else:
                    outcomes += reader.feed(direction, data[position : position + size], 1)
                position += size
        check(outcomes + reader.close(2))
        assert reader.open_exchanges == 0


def mutate(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 3, 10))):
        position = rng.randrange(max(1, len(damaged) - 1))
        kind = rng.randrange(4)
        if kind == 0:
            damaged[position : position + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del damaged[position : position + rng.choice((1, 5, 100))]
        elif kind == 2:
            damaged[position:position] = rng.choice(
                (b"\r\n", b'"', b"{", b"\xff", b"-1", b"9" * 30, b"0\r\n\r\n")
            )
        else:
            damaged[position:position] = damaged[position : position + 50]
    return bytes(damaged)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_KEYS = (
    "usage",
    "choices",
    "id",
    "model",
    "error",
    "response",
    "type",
    "message",
    "delta",
    "object",
    "iterations",
)
_COUNTS = (
    "prompt_tokens",
    "completion_tokens",
    "total_tokens",
    "input_tokens",
    "output_tokens",
    "cache_creation",
)
ODD_USAGE = st.dictionaries(
    st.sampled_from((*_COUNTS, "prompt_tokens_details", "iterations")), JSON, max_size=6
)
ODD_DOCUMENT = st.dictionaries(st.sampled_from(_KEYS), JSON | ODD_USAGE, max_size=7)


@settings(max_examples=100)
@given(
    st.sampled_from(
        ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/messages", "/v1/completions")
    ),
    JSON | ODD_DOCUMENT,
    st.lists(ODD_DOCUMENT, max_size=4),
    st.booleans(),
)
def test_valid_json_of_any_shape(path: str, asked: object, answered: list[object], stream: bool) -> None:
    sent = wire.request("api.openai.com", path, wire.dump(asked))
    body = wire.sse(map(wire.dump, answered)) if stream else wire.dump(answered[0] if answered else {})
    check(wire.read(sent, wire.response(body), close=True))


@settings(max_examples=100)
@given(st.lists(JSON | st.fixed_dictionaries({"request": JSON, "response": JSON}), max_size=4))
def test_archives_of_any_shape(entries: list[object]) -> None:
    archive = wire.dump({"log": {"entries": entries}})
    outcomes = list(har.read(archive, ReadingRules()))
    check(outcomes)
    assert len(outcomes) == len(entries)
