"""Holding processes that run code of a file nobody has examined, until the probes are on it. Opt-in.

Without it a process that starts, speaks TLS and ends within some ten milliseconds is over before its
never-seen library is probed; the next one with the same file is captured in any case. The price is the time
of one examination at the first start of a file, and that the process is stopped and continued by signals,
which its parent can see. Processes on a terminal (a shell would take them for suspended), with several
threads, under a debugger, and the sensor's own children are never held; without CAP_KILL, nor are those of
other users.
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from typing import IO

from mmsensor.capture.discovery.files import Counter, FileKey, FileWatch
from mmsensor.capture.discovery.holding import HOLD_SETTINGS, HoldMap, LetGo
from mmsensor.capture.kernel import privileges
from mmsensor.capture.options import CaptureOptions, HoldStatistics

_log = logging.getLogger(__name__)

_NOT_HELD = {
    "on_a_terminal": Counter.NOT_HELD_TERMINAL,
    "several_threads": Counter.NOT_HELD_THREADS,
    "traced": Counter.NOT_HELD_TRACED,
    "limit": Counter.NOT_HELD_LIMIT,
    "no_keeper": Counter.NOT_HELD_ALONE,
}
_KEEPER_PATIENCE_S = 20.0


class Holds:
    """Holds from construction on. `release`, `ping` and `close` belong to one thread."""

    #: The keeper wants to hear from us this often.
    PING_S = 0.25

    def __init__(self, files: FileWatch, options: CaptureOptions) -> None:
        self._files = files
        self._options = options
        self._map = HoldMap(files.map_fd("holds"))
        self._settings = files.map("hold_settings", 4, HOLD_SETTINGS.size)
        self._let_go = self._left_stopped = self._total_ns = self._longest_ns = 0
        reader, self._pipe = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._pipe, False)
        try:
            self._keeper = self._start_keeper(reader)
            self._await_keeper()
        except BaseException:
            os.close(self._pipe)
            raise
        finally:
            os.close(reader)
        self._set(options.hold_min_bytes)

    def _start_keeper(self, reader: int) -> subprocess.Popen[bytes]:
        maps = [self._files.map_fd(name) for name in ("holds", "hold_allowed_until", "discover_counters")]
        arguments = [*(reader, *maps), int(self._options.hold_s * 1000)]
        return subprocess.Popen(
            [sys.executable, "-m", "mmsensor.capture.discovery.keeper", *map(str, arguments)],
            pass_fds=[reader, *maps],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            start_new_session=True,  # what a terminal sends to the sensor does not reach it
        )

    def _await_keeper(self) -> None:
        said = self._keeper.stdout
        has_started = said is not None and _says_something(said, _KEEPER_PATIENCE_S)
        if said:
            said.close()
        if not has_started:
            self._keeper.kill()
            self._keeper.wait()
            raise OSError("the keeper of held processes does not start")

    def _set(self, min_bytes: int) -> None:
        # A process that we may not continue must not be stopped.
        everybody = "CAP_KILL" in privileges.held()
        limit = self._options.holds_per_second
        settings = HOLD_SETTINGS.pack(min_bytes, limit, os.getpid(), os.getuid(), everybody)
        self._settings.put(bytes(4), settings)

    def ping(self) -> None:
        """Tells the keeper that we are at work. Without a keeper the kernel holds nobody."""
        with suppress(BlockingIOError, BrokenPipeError):
            os.write(self._pipe, b"\0")

    def release(self) -> None:
        """Lets go of everyone whose file is examined by now."""
        for held in self._map:
            if self._files.is_done(FileKey(*held.file)):
                outcome = self._map.let_go(self._options.proc, held)
                if outcome in (LetGo.DONE_BY_THE_OTHER, LetGo.NOT_YET):
                    continue
                waited = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - held.since_ns
                self._let_go += 1
                self._left_stopped += outcome is LetGo.LEFT_STOPPED
                self._total_ns += waited
                self._longest_ns = max(self._longest_ns, waited)

    def statistics(self) -> HoldStatistics:
        return HoldStatistics(
            held=self._files.count(Counter.HELD),
            let_go=self._let_go,
            too_long=self._files.count(Counter.HELD_TOO_LONG),
            left_stopped=self._left_stopped,
            not_held={name: self._files.count(counter) for name, counter in _NOT_HELD.items()},
            total_s=self._total_ns / 1e9,
            longest_s=self._longest_ns / 1e9,
            keeper_alive=self._keeper.poll() is None,
        )

    def close(self) -> None:
        """Holds nobody any more, and lets everyone go."""
        self._set(0)
        for held in self._map:
            self._map.let_go(self._options.proc, held)
        os.close(self._pipe)
        try:
            self._keeper.wait(_KEEPER_PATIENCE_S)
        except subprocess.TimeoutExpired:
            _log.exception("the keeper of held processes does not end")
            self._keeper.kill()
            self._keeper.wait()


def _says_something(pipe: IO[bytes], within_s: float) -> bool:
    """Whether a line comes. Not by select(): a sensor with very many files to probe has descriptors beyond
    what that can watch."""
    watch = select.poll()
    watch.register(pipe, select.POLLIN)
    return bool(watch.poll(within_s * 1000) and pipe.readline())
