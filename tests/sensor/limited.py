"""Runs a command as an ordinary user that holds the capabilities it is given, and no others.

The interpreter may lie in a folder of root's, such as /root. In a mount namespace of its own the command gets
that folder with nothing in it but what it needs, and open to all.
"""

from __future__ import annotations

import stat
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

NOBODY = 65534
#: What the unit grants.
FIVE = ("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_CHECKPOINT_RESTORE")

_ROOT = Path(__file__).resolve().parents[2]
_OPEN = """
closed=$1; shift
mount -t tmpfs none /mnt
number=0
for folder in $KEPT; do
    number=$((number + 1)); mkdir /mnt/$number; mount --bind "$folder" /mnt/$number
done
[ -z "$KEPT" ] || mount -t tmpfs -o mode=755 none "$closed"
number=0
for folder in $KEPT; do
    number=$((number + 1)); mkdir -p "$folder"; mount --move /mnt/$number "$folder"
done
umount /mnt
exec "$@"
"""


def limited(capabilities: Collection[str], command: Sequence[str]) -> list[str]:
    """`command`, for root to start."""
    closed = _closed_above(Path(sys.base_prefix))
    needed = [Path(sys.base_prefix), Path(sys.prefix), _ROOT]
    kept = " ".join(sorted({str(path) for path in needed if closed and path.is_relative_to(closed)}))
    return [
        *("env", f"KEPT={kept}", "unshare", "--mount", "--propagation", "private"),
        *("sh", "-euc", _OPEN, "sh", str(closed or "")),
        *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--no-new-privs"),
        *(f"--{kind}-caps={_set_of(capabilities)}" for kind in ("inh", "ambient")),
        f"--bounding-set={_set_of(capabilities)}",
        *command,
    ]


def open_to_all(folder: Path) -> None:
    """Lets everybody through to a temporary folder of pytest's."""
    for each in (folder, *folder.parents[:-2]):
        each.chmod(each.stat().st_mode | 0o055)


def _set_of(capabilities: Collection[str]) -> str:
    names = [f"+{name.removeprefix('CAP_').lower()}" for name in capabilities]
    return ",".join(["-all", *names])


def _closed_above(path: Path) -> Path | None:
    """The outermost folder on the way to `path` that others may not pass."""
    closed = [folder for folder in path.parents if not folder.stat().st_mode & stat.S_IXOTH]
    return closed[-1] if closed else None
