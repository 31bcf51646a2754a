"""Hears at once of an attached file that is written over.

The kernel knows a probe by its place in the file, and keeps the instruction that it replaced. A program whose
file has other code by now would run that instruction in the middle of its own, and be wrong or dead: the
probes have to go when the first byte is written, and not when somebody looks the next time. What is written
through a shared mapping is not told of: the next process that maps the file, or the reconcile, finds it.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import struct

_log = logging.getLogger(__name__)

_IN_MODIFY = 0x2
_IN_Q_OVERFLOW = 0x4000
#: struct inotify_event: watch, mask, cookie, and the size of a name, which only folders have.
_EVENT = struct.Struct("=iIII")
_READ_BYTES = 1 << 16


class ChangeWatch:
    """Watches files for writes. Where the kernel has no room for a watch, that is in the log, once."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd = int(self._libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK))
        self._said = False
        if self.fd < 0:
            self._complain()

    def watch(self, path: str) -> int:
        """The number of the watch; -1 where there is none."""
        if self.fd < 0:
            return -1
        number = int(self._libc.inotify_add_watch(self.fd, os.fsencode(path), _IN_MODIFY))
        if number < 0:
            self._complain()
        return number

    def unwatch(self, number: int) -> None:
        if number >= 0:
            self._libc.inotify_rm_watch(self.fd, number)

    def changed(self) -> set[int] | None:
        """Watches whose files were written since the last time; None: any may have been."""
        numbers: set[int] = set()
        try:
            while self.fd >= 0:
                raw = os.read(self.fd, _READ_BYTES)
                for number, mask, _cookie, _size in _EVENT.iter_unpack(raw):
                    if mask & _IN_Q_OVERFLOW:
                        return None
                    if mask & _IN_MODIFY:
                        numbers.add(number)
        except BlockingIOError:
            pass
        return numbers

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def _complain(self) -> None:
        if not self._said:
            self._said = True
            _log.warning(
                "files that are written over are noticed only by looking (inotify: %s)",
                errno.errorcode.get(ctypes.get_errno(), "?"),
            )
