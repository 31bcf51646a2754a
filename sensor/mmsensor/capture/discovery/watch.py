"""Keeps the targets in step with what runs: hints at once, the whole of /proc now and then.

A thread of its own, so that attaching (milliseconds, and more where many processes map a file) never
keeps the ring waiting. The first reconcile runs in the caller, so that `start` returns with everything
attached that is there.

Hints come from the best source the kernel has: new files alone (`FileWatch`), every mapping (`MappingWatch`),
or nothing but looking often. None of them is trusted to be complete; what they lost is looked for at once.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time
from collections import deque

from mmsensor.capture.discovery.files import FileWatch
from mmsensor.capture.discovery.holds import Holds
from mmsensor.capture.discovery.mappings import MappingWatch
from mmsensor.capture.discovery.targets import Probes, Targets
from mmsensor.capture.errors import CaptureUnavailable
from mmsensor.capture.options import CaptureOptions, HintSource, HoldStatistics

_log = logging.getLogger(__name__)

#: How often /proc is looked through where the kernel gives no hints: then it is the only way.
_WITHOUT_HINTS_S = 2.0
#: A program start maps some ten files in a row: one look at all of them, not ten.
_GATHER_S = 0.001


class Discovery:
    """Owns the targets: `targets` is complete when `start` returns."""

    def __init__(self, options: CaptureOptions, probes: Probes) -> None:
        self._options = options
        self._files = _file_watch() if options.hint_source in (None, HintSource.KERNEL) else None
        ask_perf = self._files is None and options.hint_source is not HintSource.PROC
        self._mappings = _mapping_watch() if ask_perf else None
        self._holds: Holds | None = None
        self._not_holding = ""
        self.targets = Targets(options, probes, time.monotonic, self._files)
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)

    @property
    def hints(self) -> HintSource:
        if self._files:
            return HintSource.KERNEL
        return HintSource.PERF if self._mappings else HintSource.PROC

    @property
    def hints_lost(self) -> int:
        watch = self._files or self._mappings
        return watch.lost if watch else 0

    def holds(self) -> HoldStatistics | None:
        return self._holds.statistics() if self._holds else None

    @property
    def not_holding(self) -> str:
        """Why nobody is held though that is wished for; "" where it is as wished."""
        return self._not_holding

    def start(self) -> None:
        # The watch is on already: what is mapped during the reconcile is seen by one or the other.
        self.targets.reconcile()
        if self._options.hold_first_exec:
            self._start_holds()
        self._thread.start()

    def _start_holds(self) -> None:
        """From now on, when all that runs has been examined: nobody waits for what is known."""
        try:
            if self._files is None:
                raise OSError("the kernel does not tell of new files (that needs Linux 6.1)")
            self._holds = Holds(self._files, self._options)
        except OSError as error:
            self._not_holding = str(error)
            _log.warning("no process is held: %s", error)

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._stop_read, select.POLLIN)
        for fd in self._hint_fds():
            poller.register(fd, select.POLLIN)
        if self.targets.changes_fd >= 0:
            poller.register(self.targets.changes_fd, select.POLLIN)
        every = self._options.reconcile_every_s if self._hint_fds() else _WITHOUT_HINTS_S
        due = time.monotonic() + every
        retry_s: float | None = None
        lost = self.hints_lost
        while True:
            ready = poller.poll(self._sleep_s(due, retry_s) * 1000)
            if any(fd == self._stop_read for fd, _ in ready):
                return
            try:
                self.targets.drop_changed()
                self._take_hints()
                if time.monotonic() >= due or self.hints_lost > lost:
                    lost = self.hints_lost
                    due = time.monotonic() + every
                    self.targets.reconcile()
                retry_s = self.targets.retry()
                if self._holds:
                    self._holds.release()
                    self._holds.ping()
            except OSError:
                # Out of descriptors or memory: that passes, and the next reconcile makes it good.
                _log.exception("looking for TLS libraries failed; it is tried again")
                due = min(due, time.monotonic() + _WITHOUT_HINTS_S)

    def _hint_fds(self) -> list[int]:
        if self._files:
            return [self._files.fd]
        return self._mappings.fds if self._mappings else []

    def _sleep_s(self, due: float, retry_s: float | None) -> float:
        waits = [due - time.monotonic()]
        if retry_s is not None:
            waits.append(retry_s)
        if self._holds:
            waits.append(Holds.PING_S)
        return max(0.0, min(waits))

    def _take_hints(self) -> None:
        if self._files:
            self._take_new_files(self._files)
        elif self._mappings:
            time.sleep(_GATHER_S)
            for pid, mapping in self._mappings.read():
                if mapping.inode:
                    self.targets.examine(pid, mapping)

    def _take_new_files(self, files: FileWatch) -> None:
        news = deque(files.read())
        try:
            while news:
                self.targets.examine_new(news[0], files)
                news.popleft()
                if self._holds:
                    self._holds.release()
        finally:
            # Not answered: whoever maps one next makes the kernel tell of it again.
            for new in news:
                files.forget(new.key)

    def close(self) -> None:
        if self._thread.ident is not None:
            os.write(self._stop_write, b"\0")
            self._thread.join()
        os.close(self._stop_read)
        os.close(self._stop_write)
        if self._holds:
            self._holds.close()
        self.targets.close()
        for watch in (self._files, self._mappings):
            if watch:
                watch.close()


def _file_watch() -> FileWatch | None:
    try:
        return FileWatch()
    except (OSError, CaptureUnavailable) as error:
        _log.info("the kernel does not tell of new files alone: %s", error)
        return None


def _mapping_watch() -> MappingWatch | None:
    try:
        return MappingWatch()
    except OSError as error:
        _log.warning("new mappings are found only by looking every %.0f s: %s", _WITHOUT_HINTS_S, error)
        return None
