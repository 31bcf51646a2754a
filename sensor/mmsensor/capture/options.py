"""What the capture can be told, and what it tells about itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path


class Loader(StrEnum):
    """What brings the probes into the kernel."""

    LIBBPF = "libbpf"  # compiled once, relocated by the kernel's BTF
    BCC = "bcc"  # compiled on this machine, with the kernel's headers


class LinkKind(StrEnum):
    """How the probes hang on the functions."""

    UPROBE_SESSION = "uprobe_session"  # as below, entry and return in one program, Linux 6.13
    UPROBE_MULTI = "uprobe_multi"  # one link a program and file, Linux 6.6
    PERF_EVENT = "perf_event"  # one perf event a probe, everywhere else


class HintSource(StrEnum):
    """Where news of mapped files come from."""

    KERNEL = "kernel"  # of files alone that nobody has examined, Linux 6.1
    PERF = "perf"  # of every executable mapping
    PROC = "proc"  # by looking


@dataclass(frozen=True, slots=True)
class CaptureOptions:
    #: Size of the ring, a power of two of whole pages. Its pages are mapped twice into the sensor and count
    #: in its resident memory.
    ring_bytes: int = 4 << 20
    #: The kernel wakes the reader when this much waits; sooner only for the first bytes of a connection.
    wake_bytes: int = 256 << 10
    #: So much of a connection is captured before `set_verdict` has said that it is of interest, the rest is
    #: lost and counted: a bulk transfer shall not fill the ring. 0: without limit.
    undecided_bytes: int = 0
    #: The reader looks by itself this often, so that what is below `wake_bytes` is not kept waiting.
    look_every_s: float = 0.05
    #: Learn the other end of each connection from its socket, where the kernel can tell (Linux 6.3).
    peer_addresses: bool = True
    #: Capture only these processes, where given; `Capture.allow` adds to them.
    only_pids: frozenset[int] | None = None
    #: The sensor's own TLS is never captured. False only makes sense in tests.
    exclude_self: bool = True
    #: None: libbpf where the kernel has BTF, else BCC.
    loader: Loader | None = None
    #: None: the best kind that the kernel has.
    link_kind: LinkKind | None = None
    #: Probe where it is cheap (ladder/placement.py). False is for measuring what that gains, and the way out
    #: should it ever be wrong about a file.
    place_probes: bool = True
    #: Where the findings of searches in stripped programs are kept, by build; None keeps them in memory.
    findings: Path | None = None
    #: The whole of /proc is compared with what is attached this often; new mappings are noticed at once.
    reconcile_every_s: float = 15.0
    #: A file that no process maps any more stays attached this long; a minute at most where it was deleted or
    #: is not on the root file system, so that nothing is kept in use for nobody.
    linger_s: float = 3600.0
    #: Patterns of paths, as a process sees them, of files that are never probed.
    exclude: tuple[str, ...] = ()
    #: None: the best source that the kernel has.
    hint_source: HintSource | None = None
    #: Stop a process that maps a file never seen before until the file is examined, so that not even the
    #: first bytes of a process of milliseconds are missed. Needs Linux 6.1 and CAP_KILL.
    hold_first_exec: bool = False
    #: Nobody is held longer than this, nor for a smaller file, nor more than so many on the whole machine.
    hold_s: float = 0.5
    hold_min_bytes: int = 256 << 10
    holds_per_second: int = 50
    #: A connection that moved nothing for so long is forgotten.
    idle_s: float = 3600.0
    proc: Path = Path("/proc")


@dataclass(frozen=True, slots=True)
class TargetStatus:
    """One file that could be, or is, probed. `reason` says why not, and is empty where `attached`; `doubt`
    what speaks against that being of any use, and is empty where nothing does. `strategy` and `confidence`
    are how its functions were found (ladder/), `why` says so in words, or why they were not."""

    path: str
    device: int
    inode: int
    build_id: str
    symbols: tuple[str, ...]
    attached: bool
    reason: str
    processes: int
    doubt: str = ""
    strategy: str = ""
    confidence: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class HoldStatistics:
    """Processes stopped at the first mapping of a file, since start.

    held = let_go + too_long + those that wait now. `too_long` were continued by the keeper when their time
    was up; `left_stopped`, of those let go, had been stopped by somebody else as well. `not_held` by reason.
    """

    held: int
    let_go: int
    too_long: int
    left_stopped: int
    not_held: dict[str, int]
    total_s: float
    longest_s: float
    keeper_alive: bool


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
    #: Whether the kernel tells the other end of sockets.
    peers: bool = False
    link_kind: str = ""
    loader: str = ""
    open_connections: int = 0
    hints_lost: int = 0
    #: A HintSource.
    hints: str = ""
    #: None where nobody is to be held, or nobody can be; then `not_holding` says why.
    holds: HoldStatistics | None = None
    not_holding: str = ""
