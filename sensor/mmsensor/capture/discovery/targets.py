"""The files that carry TLS functions: found, attached, counted, let go.

A target is a file and not a path or a process: the real one, below any overlay, as far as the kernel tells.
The probes sit on its inode, so every process that maps it later is captured from its first byte, in whatever
container and under whatever name, and once however many mounts lead to it. The file is held open while it is
attached: its inode number cannot become another file's meanwhile.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from queue import LifoQueue
from typing import NamedTuple, Protocol

from mmsensor.capture import hooks
from mmsensor.capture.discovery import proc
from mmsensor.capture.discovery.changes import ChangeWatch
from mmsensor.capture.discovery.files import FileKey, FileWatch, NewFile
from mmsensor.capture.discovery.proc import FileMapping
from mmsensor.capture.discovery.used import UseWatch
from mmsensor.capture.errors import AttachFailed
from mmsensor.capture.functions import Confidence, Function, Located, NotCovered
from mmsensor.capture.kernel.abi import TARGETS
from mmsensor.capture.kernel.probes import detach
from mmsensor.capture.ladder import elf
from mmsensor.capture.ladder.climb import Ladder, Search
from mmsensor.capture.ladder.placement import place
from mmsensor.capture.ladder.search import FAILED
from mmsensor.capture.options import CaptureOptions, TargetStatus


class Probes(Protocol):
    """What is needed of `mmsensor.capture.kernel.probes.Kernel`."""

    def attach(self, path: str, functions: Sequence[Function], target: int) -> list[int]:
        """Puts the probes on these functions of a file, which gets an index; returns the descriptors that
        hold them. Raises AttachFailed."""

    def last_fired(self, target: int) -> int: ...

    def forget_fired(self, target: int) -> None: ...


_log = logging.getLogger(__name__)

#: How long at most an unused file stays attached that was deleted or is not on the root file system: probes
#: keep a file's space and its mount in use.
_SHORT_LINGER_S = 60.0
_REMEMBERED_FILES = 65536
_SEEN_DELETED = " (deleted)"
#: A refused file is tried again after this long, then after twice as long each time, up to the second.
_FIRST_RETRY_S, _LAST_RETRY_S = 2.0, 600.0

#: Every file takes a descriptor, and some more for its probes: who maps thousands must not take the last ones
#: from the rest of the sensor. Beyond these shares of the limit, no file is attached, and none is kept.
_ATTACH_BELOW, _KEEP_BELOW = 0.7, 0.8

_MappingKey = tuple[int, int, int, int, str]


class _Identity(NamedTuple):
    """Which file: the real one where the kernel tells, else as stat has it, with generation 0."""

    device: int
    inode: int
    generation: int


_NOBODY = _Identity(0, 0, 0)


class _Opened(NamedTuple):
    fd: int
    path: str  # as its process sees it


@dataclass(slots=True)
class _Target:
    path: str
    fd: int  # held open while it is known
    device: int
    inode: int
    build: tuple[int, int]  # size, mtime_ns: whether the file is still what was read
    build_id: str
    functions: tuple[Function, ...] = ()
    strategy: str = ""
    confidence: Confidence | None = None
    why: str = ""
    search: Search | None = None  # that its turn has not come for yet
    index: int = 0  # by which the kernel knows it; 0: none was free
    reason: str = ""
    links: list[int] = field(default_factory=list)
    watch: int = -1  # for writes to it, while it is attached
    processes: set[int] = field(default_factory=set)
    unused_since: float | None = None
    identity: _Identity = _NOBODY
    key: FileKey | None = None
    failures: int = 0
    retry_at: float | None = None
    attached_at: float = 0.0
    doubt: str = ""

    def status(self, now: float) -> TargetStatus:
        reason = self.reason
        if self.retry_at is not None:
            reason += f"; next try in {max(0.0, self.retry_at - now):.0f} s"
        return TargetStatus(
            self.path,
            self.device,
            self.inode,
            self.build_id,
            tuple(function.name for function in self.functions),
            bool(self.links),
            reason,
            len(self.processes),
            self.doubt,
            self.strategy,
            self.confidence.name.lower() if self.confidence else "",
            self.why,
        )

    def learn(self, finding: Located | NotCovered | Search) -> None:
        """Takes over what the ladder found."""
        self.search = None
        if isinstance(finding, Located):
            self.functions, self.strategy, self.confidence = (
                finding.functions,
                finding.strategy,
                finding.confidence,
            )
            self.reason, self.why = "", finding.why
        elif isinstance(finding, NotCovered):
            self.reason, self.why = finding.reason, finding.why
        else:
            self.search = finding
            self.reason, self.why = "being_searched", "TLS is linked in without names; its code is searched"

    def close(self) -> None:
        detach(self.links)
        self.links = []
        os.close(self.fd)


class Targets:
    """The registry. `monotonic` is seconds on any steady clock; without `files` a file is what stat says.

    Safe to use from several threads; `statuses` never waits for an examination. What takes seconds, a search
    in a stripped program's code, has a thread of its own, and the target is attached when it is done.
    """

    def __init__(
        self,
        options: CaptureOptions,
        probes: Probes,
        monotonic: Callable[[], float],
        files: FileWatch | None = None,
    ) -> None:
        self._options = options
        self._probes = probes
        self._now = monotonic
        self._files = files
        self._ladder = Ladder(options.findings)
        self._searches: LifoQueue[_Target | None] = LifoQueue()  # the newest first: it is in use now
        self._searcher = threading.Thread(target=self._search_all, name="ladder", daemon=True)
        self._searcher.start()
        self._changes = ChangeWatch()
        self._said_full = False
        self._uses = UseWatch(options.proc, probes.last_fired, monotonic)
        self._root_device = Path("/").stat().st_dev
        self._at_work = threading.Lock()
        self._lock = threading.Lock()  # for what `statuses` reads; taken inside the other one
        self._targets: dict[_Identity, _Target] = {}
        self._free_indices = list(range(TARGETS - 1, 0, -1))
        # What each mapping turned out to be: the target, or None for a file that is of no interest.
        self._known: OrderedDict[_MappingKey, _Identity | None] = OrderedDict()

    def examine(self, pid: int, mapping: FileMapping) -> None:
        """Looks at one mapping of a process, and attaches to its file where that is worth it."""
        with self._at_work:
            _use(self._target_of(pid, mapping), pid)

    def examine_new(self, new: NewFile, files: FileWatch) -> None:
        """The same for a file that the kernel says nobody has looked at; tells it what became of that."""
        with self._at_work:
            opened = _open_mapped(
                self._options.proc, new.pid, new.mapping, lambda fd: files.identify(fd) == new.key
            )
            if opened is None:
                files.forget(new.key)
                return
            target = self._examine_file(opened, new.key)
            if target is not None:
                # What a mapping of this path used to be does not hold any more.
                for key in [
                    key for key, known in self._known.items() if known is None and key[-1] == opened.path
                ]:
                    del self._known[key]
            _use(target, new.pid)

    @property
    def changes_fd(self) -> int:
        """Readable when `drop_changed` has something to do; -1 where that is never told."""
        return self._changes.fd

    def drop_changed(self) -> None:
        """Takes the probes off files that are being written over; who maps one next has it examined anew."""
        with self._at_work:
            numbers = self._changes.changed()
            for target in list(self._targets.values()):
                if target.watch >= 0 and (numbers is None or target.watch in numbers):
                    self._drop(target)

    def reconcile(self) -> None:
        """Compares everything attached with everything mapped: finds what hints missed, counts processes,
        reads changed files again, lets go of what nobody uses."""
        running = self._running()
        with self._at_work:
            users = self._users(running)
            unused = []
            for identity, target in list(self._targets.items()):
                target.processes = users.get(identity, set())
                if self._review(target):
                    unused.append(target)
            self._let_go(unused)
            self._look_for_silence()

    def retry(self) -> float | None:
        """Tries refused files again whose time has come. Returns the seconds to the next one's, if any."""
        with self._at_work:
            for target in list(self._targets.values()):
                # One that was tried before may have cost another its place.
                if not self._is_known(target) or target.retry_at is None or self._now() < target.retry_at:
                    continue
                if target.search:
                    target.retry_at = None
                    self._searches.put(target)
                else:
                    self._try_attach(target)
            waiting = [target.retry_at for target in self._targets.values() if target.retry_at is not None]
            return max(0.0, min(waiting) - self._now()) if waiting else None

    def statuses(self) -> list[TargetStatus]:
        now = self._now()
        with self._lock:
            return sorted(
                (target.status(now) for target in self._targets.values()), key=lambda each: each.path
            )

    def close(self) -> None:
        self._ladder.close()
        self._searches.put(None)
        self._searcher.join()
        with self._at_work, self._lock:
            detach([link for target in self._targets.values() for link in target.links])
            for target in self._targets.values():
                target.links = []
                target.close()
            self._targets.clear()
            self._known.clear()
            self._changes.close()

    # -- at work -----------------------------------------------------------------------------------

    def _target_of(self, pid: int, mapping: FileMapping) -> _Target | None:
        key = (mapping.major, mapping.minor, mapping.inode, mapping.generation, mapping.path)
        if key in self._known:
            self._known.move_to_end(key)
            identity = self._known[key]
            return self._targets.get(identity) if identity else None
        opened = _open_mapped(
            self._options.proc, pid, mapping, lambda fd: os.fstat(fd).st_ino == mapping.inode
        )
        if opened is None:
            return None  # not remembered: the next process may let us look
        target = self._examine_file(opened, self._files.identify(opened.fd) if self._files else None)
        self._known[key] = target.identity if target else None
        if len(self._known) > _REMEMBERED_FILES:
            self._known.popitem(last=False)
        return target

    def _examine_file(self, opened: _Opened, key: FileKey | None) -> _Target | None:
        """Takes over the descriptor: kept in a new target, closed otherwise."""
        target: _Target | None = None
        try:
            facts = os.fstat(opened.fd)
            if key is not None:
                identity = _Identity(key.device, key.inode, key.generation)
            else:
                identity = _Identity(facts.st_dev, facts.st_ino, 0)
            known = self._targets.get(identity)
            if known is not None and known.build != _build(facts):
                self._drop(known)
                known = None
            if known is None:
                target = self._read_target(opened.fd, facts, opened.path)
            if target is not None and not self._has_room(_KEEP_BELOW, target):
                target = None
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        except OSError:
            if key is not None and self._files is not None:
                self._files.forget(key)
            return None
        finally:
            if target is None:
                os.close(opened.fd)
        if target is not None:
            target.identity, target.key = identity, key
            target.index = self._free_indices.pop() if self._free_indices else 0
            self._try_attach(target)
            with self._lock:
                self._targets[identity] = target
            if target.search:
                self._searches.put(target)
        if key is not None and self._files is not None:
            self._files.done(key)
        return known or target

    def _read_target(self, fd: int, facts: os.stat_result, path: str) -> _Target | None:
        """None where the file has nothing to do with TLS. Raises OSError."""
        try:
            file = elf.ElfFile(fd)
            finding = self._ladder.look(file, Path(path).name)
            build_id = file.build_id
        except elf.NotElf:
            return None
        if finding is None:
            return None
        if any(fnmatchcase(path, pattern) for pattern in self._options.exclude):
            finding = NotCovered("excluded", "capture.exclude names it")
        target = _Target(path, fd, facts.st_dev, facts.st_ino, _build(facts), build_id)
        target.learn(finding)
        return target

    def _try_attach(self, target: _Target) -> None:
        if not hooks.sufficient([function.name for function in target.functions]):
            return
        # The open file and not its path: what was read is what is probed.
        path = f"/proc/self/fd/{target.fd}"
        try:
            target.watch = self._changes.watch(path)
            if _build(os.fstat(target.fd)) != target.build:
                raise AttachFailed(
                    "the file was written over while it was examined", "see `mmsensor targets`"
                )
            if not self._has_room(_ATTACH_BELOW, target):
                raise AttachFailed("too few file descriptors are left", "raise the limit of open files")
            target.links = self._probes.attach(path, self._placed(target), target.index)
        except AttachFailed as error:
            target.reason = f"attach_failed: {error.reason}"
            self._try_later(target)
            return
        target.reason, target.retry_at, target.failures = "", None, 0
        target.attached_at = self._now()

    def _has_room(self, share: float, wanted: _Target) -> bool:
        """Whether less than this share of descriptors is in use. Unused files go where that helps, but for
        the wanted one, those first that nobody used for longest."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] * share
        unused = [
            each for each in self._targets.values() if each.unused_since is not None and each is not wanted
        ]
        unused.sort(key=lambda each: each.unused_since or 0.0, reverse=True)
        while _open_descriptors() >= limit and unused:
            self._drop(unused.pop())
        if _open_descriptors() < limit:
            return True
        if not self._said_full:
            self._said_full = True
            _log.warning(
                "too few file descriptors are left to attach more files: raise the limit of open files"
            )
        return False

    def _try_later(self, target: _Target) -> None:
        target.retry_at = self._now() + min(_LAST_RETRY_S, _FIRST_RETRY_S * 2**target.failures)
        target.failures += 1

    def _placed(self, target: _Target) -> tuple[Function, ...]:
        if not self._options.place_probes:
            return target.functions
        try:
            return place(elf.ElfFile(target.fd), target.functions).functions
        except (elf.NotElf, OSError) as error:
            raise AttachFailed(
                f"the file cannot be read any more: {error}", "see `mmsensor targets`"
            ) from error

    def _running(self) -> dict[int, list[FileMapping]]:
        root = self._options.proc
        return {pid: proc.executable_mappings(root, pid) for pid in proc.pids(root)}

    def _users(self, running: dict[int, list[FileMapping]]) -> dict[_Identity, set[int]]:
        """Who maps which target; what nobody has examined is examined on the way."""
        users: dict[_Identity, set[int]] = {}
        for pid, mappings in running.items():
            for mapping in mappings:
                target = self._target_of(pid, mapping)
                if target:
                    users.setdefault(target.identity, set()).add(pid)
        return users

    def _review(self, target: _Target) -> bool:
        """Whether nobody has used the file for so long that it may go."""
        facts = os.fstat(target.fd)
        if _build(facts) != target.build:
            # Written over in place: the offsets may point anywhere now.
            self._drop(target)
            return False
        if target.processes:
            target.unused_since = None
            return False
        now = self._now()
        if target.unused_since is None:
            target.unused_since = now
        linger = self._options.linger_s
        if not facts.st_nlink or facts.st_dev != self._root_device:
            linger = min(_SHORT_LINGER_S, linger)
        return now - target.unused_since >= linger

    def _let_go(self, unused: list[_Target]) -> None:
        """From the first loop on the kernel tells of whoever maps one of the files; who has mapped it since
        the last look is found by looking again. Between the two nobody gets through uncaptured."""
        if not unused:
            return
        for target in unused:
            if target.key is not None and self._files is not None:
                self._files.forget(target.key)
        users = self._users(self._running())
        for target in unused:
            if not self._is_known(target):
                continue
            if target.identity not in users:
                self._drop(target)
                continue
            target.processes, target.unused_since = users[target.identity], None
            if target.key is not None and self._files is not None:
                self._files.done(target.key)

    def _look_for_silence(self) -> None:
        """Finds targets that are used and never fire."""
        if not self._uses.due():
            return
        for target in self._targets.values():
            if target.links and target.index:
                target.doubt = self._uses.doubt(
                    target.index, target.attached_at, target.processes, partial(self._others, target)
                )

    def _others(self, target: _Target, pid: int) -> list[str]:
        return [each.path for each in self._targets.values() if each is not target and pid in each.processes]

    def _drop(self, target: _Target) -> None:
        with self._lock:
            del self._targets[target.identity]
        self._changes.unwatch(target.watch)
        target.close()
        if target.index:
            self._probes.forget_fired(target.index)
            self._uses.forget(target.index)
            self._free_indices.append(target.index)
        for key in [key for key, known in self._known.items() if known == target.identity]:
            del self._known[key]
        if target.key is not None and self._files is not None:
            self._files.forget(target.key)

    # -- searching, in a thread of its own -------------------------------------------------------------

    def _search_all(self) -> None:
        while (target := self._searches.get()) is not None:
            with self._at_work:
                if not self._is_known(target) or target.search is None:
                    continue
                strategies = target.search.strategies
                try:
                    fd = os.dup(target.fd)
                except OSError as error:
                    self._end_search(target, _not_searched(error))
                    continue
            try:
                finding = self._ladder.search(elf.ElfFile(fd), Path(target.path).name, strategies)
            except (elf.NotElf, OSError) as error:
                finding = _not_searched(error)
            finally:
                os.close(fd)
            with self._at_work:
                if self._is_known(target):
                    self._end_search(target, finding)

    def _is_known(self, target: _Target) -> bool:
        return self._targets.get(target.identity) is target

    def _end_search(self, target: _Target, finding: Located | NotCovered | None) -> None:
        if finding is None:
            same = [key for key, known in self._known.items() if known == target.identity]
            self._drop(target)
            self._known.update(dict.fromkeys(same))
            if target.key is not None and self._files is not None:
                self._files.done(target.key)
            return
        if isinstance(finding, NotCovered) and finding.reason == FAILED:
            with self._lock:
                target.reason, target.why = finding.reason, finding.why
            self._try_later(target)
            return
        target.retry_at, target.failures = None, 0
        with self._lock:
            target.learn(finding)
        self._try_attach(target)


def _use(target: _Target | None, pid: int) -> None:
    if target is not None:
        target.processes.add(pid)
        target.unused_since = None


def _open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _not_searched(error: Exception) -> NotCovered:
    return NotCovered(FAILED, f"its code could not be searched: {error}")


def _build(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_size, facts.st_mtime_ns


def _open_mapped(root: Path, pid: int, mapping: FileMapping, is_it: Callable[[int], bool]) -> _Opened | None:
    """Opens the very file that is mapped, whatever its path means by now; None where it cannot be had.

    `is_it` tells whether a descriptor that was opened by path is that file.
    """
    mapped = root / str(pid) / "map_files" / f"{mapping.start:x}-{mapping.end:x}"
    path = mapping.path.removesuffix(_SEEN_DELETED)
    with suppress(OSError):
        path = str(mapped.readlink()).removesuffix(_SEEN_DELETED)
    # Without a process that still maps it, its file may be where the path says: others will use it.
    for candidate in (
        mapped,
        Path(f"{root}/{pid}/root{path}"),
        Path(mapping.path.removesuffix(_SEEN_DELETED)),
    ):
        fd = _open_regular(candidate)
        if fd is None:
            continue
        with suppress(OSError):
            if candidate is mapped or is_it(fd):
                return _Opened(fd, path)
        os.close(fd)
    return None


def _open_regular(path: Path) -> int | None:
    """Opens a regular file for reading, and nothing else: opening a device can do things."""
    try:
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            # Its owner may have a lease on it, for which an open would wait the better part of a minute.
            return os.open(f"/proc/self/fd/{handle}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        pass
    finally:
        os.close(handle)
    return None
