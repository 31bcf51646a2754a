"""What must hold for every outcome, and what of it must not depend on how the bytes were split."""

from __future__ import annotations

from collections.abc import Iterable

from mmproto.exchange import Dropped, Failed, Outcome, ReadingRules, Recognised
from mmproto.usage import MAX_TOKENS, TOKEN_BUCKETS, UNITS
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import QUALITY_UNKNOWN

RULES = ReadingRules(hash_key=lambda key: f"hash-of-{len(key)}")


def check(outcomes: Iterable[Outcome]) -> list[str]:
    """The outcomes in a form that can be compared."""
    seen = []
    for outcome in outcomes:
        assert isinstance(outcome, Recognised | Dropped | Failed)
        if isinstance(outcome, Recognised):
            _check_call(outcome.call)
            assert all(outcome.anomalies)
        else:
            assert outcome.reason
        seen.append(repr(outcome))
    return seen


def _check_call(call: Call) -> None:
    call.SerializeToString()
    assert call.id
    assert call.provider
    usage = call.usage
    assert set(usage.tokens) <= TOKEN_BUCKETS
    assert set(usage.units) <= UNITS
    assert all(0 <= count <= 4 * MAX_TOKENS for count in usage.tokens.values())
    assert all(0 <= count <= MAX_TOKENS for count in usage.units.values())
    assert not usage.tokens or usage.quality != QUALITY_UNKNOWN
    assert call.duration_s >= 0
