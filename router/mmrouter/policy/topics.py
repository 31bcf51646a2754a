"""The thread that reads budgets and prices from Kafka.

Both topics are compacted and hold what is, not what happened: `first` reads them to their end, and then all
that the pipeline last said is known before a call is let in. Every message after that is applied at once.

What the router itself has spent lies in the topic of calls. Its delivery reports say where, and a state that
has counted beyond a place has that call (see `ledger`). A router that died knows its reports no more, so
`first` also reads the calls that are in the topic and in no state yet, whoever reported them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from mmproto.kafka.compacted import CompactedReader, Entry
from mmproto.kafka.connection import connection_properties
from mmproto.kafka.producer import Delivered
from mmproto.kafka.settings import KafkaSettings
from mmproto.kafka.topics import ACTIONS, CALLS, RATES
from mmproto.v1.call_pb2 import Call
from mmproto.v1.ingest_pb2 import IngestBatch
from mmrouter.policy.ledger import Place, Reflected
from mmrouter.policy.state import Known, Learn, LearnPrices, PipelineState
from mmrouter.policy.states import Books, TenantStates

_LOG = logging.getLogger(__name__)

# How long a message may wait for others, and delivery reports for the next look.
_WAIT_S = 0.05
_MOST_CALLS = 500
_WATERMARK_S = 5.0

# A call in the topic that no state has, and where it stands.
Uncounted = Callable[[Call, Place], None]


class TopicSource(threading.Thread):
    """A `Source` that reads the topics. `uncounted` is told, within `first`, of calls that no state has."""

    def __init__(
        self,
        kafka: KafkaSettings,
        client_id: str,
        tenants: Collection[str],
        providers: Collection[str],
        *,
        first_within_s: float,
        learn: Learn,
        learn_prices: LearnPrices,
        uncounted: Uncounted,
        clock_ns: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(name="topics", daemon=True)
        self._properties = connection_properties(kafka, client_id)
        self._first_within_s = first_within_s
        self._learn = learn
        self._learn_prices = learn_prices
        self._uncounted = uncounted
        self._clock_ns = clock_ns
        self._monotonic = monotonic
        self._states = TenantStates(frozenset(tenants))
        self._books = Books(frozenset(providers))
        self._reader = CompactedReader(self._properties, (ACTIONS, RATES), monotonic)
        self._was_caught_up = False
        self._news = self._new_prices = False
        self._bad: dict[tuple[str, bytes], str] = {}
        self._placed_lock = threading.Lock()
        self._placed: list[tuple[str, Place]] = []
        self._stopping = threading.Event()
        self._internal_error = ""
        self.unreadable = 0

    @property
    def last_error(self) -> str:
        return (
            self._internal_error
            or self._reader.error
            or next(iter(self._bad.values()), "")
            or ("" if self._states.heard_ns else "no worker of the pipeline has said anything of budgets yet")
        )

    def delivered(self, items: Sequence[Delivered]) -> None:
        """Records stand in the topic of calls. From the sender's thread."""
        with self._placed_lock:
            self._placed += [(item.id, Place(item.partition, item.offset)) for item in items]

    def first(self) -> None:
        until = self._monotonic() + self._first_within_s
        while not self._was_caught_up and self._monotonic() < until:
            self._step()
        if not self._was_caught_up:
            _LOG.warning("starting without the present state of budgets: %s", self.last_error or "not read")
            return
        self._read_uncounted(until)

    def run(self) -> None:
        while not self._stopping.is_set():
            self._step()
        self._reader.close()

    def wake(self) -> None:
        """Nothing: delivery reports are looked at all the time."""

    def stop(self) -> None:
        self._stopping.set()
        if self.is_alive():
            self.join()
        else:
            self._reader.close()

    def _step(self) -> None:
        """Take what has come, and say it. Never raises."""
        try:
            for entry in self._reader.poll(_WAIT_S):
                self._take(entry)
            if not self._was_caught_up:
                # A part of the states would take budgets for gone that only were not read yet.
                if not self._reader.caught_up:
                    return
                self._was_caught_up = True
            if self._new_prices:
                self._say_prices()
            self._say()
            self._internal_error = ""
        except Exception as error:
            # The thread must outlive anything: without it the router would enforce yesterday's budgets.
            _LOG.exception("reading the state of budgets failed in a way that was not foreseen")
            self._internal_error = f"internal error: {type(error).__name__}"
            self._stopping.wait(_WAIT_S)

    def _take(self, entry: Entry) -> None:
        try:
            if entry.topic == ACTIONS:
                heard = self._states.heard_ns
                changed = self._states.take(entry.key, entry.value, entry.headers)
                self._news |= changed or self._states.heard_ns > heard
            else:
                self._new_prices |= self._books.take(entry.key, entry.value)
        except ValueError as problem:
            self.unreadable += 1
            what = (
                f"{entry.topic}: what it says of '{entry.key.decode('utf-8', 'replace')}' is not understood"
            )
            if (entry.topic, entry.key) not in self._bad:
                _LOG.warning("%s (%s); what was known before goes on to hold", what, problem)
            self._bad[entry.topic, entry.key] = what
        else:
            self._bad.pop((entry.topic, entry.key), None)

    def _say(self) -> None:
        with self._placed_lock:
            placed, self._placed = self._placed, []
        if not (self._news or placed):
            return
        self._news = False
        states = self._states
        if not states.heard_ns:
            self._learn(Known(None, placed=placed))
            return
        self._learn(
            Known(
                PipelineState(states.budgets, self._books.version),
                Reflected(positions=states.positions),
                placed,
                max(0, self._clock_ns() - states.heard_ns) / 1e9,
            )
        )

    def _say_prices(self) -> None:
        self._new_prices = False
        book = self._books.book()
        if book is not None:
            self._learn_prices(book, self._books.form())

    # -- calls that no state has yet

    def _read_uncounted(self, until: float) -> None:
        """Tell of the calls between what the states have and the end of the topic of calls."""
        counted = {b.tenant: self._states.positions[b.tenant] for b in self._states.budgets}
        if not counted:
            return
        consumer = Consumer(
            {
                **self._properties,
                "group.id": "modelmeter.reader",
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            }
        )
        try:
            left = self._read_calls(consumer, counted, until)
        except KafkaException as problem:
            left = problem.args[0].str()
        finally:
            consumer.close()
        if left:
            _LOG.warning("calls that no budget has counted yet are not all known here: %s", left)

    def _read_calls(self, consumer: Consumer, counted: Mapping[str, Mapping[int, int]], until: float) -> str:
        """What was not read, "" where everything was."""
        listed = consumer.list_topics(CALLS, timeout=max(0.1, until - self._monotonic())).topics[CALLS]
        starts = []
        for number in listed.partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(CALLS, number), timeout=_WATERMARK_S)
            start = max(low, min(positions.get(number, low) for positions in counted.values()))
            if start < high:
                starts.append(TopicPartition(CALLS, number, start))
        behind = {each.partition for each in starts}
        consumer.assign(starts)
        while behind and self._monotonic() < until:
            for message in consumer.consume(_MOST_CALLS, _WAIT_S):
                partition, offset, error = message.partition(), message.offset(), message.error()
                if partition is None or offset is None:
                    continue
                if error is not None:
                    if error.code() == KafkaError._PARTITION_EOF:
                        behind.discard(partition)
                    continue
                for call in _calls(message.value()):
                    positions = counted.get(call.tenant)
                    if positions is not None and offset >= positions.get(partition, 0):
                        self._uncounted(call, Place(partition, offset))
        return f"{len(behind)} partitions were not read to their end in time" if behind else ""


def _calls(value: object) -> Sequence[Call]:
    try:
        return IngestBatch.FromString(value).calls if isinstance(value, bytes) else ()
    except Exception:
        # protobuf's DecodeError differs between its implementations; the worker says what cannot be read.
        return ()
