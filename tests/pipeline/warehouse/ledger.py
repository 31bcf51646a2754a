"""Rows of a ledger for tests: built by hand, drawn by hypothesis, and added up the slow way."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable

from hypothesis import strategies as st

from mmpipeline.rating.rated import RatedCall
from mmproto.usage import INPUT_BUCKETS, OUTPUT_BUCKETS
from mmproto.v1.call_pb2 import Call, Observer
from mmproto.v1.usage_pb2 import Quality

HOUR_NS = 3600 * 1_000_000_000
QUALITIES = (
    Quality.QUALITY_UNKNOWN,
    Quality.QUALITY_EXACT,
    Quality.QUALITY_PARTIAL,
    Quality.QUALITY_ESTIMATED,
)
# 2026-11-02T00:00:00Z, a Monday.
MONDAY_NS = 1_793_577_600 * 1_000_000_000


def rated(
    name: str,
    *,
    at_ns: int = MONDAY_NS,
    tenant: str = "default",
    team: str = "search",
    application: str = "ranker",
    user: str = "ada",
    provider: str = "openai",
    model: str = "gpt-4o",
    node: str = "node-1",
    process: str = "python3",
    observer: Observer = Observer.OBSERVER_SENSOR,
    quality: Quality = Quality.QUALITY_EXACT,
    error_type: str = "",
    tokens: dict[str, int] | None = None,
    duration_s: float | None = 1.5,
    cost_nano_usd: int | None = 1_250_000,
    unpriced_reason: str = "",
) -> RatedCall:
    """A row of sign +1; its id follows from tenant and `name`."""
    call = Call(
        id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{tenant}/{name}")),
        provider=provider,
        operation="chat",
        request_model=model,
        host="api.example.com",
        billable=not error_type,
        started_at_unix_ns=at_ns,
        tenant=tenant,
        team=team,
        application=application,
        user=user,
        node=node,
        observer=observer,
        error_type=error_type,
        http_status=500 if error_type else 200,
    )
    if duration_s is not None:
        call.duration_s = duration_s
    call.process.pid = 42
    call.process.command = process
    call.usage.quality = quality
    for bucket, count in ({"input": 100, "output": 20} if tokens is None else tokens).items():
        call.usage.tokens[bucket] = count
    card = "" if cost_nano_usd is None else "test@1"
    reason = (unpriced_reason or "unknown_model") if cost_nano_usd is None else ""
    return RatedCall(call, 1, cost_nano_usd, reason, card)


@st.composite
def histories(draw: st.DrawFn, tenant: str) -> list[RatedCall]:
    """Rows of several calls, some taken back and some reported anew by a better observer."""
    rows: list[RatedCall] = []
    for index in range(draw(st.integers(1, 25))):
        row = rated(
            f"call-{index}",
            at_ns=MONDAY_NS + draw(st.integers(0, 72)) * HOUR_NS // 2 + draw(st.integers(0, 999_999_999)),
            tenant=tenant,
            team=draw(st.sampled_from(("", "search", "billing"))),
            application=draw(st.sampled_from(("ranker", "chat"))),
            user=draw(st.sampled_from(("", "ada", "=cmd|' /C calc'!A0", "Бета"))),
            provider=draw(st.sampled_from(("openai", "anthropic"))),
            model=draw(st.sampled_from(("gpt-4o", "o3", "claude"))),
            quality=draw(st.sampled_from(QUALITIES)),
            error_type=draw(st.sampled_from(("", "", "rate_limit"))),
            tokens=draw(
                st.dictionaries(
                    st.sampled_from((*INPUT_BUCKETS, *OUTPUT_BUCKETS, "bucket_of_tomorrow")),
                    st.integers(0, 10**9),
                    max_size=4,
                )
            ),
            duration_s=draw(st.none() | st.integers(0, 64).map(lambda n: n / 8)),
            cost_nano_usd=draw(st.none() | st.integers(0, 10**12)),
        )
        rows.append(row)
        fate = draw(st.sampled_from(("stands", "stands", "taken back", "corrected")))
        if fate != "stands":
            rows.append(row.reversed())
        if fate == "corrected":
            better = Call()
            better.CopyFrom(row.call)
            better.team = draw(st.sampled_from(("search", "platform")))
            better.observer = Observer.OBSERVER_ROUTER
            better.started_at_unix_ns += draw(st.sampled_from((0, 1, HOUR_NS)))
            rows.append(RatedCall(better, 1, draw(st.integers(0, 10**12)), "", "test@2"))
    return rows


def standing(rows: Iterable[RatedCall]) -> list[RatedCall]:
    """The rows that were not taken back."""
    left: dict[str, RatedCall] = {}
    for row in rows:
        if row.sign > 0:
            left[row.call.id] = row
        else:
            del left[row.call.id]
    return list(left.values())


def spend_by(rows: Iterable[RatedCall], *fields: str) -> Counter[tuple[str, ...]]:
    """Nano-dollars of the standing calls by fields of the call."""
    sums: Counter[tuple[str, ...]] = Counter()
    for row in standing(rows):
        sums[tuple(getattr(row.call, name) for name in fields)] += row.cost_nano_usd or 0
    return sums
