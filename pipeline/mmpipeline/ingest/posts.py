"""What is brought to the ledger, where it came from, and what became of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from mmpipeline.store.control.outbox import HTTP_LANE
from mmproto.v1.call_pb2 import Call
from mmproto.v1.routing_pb2 import RoutingDecision


@dataclass(frozen=True, slots=True)
class Rejection:
    """A call that was not taken, and why (admission.py lists the reasons)."""

    id: str
    reason: str


@dataclass(slots=True)
class IngestResult:
    """What became of one post: accepted + duplicates + len(rejected) is what it held."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[Rejection] = field(default_factory=list)


class Items(Protocol):
    """What is needed of an IngestBatch."""

    @property
    def calls(self) -> Sequence[Call]: ...

    @property
    def routing_decisions(self) -> Sequence[RoutingDecision]: ...


@dataclass(slots=True)
class Post:
    """What was brought, the lane it came by (a partition, HTTP_LANE over HTTP) and its offset there."""

    batch: Items
    result: IngestResult = field(default_factory=IngestResult)
    lane: int = HTTP_LANE
    offset: int = 0


class Lane(NamedTuple):
    """How far a partition is charged: before this transaction, and by it."""

    topic: str
    partition: int
    expected: int
    next_offset: int
