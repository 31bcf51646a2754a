"""Calls as they lie in a spool, and what a topic holds of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from confluent_kafka import Message

from mmproto.delivery import call_record, decision_record
from mmproto.v1.call_pb2 import Call
from mmproto.v1.ingest_pb2 import IngestBatch
from mmproto.v1.routing_pb2 import RoutingDecision


def call(
    call_id: str, tenant: str = "acme", team: str = "", application: str = "", model: str = "m"
) -> bytes:
    """The record of a small call."""
    return call_record(
        Call(
            id=call_id,
            provider="openai",
            request_model=model,
            tenant=tenant,
            team=team,
            application=application,
            started_at_unix_ns=1_800_000_000_000_000_000,
        )
    )


def calls(prefix: str, count: int, tenants: int = 7) -> list[bytes]:
    return [call(f"{prefix}-{number}", f"tenant-{number % tenants}") for number in range(count)]


def decision(decision_id: str, tenant: str = "acme", team: str = "", application: str = "") -> bytes:
    return decision_record(RoutingDecision(id=decision_id, tenant=tenant, team=team, application=application))


def ids(payloads: Iterable[bytes | Message]) -> list[str]:
    """The id of the item of each record or message."""
    found = []
    for payload in payloads:
        value = payload if isinstance(payload, bytes) else payload.value()
        assert isinstance(value, bytes)
        batch = IngestBatch.FromString(value)
        found += [item.id for item in batch.calls] + [item.id for item in batch.routing_decisions]
    return found


def places(messages: Sequence[Message]) -> dict[str, tuple[int | None, int | None]]:
    """Partition and offset of each item; of the first one where an item stands there twice."""
    found: dict[str, tuple[int | None, int | None]] = {}
    for message, item in zip(messages, ids(messages), strict=True):
        found.setdefault(item, (message.partition(), message.offset()))
    return found
