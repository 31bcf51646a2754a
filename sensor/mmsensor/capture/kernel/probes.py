"""The loaded probes: their maps, their programs, and the links between a program and a file.

The one module that knows both the object and the kernel it runs on.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from mmsensor.capture.errors import AttachFailed, CaptureForbidden, CaptureUnavailable
from mmsensor.capture.functions import Function
from mmsensor.capture.hooks import BY_NAME, Way
from mmsensor.capture.kernel import abi, bcc, privileges, syscalls
from mmsensor.capture.kernel.abi import Counter, State
from mmsensor.capture.kernel.bcc import BccObject
from mmsensor.capture.kernel.btf import KERNEL_BTF
from mmsensor.capture.kernel.confinement import require_machines_pids, why_refused
from mmsensor.capture.kernel.libbpf import BpfObject, Ring
from mmsensor.capture.kernel.uretprobe import returns_survive_seccomp
from mmsensor.capture.options import CaptureOptions, LinkKind, Loader

_UPROBE_PMU = Path("/sys/bus/event_source/devices/uprobe")

#: Programs of the object that hang on functions.
_SESSION = "call_session"
_RETURNING = ("call_leave", "call_return", "go_return", "new_leave")
_ENTERING = tuple(f"{way}_enter" for way in Way if way is not Way.NEW)
UPROBE_PROGRAMS = (*_RETURNING, *_ENTERING, _SESSION)

#: Maps that grow with what is in them. Before 6.1 Linux warns of such maps in its log when a probe uses one,
#: and refuses it where it is built for real time: there they take all their memory at once, some 30 MB.
_GROWING = ("threads", "connections", "processes")

#: Since then a return probe leaves through a system call on x86-64, which seccomp filters may see.
_RETURNS_BY_SYSTEM_CALL = (6, 11)

_ATTACH_TYPES = {
    LinkKind.UPROBE_SESSION: syscalls.TRACE_UPROBE_SESSION,
    LinkKind.UPROBE_MULTI: syscalls.TRACE_UPROBE_MULTI,
}


_LOADERS: Mapping[Loader, type[BpfObject] | type[BccObject]] = {
    Loader.LIBBPF: BpfObject,
    Loader.BCC: BccObject,
}
_FILES = {Loader.LIBBPF: "tls.bpf.o", Loader.BCC: "tls.bcc.c"}


def object_path(loader: Loader = Loader.LIBBPF) -> Path:
    """The probes as this loader takes them. Raises CaptureUnavailable where they are not built."""
    path = Path(str(resources.files("mmsensor._bpf"))) / _FILES[loader]
    if not path.is_file():
        raise CaptureUnavailable("the probes are not built", "run `make setup` (or bpf/build.sh)")
    return path


class _Step(NamedTuple):
    """Probes of one program on one file; `probes` are (offset, cookie)."""

    program: str
    returns: bool
    probes: tuple[tuple[int, int], ...]


def _choose_loader(wanted: Loader | None) -> Loader:
    """The wanted one, or the one that this kernel takes. Raises CaptureUnavailable where there is none."""
    has_btf = KERNEL_BTF.exists()
    if wanted is Loader.BCC or (wanted is None and not has_btf and bcc.is_installed()):
        return Loader.BCC
    if not has_btf:
        raise CaptureUnavailable(
            f"the kernel has no BTF ({KERNEL_BTF})",
            "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian and Ubuntu build theirs, or the loader bcc "
            "(python3-bpfcc and the kernel's headers)",
        )
    return Loader.LIBBPF


def _choose_link_kind(wanted: LinkKind | None) -> LinkKind:
    """The best kind that the kernel has, or the wanted one. Raises CaptureUnavailable without that."""
    try:
        for kind, attach_type in _ATTACH_TYPES.items():
            if wanted in (None, kind) and syscalls.knows_uprobe_link(attach_type):
                return kind
    except OSError as error:
        raise _unavailable(error) from error
    if wanted in _ATTACH_TYPES:
        raise CaptureUnavailable(
            f"the kernel has no {wanted} links",
            "leave the kind of link to the sensor; uprobe_multi needs Linux 6.6, uprobe_session 6.13",
        )
    return LinkKind.PERF_EVENT


class _Pmu(NamedTuple):
    """The number of the perf events that are uprobes, and the config bit that asks for the return."""

    number: int
    return_bit: int


def uprobe_pmu() -> _Pmu:
    """Raises CaptureUnavailable on a kernel without them."""
    try:
        number = int((_UPROBE_PMU / "type").read_text())
        # "config:0"
        return _Pmu(number, int((_UPROBE_PMU / "format" / "retprobe").read_text().strip().partition(":")[2]))
    except (OSError, ValueError) as error:
        raise CaptureUnavailable(
            "the kernel has no uprobe perf events", "use a kernel with CONFIG_UPROBE_EVENTS=y"
        ) from error


def _returns_kill() -> bool:
    """Whether return probes are known to kill sandboxed programs here; without the rights to try, nobody
    knows."""
    if _kernel_version() < _RETURNS_BY_SYSTEM_CALL:
        return False
    try:
        return returns_survive_seccomp(*uprobe_pmu()) is False
    except CaptureUnavailable:
        return False


def _has_return_probe(function: Function) -> bool:
    return BY_NAME[function.name].way in (Way.CALL, Way.NEW) and not function.returns


def _kernel_version() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int(re.sub(r"\D.*", "", minor))


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
        privileges.require_to_load()
        require_machines_pids()
        self.loader = _choose_loader(options.loader)
        page = os.sysconf("SC_PAGE_SIZE")
        if options.ring_bytes < page or options.ring_bytes & (options.ring_bytes - 1):
            raise CaptureUnavailable(
                f"a ring of {options.ring_bytes} bytes is not possible",
                f"choose a power of two of at least {page}",
            )
        self._options = options
        self.link_kind = _choose_link_kind(options.link_kind)
        if self.link_kind is LinkKind.PERF_EVENT:
            self._pmu = uprobe_pmu()
            privileges.require_perf_uprobes(self._pmu.number)
        self._returns_kill = _returns_kill()
        self._object = self._load()
        self._fixed: list[int] = []
        try:
            self._settings = self._map("settings", 4, abi.SETTINGS.size)
            self._pids = self._map("pids", 4, 4)
            self._connections = self._map("connections", abi.CONNECTION_KEY.size, abi.CONNECTION.size)
            self._threads = self._map("threads", abi.THREAD_KEY.size, 0)
            self._processes = self._map("processes", 4, 8)
            self._verdicts = self._map("verdicts", abi.VERDICT_KEY.size, 4)
            self._fired = self._map("fired", 4, 8)
            self._counters = self._map("counters", 4, 8 * len(Counter), copies=_possible_cpus())
            self._configure()
            self.ring = Ring(self._object.map_fd("records"))
            self._trace("process_exit", "sched_process_exit")
            #: Whether the kernel tells the other end of sockets.
            self.sees_peers = options.peer_addresses and self._trace_sockets()
        except OSError as error:
            self.close()
            raise _unavailable(error) from error
        except CaptureUnavailable:
            self.close()
            raise

    def _load(self) -> BpfObject | BccObject:
        session = self.link_kind is LinkKind.UPROBE_SESSION
        multi = session or self.link_kind is LinkKind.UPROBE_MULTI
        kinds = dict.fromkeys(UPROBE_PROGRAMS, syscalls.TRACE_UPROBE_MULTI) if multi else {}
        if session:
            kinds[_SESSION] = syscalls.TRACE_UPROBE_SESSION
        try:
            return _LOADERS[self.loader](
                object_path(self.loader),
                map_entries={"records": self._options.ring_bytes},
                preallocated=() if _kernel_version() >= (6, 1) else _GROWING,
                attach_type=kinds,
                left_out=[] if session else [_SESSION],
            )
        except OSError as error:
            raise _unavailable(error) from error

    def _trace(self, program: str, tracepoint: str) -> None:
        self._fixed.append(syscalls.link_raw_tracepoint(self._object.program_fd(program), tracepoint))

    def _trace_sockets(self) -> bool:
        """False on kernels before 6.3, which have no such tracepoints."""
        try:
            self._trace("socket_sent", "sock_send_length")
            self._trace("socket_received", "sock_recv_length")
        except FileNotFoundError:
            return False
        return True

    def _map(self, name: str, key_size: int, value_size: int, copies: int = 1) -> syscalls.Map:
        """`copies`: values that the kernel gives at once, one for each CPU. A `value_size` of 0 is never
        read."""
        fd = self._object.map_fd(name)
        found_key, found_value = syscalls.map_sizes(fd)
        if found_key != key_size or value_size not in (0, found_value):
            raise CaptureUnavailable(
                f"the probes are not of this sensor's version (map {name})", "run `make setup` again"
            )
        return syscalls.Map(fd, key_size, value_size * copies)

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

    def attach(self, path: str, functions: Sequence[Function], target: int) -> list[int]:
        """Puts the programs on these functions of the file; the descriptors are the links. `target` is the
        index by which `last_fired` knows the file, 0 for none.

        Leave programs first: a call that is entered between the two links then is not stashed, where
        the other order would stash calls whose return nobody awaits.
        Raises AttachFailed, with nothing left attached.
        """
        if self._returns_kill and any(_has_return_probe(function) for function in functions):
            raise AttachFailed(
                "on this kernel a return probe kills programs that run under seccomp",
                "use Linux 6.14 or newer, or a stable kernel that lets return probes pass through seccomp",
            )
        links: list[int] = []
        program = ""
        try:
            for step in self._steps(functions, target):
                program = step.program
                links += self._link(step, path)
        except OSError as error:
            detach(links)
            raise AttachFailed(
                f"{program}: {errno.errorcode.get(error.errno or 0, '?')} {error.strerror}",
                "see `mmsensor targets`; the kernel refuses probes on some file systems and instructions",
            ) from error
        return links

    def _steps(self, functions: Sequence[Function], target: int) -> list[_Step]:
        """Return programs first; within that, everything of one program together, so that it is one link."""
        probes: dict[tuple[str, bool], list[tuple[int, int]]] = {}
        for function in functions:
            hook = BY_NAME[function.name]
            cookie = abi.cookie(
                hook.form,
                reads=hook.moves == "read",
                stack_shift=function.stack_shift,
                success=hook.success,
                target=target,
            )
            for program, returns, offsets in self._programs(hook.way, function):
                probes.setdefault((program, returns), []).extend((offset, cookie) for offset in offsets)
        steps = [_Step(program, returns, tuple(places)) for (program, returns), places in probes.items()]
        return sorted(steps, key=lambda step: step.program not in _RETURNING)

    def _programs(self, way: Way, function: Function) -> Iterator[tuple[str, bool, tuple[int, ...]]]:
        """(program, whether it hangs on the return, offsets)"""
        entry = (function.entry,)
        if way is Way.GO:
            yield "go_enter", False, entry
            yield "go_return", False, function.returns
        elif way is Way.NEW:
            yield "new_leave", True, entry
        elif way is not Way.CALL:
            yield f"{way}_enter", False, entry
        elif function.returns:
            yield "call_enter", False, entry
            yield "call_return", False, function.returns
        elif self.link_kind is LinkKind.UPROBE_SESSION:
            yield _SESSION, False, entry
        else:
            yield "call_enter", False, entry
            yield "call_leave", True, entry

    def _link(self, step: _Step, path: str) -> list[int]:
        program = self._object.program_fd(step.program)
        if self.link_kind is not LinkKind.PERF_EVENT:
            kind = syscalls.TRACE_UPROBE_MULTI
            if step.program == _SESSION:
                kind = syscalls.TRACE_UPROBE_SESSION
            return [syscalls.link_uprobe_multi(program, path, step.probes, kind=kind, returns=step.returns)]
        pmu, bit = self._pmu
        links: list[int] = []
        try:
            for probe in step.probes:
                links.append(
                    syscalls.link_perf_uprobe(program, pmu, path, probe, bit if step.returns else None)
                )
        except OSError:
            detach(links)
            raise
        return links

    def last_fired(self, target: int) -> int:
        """When a probe of this target last fired: nanoseconds on the boot clock, to a second; 0: never."""
        raw = self._fired.get(target.to_bytes(4, "little"))
        return int.from_bytes(raw, "little") if raw else 0

    def forget_fired(self, target: int) -> None:
        """The index is about to stand for another file."""
        self._fired.put(target.to_bytes(4, "little"), bytes(8))

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

    def forget_dead(self, alive: Callable[[int, int], bool]) -> None:
        """Removes what dead processes left behind; `alive(pid, started_ns)` tells them.

        SSL_free removes connections one by one; this finds those of processes that died with connections
        open, and the verdicts that came after their connection's last call.
        """
        known: dict[tuple[int, int], bool] = {}
        live = set()
        for key in list(self._connections.keys()):
            ssl, started_ns, pid, _ = abi.CONNECTION_KEY.unpack(key)
            process = (pid, started_ns)
            if process not in known:
                known[process] = alive(pid, started_ns)
            if known[process]:
                live.add((pid, ssl))
            else:
                self._connections.delete(key)
        for key in list(self._verdicts.keys()):
            ssl, _generation, pid, _ = abi.VERDICT_KEY.unpack(key)
            if (pid, ssl) not in live:
                self._verdicts.delete(key)
        for key in list(self._threads.keys()):
            _id, pid, _ = abi.THREAD_KEY.unpack(key)
            if not (self._options.proc / str(pid)).exists():
                self._threads.delete(key)
        for key in list(self._processes.keys()):
            started = self._processes.get(key)
            if started and not alive(int.from_bytes(key, "little"), int.from_bytes(started, "little")):
                self._processes.delete(key)

    def forget(self, pid: int, started_ns: int, ssl: int) -> None:
        self._connections.delete(abi.CONNECTION_KEY.pack(ssl, started_ns, pid, 0))

    def counters(self) -> dict[Counter, int]:
        by_cpu = memoryview(self._counters.get(bytes(4)) or b"").cast("Q")
        return {counter: sum(by_cpu[counter :: len(Counter)]) for counter in Counter}

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
        # The capabilities are there, or we would not have come so far.
        why = why_refused()
        return CaptureForbidden(f"the kernel refuses BPF ({name}): {why.reason}", why.hint)
    return CaptureUnavailable(
        f"the kernel does not load the probes ({name}: {error.strerror})",
        "use Linux 5.15 or newer with CONFIG_BPF_SYSCALL, CONFIG_UPROBES and BTF",
    )
