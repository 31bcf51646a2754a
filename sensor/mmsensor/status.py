"""The sensor's account of itself: one document for `mmsensor status`, /status and the metrics.

The verdict comes with its reasons. `unhealthy`: nothing is measured, or measured calls are being dropped,
or the account does not balance. `degraded`: something is measured, but not all of it, or it does not get
through. `healthy`: neither.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mmproto.callform import format_time
from mmsensor.capture.options import TargetStatus
from mmsensor.daemon import Daemon

HEALTHY, DEGRADED, UNHEALTHY = "healthy", "degraded", "unhealthy"
# The loop comes round every 50 ms; a disk that syncs slowly may hold it up for seconds.
STUCK_S = 15.0
# Losses are a reason for this long; the totals stay in the counters.
RECENT_S = 300.0
_SAMPLE_EVERY_S = 10.0

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who reports. `metrics_url` is "" where metrics are off."""

    node: str
    version: str
    boot_id: str
    started_unix_ns: int
    state_dir: str
    metrics_url: str


class StatusReporter:
    """Takes the snapshot. `watch` is called now and then by the loop, `snapshot` from any thread."""

    def __init__(
        self,
        daemon: Daemon,
        identity: Identity,
        shortfalls: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`shortfalls`: what is not measured for want of rights, a sentence each."""
        self._daemon = daemon
        self._identity = identity
        self._shortfalls = list(shortfalls)
        self._clock = clock
        self._losses: deque[tuple[float, Counts]] = deque()

    def watch(self) -> None:
        """Remembers the loss counters, for what is recent."""
        now = self._clock()
        if self._losses and now - self._losses[-1][0] < _SAMPLE_EVERY_S:
            return
        self._losses.append((now, self._counts()))
        while len(self._losses) > 1 and now - self._losses[1][0] >= RECENT_S:
            self._losses.popleft()

    def alive(self) -> bool:
        """Whether the loop still comes round."""
        return self._clock() - self._daemon.last_beat < STUCK_S

    def ready(self) -> bool:
        """Whether calls are measured and kept right now."""
        return self.alive() and bool(self._daemon.sink.status()["ok"])

    def targets(self) -> list[dict[str, Any]]:
        return [_target(target) for target in self._daemon.source.targets()]

    def snapshot(self) -> dict[str, Any]:
        """The document, in plain dicts and lists."""
        daemon = self._daemon
        account = daemon.ledger.account()
        kernel, connections = daemon.source.statistics(), daemon.connections.statistics()
        document: dict[str, Any] = {
            "verdict": HEALTHY,
            "reasons": [],
            "identity": {
                "node": self._identity.node,
                "version": self._identity.version,
                "pid": os.getpid(),
                "boot_id": self._identity.boot_id,
                "started_at": format_time(self._identity.started_unix_ns),
                "started_unix_s": self._identity.started_unix_ns / 1e9,
                "state_dir": self._identity.state_dir,
                "metrics_url": self._identity.metrics_url,
            },
            "events": {
                "captured": account.captured,
                "emitted": account.emitted,
                "dropped": dict(sorted(account.dropped.items())),
                "failed": dict(sorted(account.failed.items())),
                "balanced": account.balanced,
            },
            "anomalies": dict(sorted(account.anomalies.items())),
            "in_flight": {"open": account.open, "queued": account.queued},
            "connections": {
                "followed": connections.followed,
                "total": {
                    "opened": connections.opened,
                    "late": connections.late,
                    "ignored": connections.ignored,
                    "evicted": connections.evicted,
                },
                "gaps": connections.gaps,
                "gap_bytes": connections.gap_bytes,
            },
            "kernel": asdict(kernel),
            "targets": self.targets(),
            "sink": daemon.sink.status(),
            "overhead": _overhead(),
            "errors": connections.errors,
        }
        document["verdict"], document["reasons"] = self._judge(document)
        return document

    def _judge(self, document: Mapping[str, Any]) -> tuple[str, list[str]]:
        bad, poor = self._unhealthy(document), self._degraded(document)
        return (UNHEALTHY if bad else DEGRADED if poor else HEALTHY), bad + poor

    def _unhealthy(self, document: Mapping[str, Any]) -> list[str]:
        reasons: list[str] = []
        if not self.alive():
            reasons.append(f"the loop has not come round for {self._clock() - self._daemon.last_beat:.0f} s")
        if not document["events"]["balanced"]:
            reasons.append("the account does not balance: captured is not emitted + dropped + failed")
        if not document["sink"]["ok"]:
            reasons.append(f"measured calls are being dropped: {document['sink']['problem']}")
        return reasons

    def _degraded(self, document: Mapping[str, Any]) -> list[str]:
        reasons = list(self._shortfalls)
        targets = document["targets"]
        if not any(target["attached"] for target in targets):
            reasons.append("attached to nothing: no running process maps a TLS library that is known")
        failed = [target for target in targets if target["reason"].startswith("attach_failed")]
        if failed:
            reasons.append(f"{len(failed)} targets could not be attached, e.g. {failed[0]['path']}")
        silent = [target for target in targets if target["doubt"]]
        if silent:
            reasons.append(f"{len(silent)} targets are used and never fire, e.g. {silent[0]['path']}")
        kernel = document["kernel"]
        if kernel["not_holding"]:
            reasons.append(f"no process is held: {kernel['not_holding']}")
        elif kernel["holds"] and not kernel["holds"]["keeper_alive"]:
            reasons.append("no process is held any more: their keeper has died; restart the sensor")
        sink = document["sink"]
        if sink["ok"] and sink["problem"]:
            reasons.append(sink["problem"])
        now = self._counts()
        before = self._losses[0][1] if self._losses else now
        for loss, count in now.items():
            recent = count - before.get(loss, 0)
            if recent:
                reasons.append(f"{loss}: {recent} in the last minutes")
        return reasons

    def _counts(self) -> Counts:
        kernel, connections = self._daemon.source.statistics(), self._daemon.connections.statistics()
        # What a bulk transfer has beyond its share is left out on purpose: a number, but no fault.
        faults = {name: count for name, count in kernel.lost.items() if name != "undecided"}
        counts = {f"lost in the kernel ({name})": count for name, count in faults.items()}
        counts["connections given up for want of room"] = connections.evicted
        counts["processes held for as long as allowed"] = kernel.holds.too_long if kernel.holds else 0
        counts["internal errors"] = sum(connections.errors.values())
        rejected = self._daemon.sink.status().get("delivery", {}).get("rejected", {})
        counts["calls refused for their content"] = sum(rejected.values())
        return counts


def _target(target: TargetStatus) -> dict[str, Any]:
    form = asdict(target)
    form["symbols"] = list(target.symbols)
    return form


def _overhead() -> dict[str, Any]:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "cpu_seconds": round(time.process_time(), 3),
        "resident_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
        "threads": sum(1 for _ in Path("/proc/self/task").iterdir()),
    }
