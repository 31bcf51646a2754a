"""The connections that are followed: stream events go in, exchanges that ended come out.

Each connection has one reader of the protocol and the facts of its process, read when it opened. A
connection that turns out not to speak to an LLM, or to be the server's end, is given up, and `take_verdicts`
says so for the kernel to stop copying it. The source must be told between two events that are not of one
record: after a `Bytes`, or after a round.

At most `limit` connections are followed. Beyond that the one silent for longest is given up: what was open
on it is accounted for as such by its reader, and if it speaks again it is joined in the middle.

Whatever goes wrong inside one reader stays there: it is counted as `failed{internal_error}`, logged once
for each kind with nothing of its content, and the connection is given up.
"""

from __future__ import annotations

import logging
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mmproto.endpoint import Endpoint
from mmproto.exchange import Failed, Outcome, ReadingRules
from mmproto.reader import ConnectionReader, Verdict
from mmsensor.attribution.facts import ProcessFacts, ProcessTable
from mmsensor.streams.events import Bytes, ConnectionKey, Gap, Opened, Peer, Sni, StreamEvent

_LOG = logging.getLogger(__name__)
INTERNAL_ERROR = "internal_error"


class Ended(NamedTuple):
    """An exchange that ended, and the process that it was seen in."""

    outcome: Outcome
    facts: ProcessFacts


@dataclass(slots=True)
class _Connection:
    facts: ProcessFacts
    late: bool
    sni: str | None = None
    peer: Endpoint | None = None
    reader: ConnectionReader | None = None
    open: int = 0
    judged: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """Totals since start; `followed` is now. `errors` counts internal errors by kind."""

    followed: int
    opened: int
    late: int
    ignored: int
    evicted: int
    gaps: int
    gap_bytes: int
    errors: dict[str, int]


class Connections:
    """Not thread-safe but for `statistics`. `identify` names a connection, uniquely for all time."""

    def __init__(
        self,
        rules: ReadingRules,
        processes: ProcessTable,
        identify: Callable[[ConnectionKey], str],
        limit: int,
    ) -> None:
        self._rules = rules
        self._processes = processes
        self._identify = identify
        self._limit = limit
        self._followed: OrderedDict[ConnectionKey, _Connection] = OrderedDict()
        # Not told yet. What still comes from connections that were given up is not wanted.
        self._verdicts: dict[ConnectionKey, bool] = {}
        self._totals: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()
        #: Exchanges that have begun and not ended, over all connections.
        self.open_exchanges = 0

    def feed(self, event: StreamEvent) -> list[Ended]:
        """What `event` ends, in order."""
        if isinstance(event, Bytes | Gap):
            return self._moved(event)
        if isinstance(event, Opened):
            return self._opened(event)
        if isinstance(event, Sni | Peer):
            self._learn(event)
            return []
        over = self._followed.pop(event.key, None)
        return self._end(over, event.at_ns) if over is not None else []

    def close(self, at_ns: int) -> list[Ended]:
        """Ends everything that is open: the sensor stops."""
        ended: list[Ended] = []
        while self._followed:
            ended += self._end(self._followed.popitem(last=False)[1], at_ns)
        return ended

    def take_verdicts(self) -> dict[ConnectionKey, bool]:
        """Connections judged since the last call: True where they are of interest, False where given up."""
        if not self._verdicts:
            return {}
        verdicts, self._verdicts = self._verdicts, {}
        return verdicts

    def statistics(self) -> ConnectionStatistics:
        totals = self._totals
        return ConnectionStatistics(
            followed=len(self._followed),
            opened=totals["opened"],
            late=totals["late"],
            ignored=totals["ignored"],
            evicted=totals["evicted"],
            gaps=totals["gaps"],
            gap_bytes=totals["gap_bytes"],
            errors=dict(self._errors),
        )

    def _opened(self, event: Opened) -> list[Ended]:
        self._totals["opened"] += 1
        self._totals["late"] += event.late
        facts = self._processes.look(event.key.pid, event.key.process_started_ns, event.owner)
        self._followed[event.key] = _Connection(facts, event.late)
        return self._evict(event.at_ns)

    def _learn(self, event: Sni | Peer) -> None:
        connection = self._followed.get(event.key)
        if connection is None:
            return
        if isinstance(event, Sni):
            connection.sni = event.host
        else:
            connection.peer = event.endpoint
        if connection.reader is not None:
            connection.reader.sni, connection.reader.peer = connection.sni, connection.peer

    def _moved(self, event: Bytes | Gap) -> list[Ended]:
        key = event.key
        if not self._verdicts.get(key, True):
            return []
        evicted: list[Ended] = []
        if key not in self._followed:
            # Given up before to make room, and speaking again: what it said meanwhile is not known.
            facts = self._processes.look(key.pid, key.process_started_ns)
            self._followed[key] = _Connection(facts, late=True)
            evicted = self._evict(event.at_ns)
        connection = self._followed[key]
        self._followed.move_to_end(key)
        return evicted + self._read(key, connection, event)

    def _read(self, key: ConnectionKey, connection: _Connection, event: Bytes | Gap) -> list[Ended]:
        try:
            reader = connection.reader
            if reader is None:
                name = self._identify(key)
                reader = ConnectionReader(self._rules, name, connection.sni, late=connection.late)
                reader.peer = connection.peer
                connection.reader = reader
            if isinstance(event, Gap):
                self._totals["gaps"] += 1
                self._totals["gap_bytes"] += event.size
                outcomes = reader.gap(event.direction, event.size, event.at_ns)
            else:
                outcomes = reader.feed(event.direction, event.data, event.at_ns)
            self._count_open(connection, reader.open_exchanges)
            self._judge(key, connection, reader.verdict, bool(outcomes))
        except Exception as error:
            return self._broken(key, connection, error)
        return [Ended(outcome, connection.facts) for outcome in outcomes]

    def _judge(self, key: ConnectionKey, connection: _Connection, verdict: Verdict, ended: bool) -> None:
        if verdict is Verdict.LLM and not connection.judged:
            connection.judged = True
            self._verdicts[key] = True
        elif verdict is Verdict.NOT_LLM or (verdict is Verdict.SERVER_SIDE and ended):
            # A server's end is known before its first request is: that one still has to be counted.
            self._verdicts[key] = False
            self._totals["ignored"] += 1
            del self._followed[key]

    def _evict(self, at_ns: int) -> list[Ended]:
        ended: list[Ended] = []
        while len(self._followed) > self._limit:
            self._totals["evicted"] += 1
            ended += self._end(self._followed.popitem(last=False)[1], at_ns)
        return ended

    def _end(self, connection: _Connection, at_ns: int) -> list[Ended]:
        if connection.reader is None:
            return []
        try:
            outcomes = connection.reader.close(at_ns)
        except Exception as error:
            return self._lost(connection, error)
        self._count_open(connection, 0)
        return [Ended(outcome, connection.facts) for outcome in outcomes]

    def _broken(self, key: ConnectionKey, connection: _Connection, error: Exception) -> list[Ended]:
        del self._followed[key]
        self._verdicts[key] = False
        return self._lost(connection, error)

    def _lost(self, connection: _Connection, error: Exception) -> list[Ended]:
        """An internal error: at least one exchange failed, and every one that was open."""
        kind = f"{type(error).__name__} in {_place(error)}"
        if not self._errors[kind]:
            # The place and the type, not the message: that may quote what was read.
            _LOG.error("internal error in a reader: %s; its connection is given up", kind)
        self._errors[kind] += 1
        lost = max(1, connection.open)
        self._count_open(connection, 0)
        return [Ended(Failed(INTERNAL_ERROR), connection.facts)] * lost

    def _count_open(self, connection: _Connection, now: int) -> None:
        self.open_exchanges += now - connection.open
        connection.open = now


def _place(error: Exception) -> str:
    """`module:line` where `error` was raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return "?"
    return f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno}"
