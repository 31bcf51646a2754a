"""The account of exchanges: whatever was captured was emitted, dropped or failed, with the reason.

`captured` counts exchanges that ended when they come in; the three columns count them when they are settled;
calls that wait for the sink are `queued` in between. The two sides are counted apart, so that a path that
forgets an exchange shows as an imbalance instead of going unnoticed.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A reason that carries something from the wire would grow the counters without end.
_MAX_REASONS = 64
OTHER_REASONS = "other_reasons"


@dataclass(frozen=True, slots=True)
class Account:
    """One moment: captured = emitted + sum(dropped) + sum(failed). `open` and `queued` are in flight."""

    captured: int
    emitted: int
    dropped: Mapping[str, int]
    failed: Mapping[str, int]
    queued: int
    open: int
    #: Odd things in calls that were recognised all the same; they are not exchanges of their own.
    anomalies: Mapping[str, int]

    @property
    def balanced(self) -> bool:
        return self.captured == self.emitted + sum(self.dropped.values()) + sum(self.failed.values())


class Ledger:
    """Counts. The daemon's loop writes, any thread takes an `account`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = 0
        self._emitted = 0
        self._queued = 0
        self._open = 0
        self._dropped: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._anomalies: Counter[str] = Counter()

    def dropped(self, reason: str) -> None:
        """An exchange came in that is not ours."""
        with self._lock:
            self._taken += 1
            _count(self._dropped, reason, 1)

    def failed(self, reason: str, exchanges: int = 1) -> None:
        """Exchanges came in that could not be read."""
        with self._lock:
            self._taken += exchanges
            _count(self._failed, reason, exchanges)

    def queued(self, anomalies: Iterable[str] = ()) -> None:
        """A call came in and waits for the sink."""
        with self._lock:
            self._taken += 1
            self._queued += 1
            for anomaly in anomalies:
                _count(self._anomalies, anomaly, 1)

    def settled(self, emitted: int, refused: int, reason: str) -> None:
        """The sink took `emitted` of the queued calls and refused others."""
        with self._lock:
            self._queued -= emitted + refused
            self._emitted += emitted
            if refused:
                _count(self._dropped, reason, refused)

    def opened(self, exchanges: int) -> None:
        """The number of exchanges that have begun and not ended, as of now."""
        with self._lock:
            self._open = exchanges

    def account(self) -> Account:
        with self._lock:
            return Account(
                captured=self._taken - self._queued,
                emitted=self._emitted,
                dropped=dict(self._dropped),
                failed=dict(self._failed),
                queued=self._queued,
                open=self._open,
                anomalies=dict(self._anomalies),
            )


def _count(counter: Counter[str], reason: str, number: int) -> None:
    known = reason in counter or len(counter) < _MAX_REASONS
    counter[reason if known else OTHER_REASONS] += number
