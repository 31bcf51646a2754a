"""What a spool record is: an encoded `IngestBatch` with one item in it.

Encoded protobuf messages of one type, put end to end, are the encoding of their merge. So a batch for the
wire is a prefix with the sender's name and then the records as they lie in the spool: nothing is decoded
or encoded again on the way out, and sensor and router share one spool format for all kinds of items.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mmproto.v1.call_pb2 import Call
from mmproto.v1.ingest_pb2 import IngestBatch
from mmproto.v1.routing_pb2 import RoutingDecision

SCHEMA_VERSION = 1


def call_record(call: Call) -> bytes:
    """A record that carries one call."""
    return IngestBatch(calls=(call,)).SerializeToString()


def decision_record(decision: RoutingDecision) -> bytes:
    """A record that carries one routing decision."""
    return IngestBatch(routing_decisions=(decision,)).SerializeToString()


def batch_body(node: str, records: Iterable[bytes]) -> bytes:
    """The encoded `IngestBatch` of `records`, as `node` posts it."""
    prefix = IngestBatch(schema_version=SCHEMA_VERSION, node=node).SerializeToString()
    return prefix + b"".join(records)


class Item(NamedTuple):
    """Whose item a record carries. All "" where the record cannot be read or holds none."""

    id: str
    tenant: str
    team: str
    application: str


def items(records: Sequence[bytes]) -> list[Item]:
    """The item in each record."""
    return [_item(record) for record in records]


def item_ids(records: Sequence[bytes]) -> list[str]:
    """The id of the item in each record; "" where a record cannot be read or holds none."""
    return [_item(record).id for record in records]


_NONE = Item("", "", "", "")


def _item(record: bytes) -> Item:
    try:
        batch = IngestBatch.FromString(record)
    except Exception:
        # protobuf's DecodeError differs between its implementations; a record that is none has no item.
        return _NONE
    item: Call | RoutingDecision
    if batch.calls:
        item = batch.calls[0]
    elif batch.routing_decisions:
        item = batch.routing_decisions[0]
    else:
        return _NONE
    return Item(item.id, item.tenant, item.team, item.application)
