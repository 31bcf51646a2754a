"""Boots a kernel on an emulated machine that sees this machine's files, and runs one script there.

QEMU's own interpreter (TCG) and no hardware virtualisation: it is there on every machine, also inside a
virtual one, and any kernel boots in it in seconds.
"""

from __future__ import annotations

import shlex
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.kernels import initramfs
from tests.kernels.packages import Unpacked

#: Two processors, so that probes run beside each other; memory for a ring of 128 MiB and scratch space.
_PROCESSORS = 2
_MEMORY = "3G"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the script. `status` is None where the kernel did not get to its end."""

    status: int | None
    seconds: float
    folder: (
        Path  # console: the kernel's words; output: the script's; and what the script has put there itself
    )


def run(kernel: Unpacked, script: str, project: Path, folder: Path, timeout_s: float) -> Outcome:
    """`script` runs in `project` as root, everything read-only but /tmp, /var/tmp and /run.

    It finds `folder` as /tmp/results. A machine that has not ended after `timeout_s` is ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    (folder / "machine.sh").write_text(f"project={shlex.quote(str(project))}\n")
    (folder / "script").write_text(script)
    archive = folder / "initramfs"
    archive.write_bytes(initramfs.built(kernel.modules))
    started = time.monotonic()
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(_command(kernel, archive, folder), check=True, timeout=timeout_s)
    archive.unlink()
    status = folder / "status"
    return Outcome(int(status.read_text()) if status.exists() else None, time.monotonic() - started, folder)


def _command(kernel: Unpacked, archive: Path, folder: Path) -> list[str]:
    def shared(tag: str, path: Path, *options: str) -> list[str]:
        # remap: mounts below the path bring inode numbers of their own.
        described = ["local", f"id={tag}", f"path={path}", "security_model=none", "multidevs=remap", *options]
        return ["-fsdev", ",".join(described), "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]

    return [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max"),
        *("-smp", str(_PROCESSORS), "-m", _MEMORY),
        *("-kernel", str(kernel.image), "-initrd", str(archive)),
        # A kernel that complains of itself ends there, and QEMU with it.
        *("-append", "console=ttyS0 panic=-1 oops=panic panic_on_warn=1", "-no-reboot"),
        *("-serial", f"file:{folder / 'console'}"),
        *shared("host", Path("/"), "readonly=on"),
        *shared("results", folder),
    ]
