"""libbpf, as much of it as is needed: open, size and load an object, find its parts, drain a ring.

Only functions that libbpf 0.5 (Ubuntu 22.04) and 1.x both have, so that either soname will do. The
rings are drained by libbpf and not by walking the mapped memory here, because it has the memory
barriers that arm64 needs and Python cannot express.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmsensor.capture.errors import CaptureUnavailable
from mmsensor.capture.kernel.btf import KERNEL_BTF, in_old_words

_PRINT = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
_SAMPLE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

#: BPF_F_NO_PREALLOC of <linux/bpf.h>.
_NO_PREALLOC = 1

_pointer = ctypes.c_void_p
_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "libbpf_set_print": (_pointer, [_PRINT]),
    "libbpf_get_error": (ctypes.c_long, [_pointer]),
    "bpf_object__open_file": (_pointer, [ctypes.c_char_p, _pointer]),
    "bpf_object__load": (ctypes.c_int, [_pointer]),
    "bpf_object__close": (None, [_pointer]),
    "bpf_object__find_map_by_name": (_pointer, [_pointer, ctypes.c_char_p]),
    "bpf_object__find_program_by_name": (_pointer, [_pointer, ctypes.c_char_p]),
    "bpf_map__fd": (ctypes.c_int, [_pointer]),
    "bpf_map__map_flags": (ctypes.c_uint32, [_pointer]),
    "bpf_map__set_map_flags": (ctypes.c_int, [_pointer, ctypes.c_uint32]),
    "bpf_map__set_max_entries": (ctypes.c_int, [_pointer, ctypes.c_uint32]),
    "bpf_program__fd": (ctypes.c_int, [_pointer]),
    "bpf_program__set_autoload": (ctypes.c_int, [_pointer, ctypes.c_bool]),
    "bpf_program__set_expected_attach_type": (ctypes.c_int, [_pointer, ctypes.c_int]),
    "ring_buffer__new": (_pointer, [ctypes.c_int, _SAMPLE, _pointer, _pointer]),
    "ring_buffer__poll": (ctypes.c_int, [_pointer, ctypes.c_int]),
    "ring_buffer__consume": (ctypes.c_int, [_pointer]),
    "ring_buffer__epoll_fd": (ctypes.c_int, [_pointer]),
    "ring_buffer__free": (None, [_pointer]),
}


class _OpenOptions(ctypes.Structure):
    """struct bpf_object_open_opts, the part that libbpf 0.5 and 1.x have in common."""

    _fields_ = (
        ("sz", ctypes.c_size_t),
        ("object_name", ctypes.c_char_p),
        ("relaxed_maps", ctypes.c_bool),
        ("relaxed_core_relocs", ctypes.c_bool),
        ("pin_root_path", ctypes.c_char_p),
        ("attach_prog_fd", ctypes.c_uint32),
        ("kconfig", ctypes.c_char_p),
        ("btf_custom_path", ctypes.c_char_p),
    )


def _load_library() -> ctypes.CDLL:
    for soname in ("libbpf.so.1", "libbpf.so.0"):
        try:
            library = ctypes.CDLL(soname, use_errno=True)
        except OSError:
            continue
        for name, (result, arguments) in _SIGNATURES.items():
            function = getattr(library, name)
            function.restype = result
            function.argtypes = arguments
        library.libbpf_set_print(_silent)
        return library
    raise CaptureUnavailable(
        "libbpf is not installed",
        "install libbpf1 (Debian 12) or libbpf0 (Ubuntu 22.04), or run `make setup`",
    )


# libbpf explains itself on standard error otherwise, at length; we raise with the errno instead.
_silent = _PRINT(lambda _level, _format, _arguments: 0)


def _is_old(library: ctypes.CDLL) -> bool:
    """Whether this libbpf is older than 1.0, which knows every kind of BTF that kernels write today."""
    return not hasattr(library, "libbpf_major_version") or library.libbpf_major_version() < 1


def version() -> str:
    """Of the libbpf that is used: "1.1", or "0.5 or older". Raises CaptureUnavailable without one."""
    library = _load_library()
    if not hasattr(library, "libbpf_version_string"):
        return "0.5 or older"
    library.libbpf_version_string.restype = ctypes.c_char_p
    return str(library.libbpf_version_string().decode()).removeprefix("v")


def _rewritten_kernel_btf() -> int:
    """A memory file with the kernel's BTF for an old libbpf."""
    fd = os.memfd_create("kernel.btf", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(in_old_words(KERNEL_BTF.read_bytes()))
    return fd


def _open(library: ctypes.CDLL, path: Path, btf: int | None) -> int | None:
    options = None
    if btf is not None:
        options = ctypes.byref(
            _OpenOptions(sz=ctypes.sizeof(_OpenOptions), btf_custom_path=f"/proc/self/fd/{btf}".encode())
        )
    handle: int | None = library.bpf_object__open_file(str(path).encode(), options)
    return handle


class BpfObject:
    """A compiled object, loaded into the kernel until `close`."""

    def __init__(
        self,
        path: Path,
        *,
        map_entries: Mapping[str, int],
        preallocated: Sequence[str] = (),
        attach_type: Mapping[str, int] | None = None,
        left_out: Sequence[str] = (),
        old_words: bool = False,
    ) -> None:
        """Loads `path`. `old_words`: hand the kernel's BTF over rewritten even where libbpf is new.

        `map_entries` resizes maps, `preallocated` names those that take all their memory at once instead of
        growing; `attach_type` names the expected attach type of programs that need one; `left_out` those
        that are not loaded. Raises OSError as the kernel gave it, CaptureUnavailable without libbpf.
        """
        self._library = _load_library()
        btf = _rewritten_kernel_btf() if old_words or _is_old(self._library) else None
        self._object: int | None = None
        try:
            self._object = self._opened(_open(self._library, path, btf))
            self._shape(map_entries, preallocated)
            self._load(attach_type or {}, left_out)
        except BaseException:
            self.close()
            raise
        finally:
            if btf is not None:
                os.close(btf)

    def _shape(self, map_entries: Mapping[str, int], preallocated: Sequence[str]) -> None:
        for name, entries in map_entries.items():
            self._library.bpf_map__set_max_entries(self._map(name), entries)
        for name in preallocated:
            flags = self._library.bpf_map__map_flags(self._map(name)) & ~_NO_PREALLOC
            self._library.bpf_map__set_map_flags(self._map(name), flags)

    def _load(self, attach_type: Mapping[str, int], left_out: Sequence[str]) -> None:
        for name, kind in attach_type.items():
            self._library.bpf_program__set_expected_attach_type(self._program(name), kind)
        for name in left_out:
            self._library.bpf_program__set_autoload(self._program(name), False)
        status = self._library.bpf_object__load(self._object)
        if status:
            raise OSError(abs(status), os.strerror(abs(status)))

    def _opened(self, handle: int | None) -> int:
        failure = self._library.libbpf_get_error(handle)
        if handle is None or failure:
            number = abs(failure) or ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return handle

    def _map(self, name: str) -> int:
        handle: int | None = self._library.bpf_object__find_map_by_name(self._object, name.encode())
        if not handle:
            raise KeyError(name)
        return handle

    def _program(self, name: str) -> int:
        handle: int | None = self._library.bpf_object__find_program_by_name(self._object, name.encode())
        if not handle:
            raise KeyError(name)
        return handle

    def map_fd(self, name: str) -> int:
        return int(self._library.bpf_map__fd(self._map(name)))

    def program_fd(self, name: str) -> int:
        return int(self._library.bpf_program__fd(self._program(name)))

    def close(self) -> None:
        if self._object is not None:
            self._library.bpf_object__close(self._object)
            self._object = None


class Ring:
    """Drains one ring buffer map. Not thread-safe: one reader a ring."""

    #: One batch holds at most this many payload bytes in Python's memory, however fast the kernel fills.
    BATCH_BYTES = 1 << 20

    def __init__(self, map_fd: int) -> None:
        self._library = _load_library()
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        #: Whether the last `drain` took all that there was.
        self.emptied = True
        # Kept in an attribute: ctypes does not hold on to a callback.
        self._callback = _SAMPLE(self._take)
        self._ring: int | None = self._library.ring_buffer__new(map_fd, self._callback, None, None)
        failure = self._library.libbpf_get_error(self._ring)
        if not self._ring or failure:
            number = abs(failure) or ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def _take(self, _context: int | None, data: int, size: int) -> int:
        self._batch.append(ctypes.string_at(data, size))
        self._batch_bytes += size
        # Negative ends this round; libbpf has consumed the record all the same.
        return -1 if self._batch_bytes >= self.BATCH_BYTES else 0

    @property
    def fd(self) -> int:
        """An epoll descriptor that is readable when the kernel has woken the reader."""
        return int(self._library.ring_buffer__epoll_fd(self._ring))

    def drain(self) -> list[bytes]:
        """What is in the ring now, up to a batch, as raw records in order; does not wait."""
        if self._ring is not None:
            self._library.ring_buffer__consume(self._ring)
        self.emptied = self._batch_bytes < self.BATCH_BYTES
        batch, self._batch, self._batch_bytes = self._batch, [], 0
        return batch

    def wait(self, timeout_s: float) -> None:
        """Sleeps until the kernel wakes us or the time is up; other threads run meanwhile."""
        if self._ring is not None:
            self._library.ring_buffer__poll(self._ring, max(0, int(timeout_s * 1000)))

    def close(self) -> None:
        if self._ring is not None:
            self._library.ring_buffer__free(self._ring)
            self._ring = None
