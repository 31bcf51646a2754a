"""How many messages may be put aside before a person has to look: kept in the control store.

Every message that is put aside is counted there, in the transaction that passes it. `mmpipeline deadletter
replay` and `acknowledge` note how far the count was when somebody looked; only what came since counts
against `worker.dead_letters`.
"""

from __future__ import annotations

from confluent_kafka import Message

from mmpipeline.store.control import ledger
from mmpipeline.store.control.database import Database
from mmpipeline.store.control.outbox import HTTP_LANE
from mmpipeline.workers.deadletters import key_of

COUNTED = "dead_letters"
ACKNOWLEDGED = "dead_letters.acknowledged"


class TooManyDeadLetters(Exception):
    """One more message cannot be read, and no more may be put aside; str() is for people."""

    def __init__(self, reason: str, message: Message) -> None:
        super().__init__(
            f"{key_of(message)} cannot be worked ({reason}), and as many messages as worker.dead_letters "
            "allows are put aside already: look at `mmpipeline deadletter list`, mend the cause, then "
            "`mmpipeline deadletter replay` or `acknowledge`, and start again"
        )


class DeadLetterLimit:
    """Counts against `most`. All methods raise StoreBusy."""

    def __init__(self, database: Database, most: int) -> None:
        self._database = database
        self._most = most

    def room(self) -> int:
        """How many messages may still be put aside."""
        return max(0, self._most - self.unacknowledged())

    def unacknowledged(self) -> int:
        """How many were put aside since somebody looked after them."""
        with self._database.read() as connection:
            counters = ledger.counters(connection)
        return counters.get(COUNTED, 0) - counters.get(ACKNOWLEDGED, 0)

    def count(self, messages: int) -> None:
        """Count messages that were put aside outside of a worker's transaction."""
        with self._database.write() as connection:
            ledger.count(connection, HTTP_LANE, {COUNTED: messages})

    def acknowledge(self) -> int:
        """Somebody has looked after all of them; returns how many they were."""
        with self._database.write() as connection:
            counters = ledger.counters(connection)
            open_ = counters.get(COUNTED, 0) - counters.get(ACKNOWLEDGED, 0)
            ledger.count(connection, HTTP_LANE, {ACKNOWLEDGED: open_})
        return open_
