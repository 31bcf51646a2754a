"""What workers say on the compacted topics, as bytes on a real broker; and the calls that a router sent."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson
from confluent_kafka import KafkaException, Producer
from tests.router.pipeline import book
from tests.services.kafka import create_topic, read_topic

from mmproto.kafka.topics import ACTIONS, AS_OF_HEADER, CALLS, RATES, TOPICS, VERSION_HEADER
from mmproto.ratebook import RateBook
from mmproto.rateform import book_to_json
from mmproto.v1.budget_pb2 import BudgetState, BudgetStates
from mmproto.v1.call_pb2 import Call
from mmproto.v1.ingest_pb2 import IngestBatch

_NUMBERS = itertools.count()
_NS = 1_000_000_000
CALLS_PARTITIONS = 3


def make_topics(address: str) -> None:
    """ModelMeter's topics, where another test has not made them."""
    for topic in TOPICS:
        try:
            create_topic(address, topic.name, CALLS_PARTITIONS if topic.partitioned else 1, topic.settings)
        except KafkaException as problem:
            assert problem.args[0].name() == "TOPIC_ALREADY_EXISTS", problem


@dataclass
class Workers:
    """`address` is a broker's. Tenant and provider are this test's own, so that topics can be shared."""

    address: str
    tenant: str = field(default_factory=lambda: f"tenant-{os.getpid()}-{next(_NUMBERS)}")
    provider: str = field(default_factory=lambda: f"provider-{os.getpid()}-{next(_NUMBERS)}")

    def __post_init__(self) -> None:
        self._producer = Producer({"bootstrap.servers": self.address, "log_level": 0, "linger.ms": 0})

    def budget(self, limit: int, spent: int = 0, *, ends_in_s: float = 86_400.0) -> BudgetState:
        """Of the whole tenant; blocks at its limit."""
        now = time.time_ns()
        return BudgetState(
            budget_id=f"budget-of-{self.tenant}",
            name="Tenant budget",
            period="day",
            period_start_unix_ns=now - 3600 * _NS,
            period_end_unix_ns=now + int(ends_in_s * _NS),
            limit_nano_usd=limit,
            spent_nano_usd=spent,
            block_at_percent=100,
        )

    def say(
        self, *budgets: BudgetState, age_s: float = 0.0, positions: Mapping[int, int] | None = None
    ) -> None:
        """The state of the tenant; of a moment `age_s` ago."""
        as_of = time.time_ns() - int(age_s * _NS)
        message = BudgetStates(
            tenant=self.tenant, as_of_unix_ns=as_of, budgets=budgets, positions=dict(positions or {})
        )
        self.put(message.SerializeToString(), as_of)

    def say_gone(self, age_s: float = 0.0) -> None:
        """The tenant has no budgets."""
        self.put(None, time.time_ns() - int(age_s * _NS))

    def put(self, value: bytes | None, as_of: int) -> None:
        """Anything under the tenant's key."""
        self._put(ACTIONS, self.tenant, value, {AS_OF_HEADER: str(as_of).encode()})

    def beat(self, age_s: float = 0.0) -> None:
        """A heartbeat."""
        as_of = time.time_ns() - int(age_s * _NS)
        message = BudgetStates(as_of_unix_ns=as_of)
        self._put(ACTIONS, "", message.SerializeToString(), {AS_OF_HEADER: str(as_of).encode()})

    def say_prices(self) -> None:
        """The test's rate cards, as those of this test's provider."""
        given = book()
        own = RateBook(given.version, {self.provider: given.catalogue["openai"]})
        form = orjson.dumps(book_to_json(own, [self.provider]))
        self._put(RATES, self.provider, form, {VERSION_HEADER: given.version.encode()})

    def calls(self, count: int) -> list[tuple[Call, int, int]]:
        """(call, partition, offset) of the tenant's calls in the topic, once there are `count`."""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            found = [
                (call, message.partition() or 0, message.offset() or 0)
                for message in read_topic(self.address, CALLS, 1 << 30, within_s=1.0)
                for call in IngestBatch.FromString(message.value() or b"").calls
                if call.tenant == self.tenant
            ]
            if len(found) >= count:
                return found
        raise AssertionError(f"there are not {count} calls of {self.tenant}")

    def _put(self, topic: str, key: str, value: bytes | None, headers: Mapping[str, bytes]) -> None:
        self._producer.produce(topic, value, key.encode(), headers=dict(headers))
        assert self._producer.flush(30) == 0
