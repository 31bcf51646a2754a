"""Every dialect, given documents with the right names and any values: nothing raises, counts stay counts.

A provider may send a list where an object is documented, a text where a number is, or null anywhere. What a
dialect sees is pruned to its own trees, so documents are made from those.
"""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from mmproto.framing.events import Event
from mmproto.framing.jsonpick import EVERY, Want, prune
from mmproto.providers import paths
from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.hosts import Quirk
from mmproto.usage import MAX_TOKENS, TOKEN_BUCKETS, UNITS
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_UNKNOWN

# Messages of gRPC are typed: what is decoded of them has the shape of its table.
ROUTES = [
    pytest.param(route, id=f"{route.dialect.__name__}:{route.path}")
    for _, route in paths._COMPILED
    if not route.dialect.__module__.rpartition(".")[2].startswith("grpc_")
]
# Names of what dialects take whole, and texts that mean something to some of them.
NAMES = (
    *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "cached_tokens"),
    *(
        "prompt_tokens_details",
        "input_token_details",
        "cached_tokens_details",
        "audio_tokens",
        "image_tokens",
    ),
    *("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "inputTokens", "outputTokens"),
    *("reasoning_tokens", "seconds", "cost", "total_cost", "usage", "models", "tokens", "iterations"),
    *("type", "status", "code", "message", "model", "id", "details"),
)
TEXTS = (
    *("completed", "succeeded", "failed", "queued", "in_progress", "ENDED", "error", "stop", "x", "12", ""),
    *("message_start", "response.done", "duration", "tokens", "batch", "response", "thread.run", "list"),
    *("chat.completion", "embedding", "\ud800"),
)


def value(rng: random.Random, depth: int = 0) -> Any:
    kind = rng.randrange(12 if depth < 3 else 8)
    if kind < 3:
        return rng.choice((0, 1, 7, rng.randrange(10**5), -3, 10**12, 10**30))
    if kind < 8:
        return (rng.choice(TEXTS), None, rng.random() < 0.5, rng.uniform(-1, 100), [])[kind - 3]
    if kind < 10:
        return {rng.choice(NAMES): value(rng, depth + 1) for _ in range(rng.randrange(6))}
    return [value(rng, depth + 1) for _ in range(rng.randrange(4))]


def document(rng: random.Random, tree: Any) -> Any:
    if tree is Want.PRESENT:
        return True
    if tree is Want.VALUE:
        return value(rng)
    if EVERY in tree and rng.random() < 0.8:
        return [document(rng, tree[EVERY]) for _ in range(rng.randrange(4))]
    keys = [key for key in tree if key != EVERY and rng.random() < 0.7]
    return {key: document(rng, tree[key]) for key in keys}


def text_of(rng: random.Random, tree: Any) -> bytes:
    """A document as JSON; numbers beyond 64 bits and lone surrogates as other writers put them."""
    return orjson.dumps(_writable(document(rng, tree)))


def _writable(made: Any) -> Any:
    if isinstance(made, dict):
        return {key: _writable(item) for key, item in made.items()}
    if isinstance(made, list):
        return [_writable(item) for item in made]
    if isinstance(made, int) and not isinstance(made, bool) and made > 2**63:
        return float(made)
    return "?" if made == "\ud800" else made


def use(dialect: Dialect, rng: random.Random) -> None:
    dialect.read_request_head({"user-agent": "x", "ai-language-model-id": "m"})
    dialect.read_request(prune(document(rng, dialect.request_tree), dialect.request_tree))
    dialect.read_request_event(Event("text", text_of(rng, dialect.event_tree)))
    dialect.read_response_head(200, {"content-type": "application/json", "x-request-id": "r"})
    names = ("", "text", *sorted(dialect.telling_names))
    for _ in range(rng.randrange(5)):
        dialect.read_event(Event(rng.choice(names), text_of(rng, dialect.event_tree)))
    if rng.random() < 0.6:
        dialect.read_response(prune(document(rng, dialect.response_tree), dialect.response_tree))
    dialect.read_event(Event(rng.choice(names), rng.randbytes(20)))
    dialect.close(complete=rng.random() < 0.5)


@pytest.mark.parametrize("route", ROUTES)
def test_any_document(route: Any) -> None:
    for seed in range(60):
        rng = random.Random(f"{route.path}:{seed}")
        names = {"model": "m"} if rng.random() < 0.5 else {}
        quirks = frozenset(quirk for quirk in Quirk if rng.random() < 0.3)
        asked = Asked("", rng.choice(sorted(route.methods)), "/x", "model=m", names, quirks, route.free)
        dialect = route.dialect(asked)
        use(dialect, rng)
        measured = [dialect.measured(complete=True), *(portion.measured for portion in dialect.portions)]
        for one in measured:
            assert set(one.tokens) <= TOKEN_BUCKETS
            assert set(one.units) <= UNITS
            assert all(type(n) is int and 0 <= n <= 4 * MAX_TOKENS for n in one.tokens.values())
            assert all(type(n) is float and 0 <= n <= MAX_TOKENS for n in one.units.values())
            assert one.quality != QUALITY_UNKNOWN or not one.tokens
            assert one.quality != QUALITY_EXACT or one.tokens or one.units
        for facts in (dialect.facts, *(portion.facts for portion in dialect.portions)):
            texts = (facts.request_model, facts.response_model, facts.response_id, facts.response_tier)
            assert all(isinstance(found, str) for found in (*texts, *facts.finish_reasons))
            cost = facts.reported_cost_nano_usd
            assert cost is None or (type(cost) is int and cost >= 0)
