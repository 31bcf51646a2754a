"""Calls for tests: small, distinct and priced by published rates."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable

from mmproto.callform import parse_time
from mmproto.v1.call_pb2 import OBSERVER_SENSOR, Call, Observer
from mmproto.v1.ingest_pb2 import IngestBatch
from mmproto.v1.usage_pb2 import QUALITY_EXACT, Quality, Usage

NOW = parse_time("2026-11-23T10:00:00Z")

# A thousand tokens of gpt-4o's input: 2.50 USD a million.
COST = 2_500_000


def call_id(rng: random.Random) -> str:
    """A UUID that `rng` chose."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=5))


def make_call(
    identity: str,
    *,
    at: int = NOW,
    observer: Observer = OBSERVER_SENSOR,
    quality: Quality = QUALITY_EXACT,
    tokens: dict[str, int] | None = None,
    **fields: str,
) -> Call:
    """A call of gpt-4o with 1,000 input tokens, unless something else is said."""
    call = Call(
        id=identity,
        provider="openai",
        operation="chat",
        request_model="gpt-4o",
        billable=True,
        started_at_unix_ns=at,
        observer=observer,
        usage=Usage(tokens={"input": 1000} if tokens is None else tokens, quality=quality),
    )
    for name, value in fields.items():
        setattr(call, name, value)
    return call


def batch(calls: Iterable[Call]) -> IngestBatch:
    """A batch of calls as a sensor posts it."""
    return IngestBatch(schema_version=1, node="node-1", calls=calls)
