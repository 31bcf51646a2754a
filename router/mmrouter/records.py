"""From the event loop to the spool: calls and decisions, in batches, off the hot path.

The loop only appends to a list. A thread of its own encodes and syncs what has gathered, at most
`_GATHER_S` after the first of it, in one transaction. Between the two a call is in memory only: that is
what a `kill -9` can cost, and the sensor beside the router sees those calls too.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence

from mmproto.delivery.errors import SpoolFull
from mmproto.delivery.ingest_client import Receipt
from mmproto.delivery.records import call_record, decision_record, item_ids
from mmproto.delivery.sender import Client
from mmproto.delivery.spool import Spool
from mmproto.v1.call_pb2 import Call
from mmproto.v1.routing_pb2 import RoutingDecision
from mmrouter.keys import VirtualKey

_GATHER_S = 0.02
# Refusals of one key that are recorded each second. A client in a loop against an empty budget could
# otherwise fill the spool with the same fact and leave no room for calls; the rest is counted.
_REFUSALS_PER_S = 10


class Records:
    """Takes records from the loop and makes them durable. `wake` is called after each batch."""

    def __init__(
        self,
        spool: Spool,
        wake: Callable[[], None],
        new_id: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._wake = wake
        self._clock = clock
        self._new_id = new_id
        self._waiting: deque[Call | RoutingDecision] = deque()
        self._signal = threading.Event()
        self._signalled = False
        self._stopping = False
        self._second = 0
        self._refusals: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.suppressed = 0
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def call(self, call: Call) -> None:
        """Record a finished call. The message must not be changed after."""
        self._put(call)

    def decision(self, decision: RoutingDecision, key: VirtualKey, at_ns: int) -> None:
        """Record what was decided about a request of `key`."""
        decision.id = self._new_id()
        decision.decided_at_unix_ns = at_ns
        decision.tenant, decision.team, decision.application = key.tenant, key.team, key.application
        decision.virtual_key_id = key.id
        self._put(decision)

    def refusal(self, decision: RoutingDecision, key: VirtualKey, at_ns: int) -> None:
        """Record a refusal, unless this key has had its share of them this second."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._refusals.clear()
        self._refusals[key.id] += 1
        if self._refusals[key.id] > _REFUSALS_PER_S:
            self.suppressed += 1
        else:
            self.decision(decision, key, at_ns)

    def stop(self) -> None:
        """Make everything durable that was handed over, then end."""
        self._stopping = True
        self._signal.set()
        self._thread.join()

    def _put(self, item: Call | RoutingDecision) -> None:
        self._waiting.append(item)
        if not self._signalled:
            self._signalled = True
            self._signal.set()

    def _run(self) -> None:
        while True:
            self._signal.wait()
            if not self._stopping:
                time.sleep(_GATHER_S)
            ending = self._stopping
            self._signal.clear()
            self._signalled = False  # before the deque is emptied: what comes later signals again
            batch = []
            while self._waiting:
                batch.append(self._waiting.popleft())
            if batch:
                self._store(batch)
            if ending:
                return

    def _store(self, batch: Sequence[Call | RoutingDecision]) -> None:
        encoded = [call_record(i) if isinstance(i, Call) else decision_record(i) for i in batch]
        try:
            self._spool.append(encoded)
        except SpoolFull as full:
            self.dropped[full.reason] += len(encoded) - full.accepted
        except Exception as error:
            self.dropped[type(error).__name__] += len(encoded)
        self._wake()


class Acknowledged:
    """A client for the sender that remembers which items the pipeline has taken."""

    def __init__(self, client: Client) -> None:
        self._client = client
        # Called after each acknowledgement, from the sender's thread.
        self.taken: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._ids: list[str] = []

    def post(self, records: Sequence[bytes]) -> Receipt:
        receipt = self._client.post(records)
        ids = item_ids(records)
        with self._lock:
            self._ids += ids
        self.taken()
        return receipt

    def close(self) -> None:
        self._client.close()

    def drain(self) -> list[str]:
        """The ids of the items that were acknowledged since the last drain."""
        with self._lock:
            ids, self._ids = self._ids, []
        return ids
