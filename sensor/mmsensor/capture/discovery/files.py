"""Hears from the kernel of every file that is mapped executable and that nobody has examined yet.

bpf/discover.bpf.c keeps the list of the examined ones, so that a program that starts for the thousandth time
costs the sensor nothing. It also knows what no path and no stat tells: which real file lies below an overlay,
and that is the file uprobes sit on.

Needs Linux 6.1; where that is missing, or the answers are wrong, construction fails and `MappingWatch`
serves.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from enum import IntEnum
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from mmsensor.capture.discovery.proc import FileMapping
from mmsensor.capture.kernel import syscalls
from mmsensor.capture.kernel.libbpf import BpfObject, Ring

#: struct mm_file_key: inode, changed_ns (u64), device, generation (u32).
FILE_KEY = struct.Struct("=2Q2I")
#: struct mm_new_file without its path: the file key; start, end, size (u64), pid, path_size (u32).
NEW_FILE = struct.Struct("=2Q2I3Q2I")
_MINOR_BITS = 20


class Examined(IntEnum):
    """Values of the map `examined`."""

    PENDING = 1
    DONE = 2


class Counter(IntEnum):
    """Indices of the map `discover_counters`; bpf/discover.h says what each means."""

    NEW_FILES = 0
    NEW_FILES_LOST = 1
    HELD = 2
    NOT_HELD_TERMINAL = 3
    NOT_HELD_THREADS = 4
    NOT_HELD_TRACED = 5
    NOT_HELD_LIMIT = 6
    NOT_HELD_ALONE = 7
    HELD_TOO_LONG = 8


class FileKey(NamedTuple):
    """The real file as the kernel knows it. Written over, or another file with its number, it has another."""

    inode: int
    changed_ns: int
    device: int
    generation: int


class NewFile(NamedTuple):
    """Somebody maps a file that is not examined. The mapping's path is that of the real file, in the mount
    namespace of the process, and empty where it is very long."""

    pid: int
    key: FileKey
    mapping: FileMapping


class FileWatch:
    """The loaded program. Raises OSError or CaptureUnavailable where the kernel does not allow or know it.

    `read` belongs to one thread; the rest may be called from any.
    """

    def __init__(self) -> None:
        path = Path(str(resources.files("mmsensor._bpf"))) / "discover.bpf.o"
        self._object = BpfObject(path, map_entries={})
        self._link: int | None = None
        try:
            self._examined = self.map("examined", FILE_KEY.size, 4)
            self._questions = self.map("questions", 4, FILE_KEY.size)
            self._counters = self.map("discover_counters", 4, 8)
            self._ring = Ring(self._object.map_fd("new_files"))
            self._link = syscalls.link_raw_tracepoint(self._object.program_fd("mapped"), "ma_write")
            self._prove()
        except BaseException:
            self.close()
            raise

    def _prove(self) -> None:
        """Asks for a file whose answer is known: the program reads kernel structures that may have moved."""
        own = os.open("/proc/self/exe", os.O_RDONLY | os.O_CLOEXEC)
        try:
            key = self.identify(own)
            # Not the inode number: below an overlay it is another one.
            if key is None or not key.inode or key.changed_ns != os.fstat(own).st_ctime_ns:
                raise OSError("the kernel's answers about its files make no sense")
        finally:
            os.close(own)

    def map_fd(self, name: str) -> int:
        return self._object.map_fd(name)

    def map(self, name: str, key_size: int, value_size: int) -> syscalls.Map:
        return syscalls.Map(self.map_fd(name), key_size, value_size)

    @property
    def fd(self) -> int:
        """Readable when there is something to `read`."""
        return self._ring.fd

    @property
    def lost(self) -> int:
        """New files there was no room to tell of: /proc has them."""
        return self.count(Counter.NEW_FILES_LOST)

    def count(self, counter: Counter) -> int:
        return int.from_bytes(self._counters.get(int(counter).to_bytes(4, "little")) or b"", "little")

    def read(self) -> Iterator[NewFile]:
        """What is new since the last time. Each is answered with `done` or `forget`."""
        for raw in self._ring.drain():
            yield _new_file(raw)

    def identify(self, fd: int) -> FileKey | None:
        """The real file behind a descriptor; None where it cannot be mapped executable by anyone."""
        thread = threading.get_native_id().to_bytes(4, "little")
        self._questions.put(thread, bytes(FILE_KEY.size))
        try:
            with suppress(OSError, ValueError):
                mmap.mmap(fd, 1, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
            answer = self._questions.get(thread)
        finally:
            self._questions.delete(thread)
        return FileKey(*FILE_KEY.unpack(answer)) if answer and any(answer) else None

    def done(self, key: FileKey) -> None:
        """The file was examined: not to be told of again."""
        self._examined.put(FILE_KEY.pack(*key), int(Examined.DONE).to_bytes(4, "little"))

    def forget(self, key: FileKey) -> None:
        """The file could not be examined: the next process that maps it may let us look."""
        self._examined.delete(FILE_KEY.pack(*key))

    def is_done(self, key: FileKey) -> bool:
        raw = self._examined.get(FILE_KEY.pack(*key))
        return raw is None or int.from_bytes(raw, "little") == Examined.DONE

    def close(self) -> None:
        if self._link is not None:
            os.close(self._link)
            self._link = None
        if hasattr(self, "_ring"):
            self._ring.close()
        self._object.close()


def _new_file(raw: bytes) -> NewFile:
    inode, changed_ns, device, generation, start, end, _size, pid, path_size = NEW_FILE.unpack_from(raw)
    names = raw[NEW_FILE.size : NEW_FILE.size + path_size].split(b"\0")[:-1]
    path = os.fsdecode(b"/" + b"/".join(reversed(names))) if names else ""
    major, minor = device >> _MINOR_BITS, device & ((1 << _MINOR_BITS) - 1)
    return NewFile(
        pid,
        FileKey(inode, changed_ns, device, generation),
        FileMapping(start, end, major, minor, inode, path, generation),
    )
