"""The files that carry TLS functions: found, attached, counted, let go.

A target is a file, (device, inode), and not a path or a process. The probes sit on the inode, so every
process that maps it later is captured from its first byte, in whatever container and under whatever name.
The file is held open while it is attached: its inode number cannot become another file's meanwhile.
"""

from __future__ import annotations

import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmsensor.capture import hooks
from mmsensor.capture.discovery import proc
from mmsensor.capture.discovery.proc import FileMapping
from mmsensor.capture.errors import AttachFailed
from mmsensor.capture.functions import Function
from mmsensor.capture.kernel.abi import TARGETS
from mmsensor.capture.kernel.probes import detach
from mmsensor.capture.ladder import elf, symbols
from mmsensor.capture.options import CaptureOptions, TargetStatus

#: Puts the probes on these functions of a file, which gets an index; returns the descriptors that hold them.
#: Raises AttachFailed.
Attach = Callable[[str, Sequence[Function], int], list[int]]

#: Names that promise TLS. What has one and exports nothing we know is reported with the reason beside it,
#: never probed on a guess.
_PROMISES = (
    (re.compile(r"libssl[-.]|libboringssl"), "no_exported_tls_functions"),
    (re.compile(r"(node|bun|deno|claude|electron)$"), "no_exported_tls_functions"),
    (re.compile(r"libgnutls[-.]"), "gnutls_not_supported"),
    (re.compile(r"libnss3\.so|libnspr4\.so"), "nss_not_supported"),
    (re.compile(r"libmbedtls[-.]|libwolfssl[-.]|libs2n[-.]"), "library_not_supported"),
)
#: How long at most an unused file stays attached that was deleted or is not on the root file system: probes
#: keep a file's space and its mount in use.
_SHORT_LINGER_S = 60.0
_REMEMBERED_FILES = 65536
_SEEN_DELETED = " (deleted)"

_MappingKey = tuple[int, int, int, int, str]


@dataclass(slots=True)
class _Target:
    path: str
    fd: int  # held open while it is known
    device: int
    inode: int
    build: tuple[int, int]  # size, mtime_ns: whether the file is still what was read
    build_id: str
    functions: tuple[Function, ...]
    index: int = 0  # by which the kernel knows it; 0: none was free
    reason: str = ""
    links: list[int] = field(default_factory=list)
    processes: set[int] = field(default_factory=set)
    unused_since: float | None = None

    def status(self) -> TargetStatus:
        return TargetStatus(
            self.path,
            self.device,
            self.inode,
            self.build_id,
            tuple(function.name for function in self.functions),
            bool(self.links),
            self.reason,
            len(self.processes),
        )

    def close(self) -> None:
        detach(self.links)
        self.links = []
        os.close(self.fd)


class Targets:
    """The registry. `monotonic` is seconds on any steady clock. Safe to use from several threads."""

    def __init__(self, options: CaptureOptions, attach: Attach, monotonic: Callable[[], float]) -> None:
        self._options = options
        self._attach = attach
        self._now = monotonic
        self._root_device = Path("/").stat().st_dev
        self._lock = threading.Lock()
        self._targets: dict[tuple[int, int], _Target] = {}
        self._free_indices = list(range(TARGETS - 1, 0, -1))
        # What each mapping turned out to be: the target, or None for a file that is of no interest.
        self._known: OrderedDict[_MappingKey, tuple[int, int] | None] = OrderedDict()

    def examine(self, pid: int, mapping: FileMapping) -> None:
        """Looks at one mapping of a process, and attaches to its file where that is worth it."""
        with self._lock:
            target = self._target_of(pid, mapping)
            if target:
                target.processes.add(pid)
                target.unused_since = None

    def reconcile(self) -> None:
        """Compares everything attached with everything mapped: finds what hints missed, counts processes,
        retries what failed, reads changed files again, lets go of what nobody uses."""
        running = {
            pid: proc.executable_mappings(self._options.proc, pid) for pid in proc.pids(self._options.proc)
        }
        with self._lock:
            users: dict[tuple[int, int], set[int]] = {}
            for pid, mappings in running.items():
                for mapping in mappings:
                    target = self._target_of(pid, mapping)
                    if target:
                        users.setdefault((target.device, target.inode), set()).add(pid)
            for identity, target in list(self._targets.items()):
                target.processes = users.get(identity, set())
                self._review(target)

    def statuses(self) -> list[TargetStatus]:
        with self._lock:
            return sorted((target.status() for target in self._targets.values()), key=lambda each: each.path)

    def close(self) -> None:
        with self._lock:
            detach([link for target in self._targets.values() for link in target.links])
            for target in self._targets.values():
                target.links = []
                target.close()
            self._targets.clear()
            self._known.clear()

    # -- with the lock held ------------------------------------------------------------------------

    def _target_of(self, pid: int, mapping: FileMapping) -> _Target | None:
        key = (mapping.major, mapping.minor, mapping.inode, mapping.generation, mapping.path)
        if key in self._known:
            self._known.move_to_end(key)
            identity = self._known[key]
            return self._targets.get(identity) if identity else None
        fd = _open_mapped(self._options.proc, pid, mapping)
        if fd is None:
            return None  # not remembered: the next process may let us look
        target = self._examine_file(fd, mapping.path.removesuffix(_SEEN_DELETED))
        self._known[key] = (target.device, target.inode) if target else None
        if len(self._known) > _REMEMBERED_FILES:
            self._known.popitem(last=False)
        return target

    def _examine_file(self, fd: int, path: str) -> _Target | None:
        """Takes over the descriptor: kept in a new target, closed otherwise."""
        target: _Target | None = None
        try:
            facts = os.fstat(fd)
            known = self._targets.get((facts.st_dev, facts.st_ino))
            if known is not None:
                return known
            target = _read_target(fd, facts, path)
        except OSError:
            return None
        finally:
            if target is None:
                os.close(fd)
        if target is not None:
            self._targets[target.device, target.inode] = target
            target.index = self._free_indices.pop() if self._free_indices else 0
            self._try_attach(target)
        return target

    def _try_attach(self, target: _Target) -> None:
        if not hooks.sufficient([function.name for function in target.functions]):
            return
        try:
            # The open file and not its path: what was read is what is probed.
            target.links = self._attach(f"/proc/self/fd/{target.fd}", target.functions, target.index)
            target.reason = ""
        except AttachFailed as error:
            target.reason = f"attach_failed: {error.reason}"

    def _review(self, target: _Target) -> None:
        facts = os.fstat(target.fd)
        if _build(facts) != target.build:
            # Written over in place: the offsets may point anywhere now.
            self._drop(target)
            return
        if target.processes:
            target.unused_since = None
            if not target.links:
                self._try_attach(target)
            return
        now = self._now()
        if target.unused_since is None:
            target.unused_since = now
        linger = self._options.linger_s
        if not facts.st_nlink or facts.st_dev != self._root_device:
            linger = min(_SHORT_LINGER_S, linger)
        if now - target.unused_since >= linger:
            self._drop(target)

    def _drop(self, target: _Target) -> None:
        identity = (target.device, target.inode)
        del self._targets[identity]
        target.close()
        if target.index:
            self._free_indices.append(target.index)
        for key in [key for key, known in self._known.items() if known == identity]:
            del self._known[key]


def _build(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_size, facts.st_mtime_ns


def _read_target(fd: int, facts: os.stat_result, path: str) -> _Target | None:
    """None where the file has nothing to do with TLS."""
    try:
        file = elf.ElfFile(fd)
        offsets = symbols.exported(file, hooks.SYMBOLS)
        build_id = file.build_id
    except elf.NotElf:
        return None
    reason = ""
    if not hooks.sufficient(offsets):
        name = Path(path).name
        reason = next((why for pattern, why in _PROMISES if pattern.match(name)), "")
        if not reason:
            return None
    functions = tuple(Function(name, offset) for name, offset in offsets.items())
    return _Target(path, fd, facts.st_dev, facts.st_ino, _build(facts), build_id, functions, reason=reason)


def _open_mapped(root: Path, pid: int, mapping: FileMapping) -> int | None:
    """Opens the very file that is mapped, whatever its path means by now; None where it cannot be had."""
    process = root / str(pid)
    path = mapping.path.removesuffix(_SEEN_DELETED)
    candidates = (
        process / "map_files" / f"{mapping.start:x}-{mapping.end:x}",
        Path(f"{process}/root{path}"),
        # The process is gone already, but others will use the file.
        Path(path),
    )
    for number, candidate in enumerate(candidates):
        try:
            # Not opened for reading before it is known to be a file: opening a device can do things.
            handle = os.open(candidate, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            facts = os.fstat(handle)
            same = number == 0 or facts.st_ino == mapping.inode
            if same and stat.S_ISREG(facts.st_mode):
                return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        finally:
            os.close(handle)
    return None
