"""The default sink: calls become durable in the spool, a thread brings them on, over HTTP or to Kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mmproto.callform import format_time
from mmproto.delivery import Client, Sender, Spool, SpoolFull, call_record
from mmproto.v1.call_pb2 import Call
from mmsensor.emit.sink import Taken

# The spool is called nearly full above this share of its limit.
NEARLY_FULL = 0.8
# A pipeline or a broker that restarts is away for a moment; after this many seconds somebody should look.
AWAY_S = 60.0


@dataclass(frozen=True, slots=True)
class Destination:
    """Who posts, and where to. `kind`: ingest or kafka; `target` is asked each time it is shown."""

    kind: str
    target: Callable[[], str]
    client: Client


class SpooledSink:
    """A call is accepted once the spool has it on disk."""

    def __init__(self, spool: Spool, destination: Destination, *, flush_s: float) -> None:
        self._spool = spool
        self._destination = destination
        self._flush_s = flush_s
        self._started_ns = time.time_ns()
        self._refusal = ""
        self._sender = Sender(spool, destination.client)
        self._sender.start()

    def emit(self, calls: Sequence[Call]) -> Taken:
        """Appends `calls` in one transaction."""
        try:
            self._spool.append([call_record(call) for call in calls])
        except SpoolFull as full:
            self._refusal = str(full)
            return Taken(full.accepted, full.reason, str(full))
        self._refusal = ""
        self._sender.wake()
        return Taken(len(calls))

    def status(self) -> dict[str, Any]:
        spool, sent = self._spool.statistics(), self._sender.statistics()
        problem = self._refusal
        if not problem and spool.payload_bytes > NEARLY_FULL * spool.max_bytes:
            problem = f"the spool is {spool.payload_bytes * 100 // spool.max_bytes} % full"
        quiet_s = (time.time_ns() - max(sent.last_success_ns, self._started_ns)) / 1e9
        if not problem and sent.failures_in_a_row and quiet_s > AWAY_S:
            problem = f"nothing delivered for {quiet_s:.0f} s: {sent.last_error}"
        if not problem and spool.damaged_files:
            problem = f"a damaged spool was set aside next to {spool.path}: its records were not delivered"
        return {
            "kind": self._destination.kind,
            "target": self._destination.target(),
            "ok": not self._refusal,
            "problem": problem,
            "spool": {
                "path": spool.path,
                "records": spool.records,
                "payload_bytes": spool.payload_bytes,
                "max_bytes": spool.max_bytes,
                "appended": spool.appended,
                "refused": spool.refused,
                "rejected_ever": spool.rejected_ever,
                "damaged_files": spool.damaged_files,
            },
            "delivery": {
                "posts": sent.posts,
                "delivered": sent.delivered,
                "accepted": sent.accepted,
                "duplicates": sent.duplicates,
                "rejected": dict(sent.rejected),
                "retries": dict(sent.retries),
                "failures_in_a_row": sent.failures_in_a_row,
                "last_error": sent.last_error,
                "last_success_at": format_time(sent.last_success_ns) if sent.last_success_ns else None,
            },
        }

    def close(self) -> None:
        self._sender.stop(self._flush_s)
        self._spool.close()
