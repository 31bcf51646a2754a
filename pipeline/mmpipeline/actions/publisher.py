"""The thread of a worker that tells routers how far budgets are spent, and what calls cost.

    a committed transaction charged calls of a tenant      `touched`
    somebody set, changed or deleted a budget              the store's version, looked at every 200 ms
    a period ended                                         its moment is known from the state before
    partitions were assigned, the worker began             all tenants, `assigned`
    nothing happens                                        a heartbeat; and whom nobody said for 5 s

Each only says which tenants are due; what is said of a tenant is then read from the store. So whatever is
coalesced, doubled or said by two workers at once, a message is right for its moment, and the later moment
holds (see states.py). A tenant is read at most every 50 ms while it changes, at once when it was at rest.

The thread also reads what it and the other workers write. From that it knows the tenants that were left on
the topic by budgets that are gone, and sees two states in the wrong order: the later message would be what
compaction keeps. Such a tenant is said once more, by the first worker to do so: each waits a while of its
own, and hears when another was first.

Nothing here makes the worker wait. What cannot be read or sent is due again, counted and said once.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from mmpipeline.actions.rates import Rates
from mmpipeline.actions.states import NO_TENANT, States, TenantState
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control.database import Database, StoreBusy
from mmpipeline.workers.clients import client_properties, producer_properties
from mmproto.kafka.compacted import CompactedReader, Entry
from mmproto.kafka.settings import KafkaSettings
from mmproto.kafka.topics import (
    ACTIONS,
    AS_OF_HEADER,
    CONTENT_TYPE_HEADER,
    RATES,
    SCHEMA_HEADER,
    SCHEMA_VERSION_HEADER,
    VERSION_HEADER,
)

_LOG = logging.getLogger(__name__)

# Least time between two states of one tenant.
_COALESCE_S = 0.05
_VERSION_S = 0.2
_HEARTBEAT_S = 2.0
# A tenant is said again after this long, or later where they are many: what an outage of the brokers, a
# topic made anew or a worker's sudden end may have left unsaid.
_REFRESH_S = 5.0
_REFRESH_EACH_S = 0.01
# Within so long somebody mends the order of the topic.
_REPAIR_S = 1.0
# A moment so far before another is no message that was overtaken: the store's clock was set back.
_OVERTAKEN_NS = 60_000_000_000
# States of one reading, so that the first need not wait for thousands.
_MOST = 200
# After a failure.
_PAUSE_S = 0.5
# A state that could not be delivered for so long is old: a fresh one is sent instead.
_SEND_S = 10.0
# How often the thread's own business is looked after where nothing is due.
_TICK_S = 0.02

_HEADERS: Mapping[str, bytes] = {
    CONTENT_TYPE_HEADER: b"application/x-protobuf",
    SCHEMA_HEADER: b"modelmeter.v1.BudgetStates",
    SCHEMA_VERSION_HEADER: b"1",
}


@dataclass(frozen=True, slots=True)
class _Logged:
    """What was last heard of a tenant: the latest moment, whether it has budgets there, and when."""

    as_of_ns: int
    has_budgets: bool
    at: float


_UNHEARD = _Logged(0, has_budgets=False, at=float("-inf"))


@dataclass(frozen=True, slots=True)
class ActionsStatistics:
    """What was published since the start. `failures` by reason; `waiting`: tenants due and not sent yet."""

    states: int
    tombstones: int
    heartbeats: int
    books: int
    failures: Mapping[str, int]
    tenants: int
    waiting: int
    last_error: str
    last_delivered_unix_ns: int


class ActionsPublisher:
    """`start`, then `touched` after each commit; `assigned` after a rebalance; `stop`. From any thread."""

    def __init__(
        self,
        database: Database,
        rating: RatingService,
        kafka: KafkaSettings,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._states = States(database, clock)
        self._rates = Rates(rating)
        self._kafka = kafka
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="actions", daemon=True)
        self._flush_s = 0.0
        # Given by other threads, under the lock.
        self._touched: set[str] = set()
        self._everybody = True
        # The thread's own. `_due`: tenant, and from when on it may be said.
        self._due: dict[str, float] = {}
        self._known: set[str] = set()
        self._known_version = -1
        self._said_at: dict[str, float] = {}
        self._changes_at: dict[str, int] = {}
        self._logged: dict[str, _Logged] = {}
        self._repairs: dict[str, float] = {}
        self._version_at = self._heartbeat_at = self._refresh_at = self._paused_until = 0.0
        self._producer: Producer | None = None
        self._counts: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._last_error = ""
        self._last_delivered = 0

    def start(self) -> None:
        self._thread.start()

    def touched(self, tenants: Iterable[str]) -> None:
        """Calls of these tenants were charged, and it is committed."""
        with self._lock:
            self._touched.update(tenants)
        self._wake.set()

    def assigned(self) -> None:
        """Other partitions are ours: what their worker had not said yet is ours to say."""
        with self._lock:
            self._everybody = True
        self._wake.set()

    def stop(self, timeout_s: float) -> None:
        """Say what is due, for at most `timeout_s`, and end."""
        self._flush_s = timeout_s
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s + _PAUSE_S)

    def statistics(self) -> ActionsStatistics:
        counts = self._counts
        return ActionsStatistics(
            states=counts["states"],
            tombstones=counts["tombstones"],
            heartbeats=counts["heartbeats"],
            books=counts["books"],
            failures=dict(self._failures),
            tenants=len(self._known),
            waiting=len(self._due),
            last_error=self._last_error,
            last_delivered_unix_ns=self._last_delivered,
        )

    # -- the thread

    def _run(self) -> None:
        reader = CompactedReader(client_properties(self._kafka), (ACTIONS, RATES))
        try:
            while not self._stopping.is_set():
                for entry in reader.poll(0):
                    self._heard(entry)
                self._step(reader.caught_up)
                self._wake.wait(_TICK_S)
                self._wake.clear()
            self._paused_until = 0.0
            self._step(caught_up=False)
            if self._producer is not None:
                self._producer.flush(self._flush_s)
        finally:
            reader.close()

    def _step(self, caught_up: bool) -> None:
        """One round: who is due, and what holds of them. Never raises."""
        now = self._monotonic()
        try:
            if self._producer is not None:
                self._producer.poll(0)
            if now < self._paused_until:
                return
            self._look(now)
            self._publish(now)
            if caught_up:
                self._publish_books()
        except StoreBusy as problem:
            self._failed("store", str(problem))
        except (KafkaException, BufferError) as problem:
            self._failed("kafka", str(problem))
        except Exception as problem:
            # The thread must outlive anything: without it routers would enforce yesterday's budgets.
            _LOG.exception("publishing the state of budgets failed in a way that was not foreseen")
            self._failed("internal_error", type(problem).__name__)

    def _look(self, now: float) -> None:
        """Find out who is due."""
        if now >= self._version_at:
            self._version_at = now + _VERSION_S
            version = self._states.version()
            if version != self._known_version:
                # The version first: a budget that is set between the two is seen the next time.
                before, self._known = self._known, self._states.tenants()
                self._known_version = version
                left_over = {tenant for tenant, last in self._logged.items() if last.has_budgets}
                self._say(before | self._known | left_over, now)
            moment = self._clock()
            for tenant, at in self._changes_at.items():
                if moment >= at:
                    # The store's clock may be behind ours: not in a hurry where nothing has changed yet.
                    self._due.setdefault(tenant, self._said_at.get(tenant, 0.0) + _PAUSE_S)
        with self._lock:
            touched, self._touched = self._touched, set()
            everybody, self._everybody = self._everybody, False
        if everybody:
            touched |= self._known
        if now >= self._refresh_at:
            self._refresh_at = now + _REFRESH_S / 5
            old = now - max(_REFRESH_S, _REFRESH_EACH_S * len(self._known))
            touched |= {tenant for tenant in self._known if self._last(tenant) < old}
        self._say(touched & self._known, now)
        mended = [tenant for tenant, at in self._repairs.items() if at <= now]
        for tenant in mended:
            del self._repairs[tenant]
        self._say(mended, now)

    def _last(self, tenant: str) -> float:
        """When a tenant was last said, by anybody."""
        return max(self._logged.get(tenant, _UNHEARD).at, self._said_at.get(tenant, _UNHEARD.at))

    def _say(self, tenants: Iterable[str], now: float) -> None:
        for tenant in tenants:
            at = max(now, self._said_at.get(tenant, 0.0) + _COALESCE_S)
            self._due[tenant] = min(at, self._due.get(tenant, at))

    def _publish(self, now: float) -> None:
        chosen = [tenant for tenant, at in self._due.items() if at <= now][:_MOST]
        beat = now >= self._heartbeat_at
        if not chosen and not beat:
            return
        *states, heartbeat = self._states.read(chosen)
        for state in states:
            self._send(state)
            del self._due[state.tenant]
            if state.value is None:
                self._said_at.pop(state.tenant, None)
                self._changes_at.pop(state.tenant, None)
            else:
                self._said_at[state.tenant] = now
                self._changes_at[state.tenant] = state.changes_at_unix_ns
        if beat and len(chosen) < _MOST:
            self._send(heartbeat)
            self._heartbeat_at = now + _HEARTBEAT_S

    def _send(self, state: TenantState) -> None:
        if state.tenant == NO_TENANT:
            what = "heartbeats"
        elif state.value is not None:
            what = "states"
        elif state.tenant in self._said_at or self._logged.get(state.tenant, _UNHEARD).has_budgets:
            what = "tombstones"
        else:
            return  # nobody has been told that it has budgets

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is None:
                self._delivered(what)
                return
            if state.tenant != NO_TENANT:
                self._due[state.tenant] = self._monotonic() + _PAUSE_S
            self._failed("kafka", error.str())

        self._connected().produce(
            ACTIONS,
            state.value,
            state.tenant.encode(),
            headers={**_HEADERS, AS_OF_HEADER: str(state.as_of_unix_ns).encode()},
            on_delivery=delivered,
        )

    def _publish_books(self) -> None:
        """One book a round, so that the states do not wait for all of them."""
        book = self._rates.next()
        if book is None:
            return

        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is None:
                self._delivered("books")
            else:
                self._rates.again(book.provider)
                self._failed("kafka", error.str())

        self._connected().produce(
            RATES,
            book.value,
            book.provider.encode(),
            headers={CONTENT_TYPE_HEADER: b"application/json", VERSION_HEADER: book.version.encode()},
            on_delivery=delivered,
        )

    def _heard(self, entry: Entry) -> None:
        """What stands on the topics, by us or another worker."""
        if entry.topic == RATES:
            version = None if entry.value is None else entry.headers.get(VERSION_HEADER, b"")
            self._rates.heard(entry.key.decode("utf-8", "replace"), version)
            return
        try:
            tenant, as_of = _moment_of(entry)
        except ValueError:
            self._counts["unreadable"] += 1
            return
        if tenant == NO_TENANT:
            return
        now, before = self._monotonic(), self._logged.get(tenant, _UNHEARD)
        overtaken = before.as_of_ns - _OVERTAKEN_NS < as_of < before.as_of_ns
        has_budgets = entry.value is not None
        latest = before.as_of_ns if overtaken else as_of
        self._logged[tenant] = _Logged(latest, has_budgets, now)
        left_over = has_budgets and self._known_version >= 0 and tenant not in self._known
        if overtaken or left_over:
            self._repairs.setdefault(tenant, now + random.uniform(0, _REPAIR_S))  # noqa: S311
        else:
            self._repairs.pop(tenant, None)

    def _connected(self) -> Producer:
        if self._producer is None:
            self._producer = Producer(
                producer_properties(self._kafka, self._lost)
                | {"linger.ms": 0, "message.timeout.ms": int(_SEND_S * 1000)}
            )
        return self._producer

    def _lost(self, error: KafkaError) -> None:
        """From librdkafka, within the thread's own `poll`."""
        if error.fatal():
            # An idempotent producer that has lost its sequence is of no use any more; a fresh one is.
            self._producer = None
            self.assigned()
            self._failed("kafka", error.str())

    def _delivered(self, what: str) -> None:
        self._counts[what] += 1
        self._last_delivered = self._clock()
        if self._last_error:
            _LOG.info("the state of budgets is published again")
        self._last_error = ""

    def _failed(self, reason: str, message: str) -> None:
        if message != self._last_error:
            _LOG.warning("routers do not learn the state of budgets: %s", message)
        self._last_error = message
        self._failures[reason] += 1
        self._paused_until = self._monotonic() + _PAUSE_S


def _moment_of(entry: Entry) -> tuple[str, int]:
    """(tenant, moment) of a message on ACTIONS. Raises ValueError where it has none."""
    return entry.key.decode(), int(entry.headers[AS_OF_HEADER]) if AS_OF_HEADER in entry.headers else 0
