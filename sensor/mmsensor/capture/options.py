"""What the capture can be told, and what it tells about itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class LinkKind(StrEnum):
    """How the probes hang on the functions."""

    UPROBE_SESSION = "uprobe_session"  # as below, entry and return in one program, Linux 6.13
    UPROBE_MULTI = "uprobe_multi"  # one link a program and file, Linux 6.6
    PERF_EVENT = "perf_event"  # one perf event a probe, everywhere else


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    #: Size of the ring, a power of two of whole pages. Its pages are mapped twice into the sensor and count
    #: in its resident memory.
    ring_bytes: int = 8 << 20
    #: The kernel wakes the reader when this much waits; sooner only for the first bytes of a connection.
    wake_bytes: int = 256 << 10
    #: So much of a connection is captured before `set_verdict` has said that it is of interest, the rest is
    #: lost and counted: a bulk transfer shall not fill the ring. 0: without limit.
    undecided_bytes: int = 0
    #: The reader looks by itself this often, so that what is below `wake_bytes` is not kept waiting.
    look_every_s: float = 0.05
    #: Capture only these processes, where given; `Capture.allow` adds to them.
    only_pids: frozenset[int] | None = None
    #: The sensor's own TLS is never captured. False only makes sense in tests.
    exclude_self: bool = True
    #: None: the best kind that the kernel has.
    link_kind: LinkKind | None = None
    #: The whole of /proc is compared with what is attached this often; new mappings are noticed at once.
    reconcile_every_s: float = 15.0
    #: A file that no process maps any more stays attached this long; a minute at most where it was deleted or
    #: is not on the root file system, so that nothing is kept in use for nobody.
    linger_s: float = 3600.0
    #: A connection that moved nothing for so long is forgotten.
    idle_s: float = 3600.0
    proc: Path = Path("/proc")


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """One file that could be, or is, probed. `reason` says why not, and is empty where `attached`."""

    path: str
    device: int
    inode: int
    build_id: str
    symbols: tuple[str, ...]
    attached: bool
    reason: str
    processes: int


@dataclass(frozen=True, slots=True)
class CaptureStatistics:
    """Totals since start. `lost` and `lost_bytes` by reason; together with `bytes` they are everything
    the probed processes moved on connections that were of interest."""

    records: int
    bytes: int
    calls: int
    ignored_calls: int
    nested_calls: int
    lost: dict[str, int] = field(default_factory=dict)
    lost_bytes: dict[str, int] = field(default_factory=dict)
    ring_bytes: int = 0
    link_kind: str = ""
    open_connections: int = 0
    hints_lost: int = 0
