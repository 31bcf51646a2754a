"""Notices the moment any process maps a file executable, without tracing and without looking around.

The kernel writes a PERF_RECORD_MMAP2 for every executable mapping into a perf ring of each CPU: program
starts, shared libraries and dlopen alike, with the file's device, inode and generation. That needs neither
kprobes nor tracefs. It is a hint: a record lost, or misread through a weakly ordered read, is made good
by the reconcile with /proc.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmsensor.capture.discovery.proc import FileMapping
from mmsensor.capture.kernel import syscalls

_DATA_PAGES = 8
_HEAD, _TAIL = 1024, 1032  # of struct perf_event_mmap_page
_RECORD_LOST = 2
_RECORD_MMAP2 = 10
_HEADER = struct.Struct("=IHH")
_MMAP2 = struct.Struct("=IIQQQIIQQII")
_LOST = struct.Struct("=QQ")


class Mapped(NamedTuple):
    pid: int
    mapping: FileMapping


class MappingWatch:
    """One perf ring a CPU. Raises OSError on construction where the kernel does not allow it."""

    def __init__(self) -> None:
        self._page = os.sysconf("SC_PAGE_SIZE")
        self._rings: list[mmap.mmap] = []
        self.fds: list[int] = []
        self.lost = 0
        try:
            for cpu in _online_cpus():
                fd = syscalls.open_mapping_events(cpu)
                self.fds.append(fd)
                self._rings.append(mmap.mmap(fd, (1 + _DATA_PAGES) * self._page))
        except OSError:
            self.close()
            raise

    def read(self) -> Iterator[Mapped]:
        """Every mapping since the last read. Records that overflowed are added to `lost`."""
        for ring in self._rings:
            yield from self._read_ring(ring)

    def _read_ring(self, ring: mmap.mmap) -> Iterator[Mapped]:
        size = _DATA_PAGES * self._page
        (head,) = struct.unpack_from("=Q", ring, _HEAD)
        (tail,) = struct.unpack_from("=Q", ring, _TAIL)
        while tail < head:
            kind, _misc, length = _HEADER.unpack(self._slice(ring, tail, _HEADER.size, size))
            if length < _HEADER.size or length > head - tail:
                self.lost += 1  # damaged: give up what is there, the reconcile finds it
                tail = head
                break
            body = self._slice(ring, tail + _HEADER.size, length - _HEADER.size, size)
            tail += length
            if kind == _RECORD_MMAP2:
                yield _mapped(body)
            elif kind == _RECORD_LOST:
                self.lost += _LOST.unpack_from(body)[1]
        struct.pack_into("=Q", ring, _TAIL, tail)

    def _slice(self, ring: mmap.mmap, at: int, length: int, size: int) -> bytes:
        start = at % size
        first = min(length, size - start)
        base = self._page
        return ring[base + start : base + start + first] + ring[base : base + length - first]

    def close(self) -> None:
        for ring in self._rings:
            ring.close()
        for fd in self.fds:
            os.close(fd)
        self._rings, self.fds = [], []


def _mapped(body: bytes) -> Mapped:
    pid, _tid, start, length, _offset, major, minor, inode, generation, _prot, _flags = _MMAP2.unpack_from(
        body
    )
    path = ctypes.create_string_buffer(body[_MMAP2.size :]).value
    return Mapped(pid, FileMapping(start, start + length, major, minor, inode, os.fsdecode(path), generation))


def _online_cpus() -> Iterator[int]:
    for part in Path("/sys/devices/system/cpu/online").read_text().strip().split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
