"""The loaded probes: their maps, their programs, and the links between a program and a file.

The one module that knows both the object and the kernel it runs on.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from mmsensor.capture.errors import AttachFailed, CaptureForbidden, CaptureUnavailable
from mmsensor.capture.hooks import HOOKS
from mmsensor.capture.kernel import abi, syscalls
from mmsensor.capture.kernel.abi import Counter, State
from mmsensor.capture.kernel.btf import KERNEL_BTF
from mmsensor.capture.kernel.libbpf import BpfObject, Ring
from mmsensor.capture.options import CaptureOptions, LinkKind

_UPROBE_PMU = Path("/sys/bus/event_source/devices/uprobe")


def _object_path() -> Path:
    path = Path(str(resources.files("mmsensor._bpf"))) / "tls.bpf.o"
    if not path.is_file():
        raise CaptureUnavailable("the probes are not built", "run `make setup` (or bpf/build.sh)")
    return path


def _programs() -> list[str]:
    return [program for hook in HOOKS for program in (hook.enter, hook.leave) if program]


def _require(purpose: str, **capabilities: int) -> None:
    """Rights are what counts, not the user: the systemd unit runs without root and with these alone."""
    status = Path("/proc/self/status").read_text()
    held = int(status.partition("CapEff:")[2].split()[0], 16)
    missing = [name for name, number in capabilities.items() if not held >> number & 1]
    if missing:
        raise CaptureForbidden(
            f"no permission {purpose} ({', '.join(missing)})",
            "run it with sudo or as the systemd unit; docs/install.md says what the unit needs",
        )


def _possible_cpus() -> int:
    """CPUs that a per-CPU map has a value for: `0-63`, `0` or `0,2-3` give the highest plus one."""
    text = Path("/sys/devices/system/cpu/possible").read_text().strip()
    return int(text.replace(",", "-").split("-")[-1]) + 1


class Position(NamedTuple):
    """Bytes a connection has moved, captured or lost; `ended` where the kernel had no room to say so."""

    read: int
    written: int
    ended: bool


class Kernel:
    """Loads the object on construction. Raises CaptureUnavailable where it cannot."""

    def __init__(self, options: CaptureOptions) -> None:
        _require("to load probes", CAP_BPF=39, CAP_PERFMON=38)
        if not KERNEL_BTF.exists():
            raise CaptureUnavailable(
                f"the kernel has no BTF ({KERNEL_BTF})",
                "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian and Ubuntu build theirs",
            )
        page = os.sysconf("SC_PAGE_SIZE")
        if options.ring_bytes < page or options.ring_bytes & (options.ring_bytes - 1):
            raise CaptureUnavailable(
                f"a ring of {options.ring_bytes} bytes is not possible",
                f"choose a power of two of at least {page}",
            )
        self._options = options
        self.link_kind, self._object = self._load()
        if self.link_kind is LinkKind.PERF_EVENT:
            try:
                _require("to attach probes to programs on a kernel before 6.6", CAP_SYS_ADMIN=21)
            except CaptureUnavailable:
                self._object.close()
                raise
        self._fixed: list[int] = []
        try:
            self._settings = self._map("settings", 4, abi.SETTINGS.size)
            self._pids = self._map("pids", 4, 4)
            self._connections = self._map("connections", abi.CONNECTION_KEY.size, abi.CONNECTION.size)
            self._processes = self._map("processes", 4, 8)
            self._verdicts = self._map("verdicts", abi.VERDICT_KEY.size, 4)
            self._cpus = _possible_cpus()
            self._counters = self._map("counters", 4, 8 * self._cpus)
            self._configure()
            self.ring = Ring(self._object.map_fd("records"))
            self._fixed.append(
                syscalls.link_raw_tracepoint(self._object.program_fd("process_exit"), "sched_process_exit")
            )
        except OSError as error:
            self.close()
            raise _unavailable(error) from error

    def _load(self) -> tuple[LinkKind, BpfObject]:
        path = _object_path()
        entries = {"records": self._options.ring_bytes}
        try:
            if self._options.link_kind is not LinkKind.PERF_EVENT:
                # The attach type is fixed at load, so finding out costs a load where the answer is no.
                with suppress(OSError):
                    loaded = BpfObject(
                        path,
                        map_entries=entries,
                        attach_type=dict.fromkeys(_programs(), syscalls.TRACE_UPROBE_MULTI),
                    )
                    if syscalls.knows_uprobe_multi(loaded.program_fd(_programs()[0])):
                        return LinkKind.UPROBE_MULTI, loaded
                    loaded.close()
                if self._options.link_kind is LinkKind.UPROBE_MULTI:
                    raise CaptureUnavailable(
                        "the kernel has no uprobe_multi links", "use Linux 6.6 or newer, or perf_event links"
                    )
            return LinkKind.PERF_EVENT, BpfObject(path, map_entries=entries)
        except OSError as error:
            raise _unavailable(error) from error

    def _map(self, name: str, key_size: int, value_size: int) -> syscalls.Map:
        return syscalls.Map(self._object.map_fd(name), key_size, value_size)

    def _configure(self) -> None:
        own = os.getpid() if self._options.exclude_self else 0
        listed = self._options.only_pids is not None
        self._settings.put(
            bytes(4),
            abi.SETTINGS.pack(
                min(self._options.wake_bytes, self._options.ring_bytes // 4),
                self._options.undecided_bytes,
                own,
                listed,
            ),
        )
        for pid in self._options.only_pids or ():
            self.allow(pid)

    def allow(self, pid: int) -> None:
        self._pids.put(pid.to_bytes(4, "little"), bytes(4))

    # -- links -------------------------------------------------------------------------------------

    def attach(self, path: str, offsets: Mapping[str, int]) -> list[int]:
        """Puts every hook whose symbol is in `offsets` on the file; the descriptors are the links.

        Leave programs first: a call that is entered between the two links then is not stashed, where
        the other order would stash calls whose return nobody awaits.
        Raises AttachFailed, with nothing left attached.
        """
        link = self._linker()
        links: list[int] = []
        present = [hook for hook in HOOKS if hook.symbol in offsets]
        steps = [(hook, hook.leave, True) for hook in present] + [
            (hook, hook.enter, False) for hook in present
        ]
        try:
            for hook, program, returns in steps:
                if program:
                    links.append(link(self._object.program_fd(program), path, offsets[hook.symbol], returns))
        except OSError as error:
            detach(links)
            raise AttachFailed(
                f"{hook.symbol}: {errno.errorcode.get(error.errno or 0, '?')} {error.strerror}",
                "see `mmsensor targets`; the kernel refuses probes on some file systems and instructions",
            ) from error
        return links

    def _linker(self) -> Callable[[int, str, int, bool], int]:
        if self.link_kind is LinkKind.UPROBE_MULTI:
            return syscalls.link_uprobe_multi
        try:
            pmu = int((_UPROBE_PMU / "type").read_text())
            # "config:0": the bit of perf_event_attr.config that asks for the return.
            bit = int((_UPROBE_PMU / "format" / "retprobe").read_text().strip().partition(":")[2])
        except (OSError, ValueError) as error:
            raise AttachFailed(
                "the kernel has no uprobe perf events", "use a kernel with CONFIG_UPROBE_EVENTS=y"
            ) from error

        def link(program: int, path: str, offset: int, returns: bool) -> int:
            return syscalls.link_perf_uprobe(program, pmu, path, offset, bit if returns else None)

        return link

    # -- connections -------------------------------------------------------------------------------

    def position(self, pid: int, started_ns: int, ssl: int, generation: int) -> Position | None:
        """How far a connection has come; None where the kernel no longer has it."""
        raw = self._connections.get(abi.CONNECTION_KEY.pack(ssl, started_ns, pid, 0))
        if raw is None:
            return None
        born, read, written, state, _flags = abi.CONNECTION.unpack(raw)
        return Position(read, written, state == State.ENDED) if born == generation else None

    def judge(self, pid: int, ssl: int, generation: int, interesting: bool) -> None:
        state = State.INTERESTING if interesting else State.IGNORED
        self._verdicts.put(abi.VERDICT_KEY.pack(ssl, generation, pid, 0), int(state).to_bytes(4, "little"))

    def forget_dead(self, alive: Callable[[int, int], bool]) -> int:
        """Removes what dead processes left behind; `alive(pid, started_ns)` tells them.

        SSL_free removes connections one by one; this finds those of processes that died with connections
        open. Returns how many connections the kernel still holds.
        """
        known: dict[tuple[int, int], bool] = {}
        live = 0
        for key in list(self._connections.keys()):
            _ssl, started_ns, pid, _ = abi.CONNECTION_KEY.unpack(key)
            process = (pid, started_ns)
            if process not in known:
                known[process] = alive(pid, started_ns)
            if known[process]:
                live += 1
            else:
                self._connections.delete(key)
        for key in list(self._processes.keys()):
            started = self._processes.get(key)
            if started and not alive(int.from_bytes(key, "little"), int.from_bytes(started, "little")):
                self._processes.delete(key)
        return live

    def forget(self, pid: int, started_ns: int, ssl: int) -> None:
        self._connections.delete(abi.CONNECTION_KEY.pack(ssl, started_ns, pid, 0))

    def counters(self) -> dict[Counter, int]:
        totals: dict[Counter, int] = {}
        for counter in Counter:
            raw = self._counters.get(int(counter).to_bytes(4, "little")) or b""
            totals[counter] = sum(memoryview(raw).cast("Q")) if raw else 0
        return totals

    def close(self) -> None:
        """Takes everything out of the kernel; links that `attach` gave out belong to their owner."""
        for fd in self._fixed:
            os.close(fd)
        self._fixed = []
        if hasattr(self, "ring"):
            self.ring.close()
        self._object.close()


def detach(links: Sequence[int]) -> None:
    """Takes probes off. The kernel waits out every program that may be running for each of them, some
    50 ms, so they go in parallel: a file's dozen takes as long as one."""
    if links:
        with ThreadPoolExecutor(min(len(links), 32)) as pool:
            list(pool.map(os.close, links))


def _unavailable(error: OSError) -> CaptureUnavailable:
    name = errno.errorcode.get(error.errno or 0, "?")
    if error.errno == errno.EPERM:
        return CaptureForbidden(
            f"the kernel refuses BPF ({name})",
            "run as root with CAP_BPF and CAP_PERFMON, outside of kernel lockdown",
        )
    return CaptureUnavailable(
        f"the kernel does not load the probes ({name}: {error.strerror})",
        "use Linux 5.15 or newer with CONFIG_BPF_SYSCALL, CONFIG_UPROBES and BTF",
    )
