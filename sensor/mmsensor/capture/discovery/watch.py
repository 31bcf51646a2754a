"""Keeps the targets in step with what runs: hints at once, the whole of /proc now and then.

A thread of its own, so that attaching (milliseconds, and more where many processes map a file) never
keeps the ring waiting. The first reconcile runs in the caller, so that `start` returns with everything
attached that is there.
"""

from __future__ import annotations

import logging
import os
import select
import threading
import time

from mmsensor.capture.discovery.mappings import MappingWatch
from mmsensor.capture.discovery.targets import Targets
from mmsensor.capture.options import CaptureOptions

_log = logging.getLogger(__name__)

#: How often /proc is looked through where the kernel gives no hints: then it is the only way.
_WITHOUT_HINTS_S = 2.0
_GATHER_S = 0.001


class Discovery:
    def __init__(self, options: CaptureOptions, targets: Targets) -> None:
        self._options = options
        self._targets = targets
        self._watch: MappingWatch | None = None
        self._stop_read, self._stop_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="discovery", daemon=True)

    @property
    def hints_lost(self) -> int:
        return self._watch.lost if self._watch else 0

    def start(self) -> None:
        # The watch first: what is mapped during the reconcile is seen by one or the other.
        try:
            self._watch = MappingWatch()
        except OSError as error:
            _log.warning("new mappings are found only by looking every %.0f s: %s", _WITHOUT_HINTS_S, error)
        self._targets.reconcile()
        self._thread.start()

    def _run(self) -> None:
        poller = select.poll()
        poller.register(self._stop_read, select.POLLIN)
        for fd in self._watch.fds if self._watch else ():
            poller.register(fd, select.POLLIN)
        every = self._options.reconcile_every_s if self._watch else _WITHOUT_HINTS_S
        due = time.monotonic() + every
        lost = 0
        while True:
            ready = poller.poll(max(0.0, due - time.monotonic()) * 1000)
            if any(fd == self._stop_read for fd, _ in ready):
                return
            # A program start maps some ten files in a row: one look at all of them, not ten.
            time.sleep(_GATHER_S)
            try:
                self._take_hints()
                if time.monotonic() >= due or self.hints_lost > lost:
                    lost = self.hints_lost
                    due = time.monotonic() + every
                    self._targets.reconcile()
            except OSError:
                # Out of descriptors or memory: that passes, and the next reconcile makes it good.
                _log.exception("looking for TLS libraries failed; it is tried again")
                due = min(due, time.monotonic() + _WITHOUT_HINTS_S)

    def _take_hints(self) -> None:
        for pid, mapping in self._watch.read() if self._watch else ():
            if mapping.inode:
                self._targets.examine(pid, mapping)

    def close(self) -> None:
        os.write(self._stop_write, b"\0")
        if self._thread.ident is not None:
            self._thread.join()
        if self._watch:
            self._watch.close()
        os.close(self._stop_read)
        os.close(self._stop_write)
