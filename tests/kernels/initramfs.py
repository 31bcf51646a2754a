"""The archive that a kernel unpacks into memory and starts: a shell, the modules, and one script.

The format is the kernel's own, Documentation/driver-api/early-userspace/buffer-format.rst: "newc" cpio.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

_FOLDER, _PROGRAM, _FILE = 0o040755, 0o100755, 0o100644
#: Statically linked: there is no library in there.
_SHELL = Path("/bin/busybox")
_INIT = Path(__file__).with_name("init")


def built(modules: Iterable[Path]) -> bytes:
    """The archive; its init loads `modules` in their order."""
    entries = [(name, _FOLDER, b"") for name in ("bin", "dev", "modules")]
    entries += [("bin/busybox", _PROGRAM, _SHELL.read_bytes()), ("init", _PROGRAM, _INIT.read_bytes())]
    entries += [(f"modules/{path.name}", _FILE, path.read_bytes()) for path in modules]
    return b"".join(
        _entry(number, *entry) for number, entry in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1)
    )


def _entry(inode: int, name: str, mode: int, data: bytes) -> bytes:
    path = name.encode() + b"\0"
    # inode, mode, uid, gid, links, mtime, size, device (4), length of the name, checksum
    fields = (inode, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % field for field in fields) + path
    return _padded(header) + _padded(data)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)
