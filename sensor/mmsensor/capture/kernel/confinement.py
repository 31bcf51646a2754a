"""What may keep us from measuring although the capabilities are there: namespaces, lockdown, seccomp.

The kernel answers three of these with the same EPERM. Each is told here from what /proc and /sys say of this
process, so that the answer can name it. A pid namespace it does not mind at all: there everything would
work, and nothing fit together.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mmsensor.capture.errors import CaptureUnavailable

#: Inode numbers of the namespaces that the machine boots with; fixed in the kernel (include/linux/proc_ns.h).
FIRST_NAMESPACES = {"user": 4026531837, "pid": 4026531836, "cgroup": 4026531835, "time": 4026531834}
_SECCOMP_FILTER = 2


@dataclass(frozen=True, slots=True)
class Obstacle:
    """One line of what it is, one of what to do."""

    reason: str
    hint: str


USER_NAMESPACE = Obstacle(
    "this is a user namespace, where capabilities do not count for probes",
    "run it on the host, or in a container that is not rootless and has no userns-remap",
)
PID_NAMESPACE = Obstacle(
    "this is a pid namespace, where processes have other numbers than in the kernel",
    "share the host's: `hostPID: true` in Kubernetes, `--pid=host` with docker",
)


def in_first_namespace(kind: str, proc: Path = Path("/proc")) -> bool | None:
    """Whether this process is in the machine's own namespace of that kind; None where the kernel has none."""
    try:
        return (proc / "self" / "ns" / kind).stat().st_ino == FIRST_NAMESPACES[kind]
    except OSError:
        return None


def require_machines_pids() -> None:
    """Raises CaptureUnavailable in a pid namespace: nothing the probes report would match /proc."""
    if in_first_namespace("pid") is False:
        raise CaptureUnavailable(PID_NAMESPACE.reason, PID_NAMESPACE.hint)


def lockdown(security: Path = Path("/sys/kernel/security")) -> str | None:
    """`none`, `integrity` or `confidentiality`; None where it cannot be read."""
    try:
        chosen = re.search(r"\[(\w+)\]", (security / "lockdown").read_text())
    except OSError:
        return None
    return chosen[1] if chosen else None


def seccomp_filters(proc: Path = Path("/proc")) -> int:
    """How many seccomp filters this process is under; 1 where the kernel only says that there are some."""
    try:
        fields = dict(
            re.findall(r"^(Seccomp\w*):\s+(\d+)$", (proc / "self" / "status").read_text(), re.MULTILINE)
        )
    except OSError:
        return 0
    if int(fields.get("Seccomp", 0)) != _SECCOMP_FILTER:
        return 0
    return int(fields.get("Seccomp_filters", 1))


def why_refused() -> Obstacle:
    """The likeliest reason for an EPERM of bpf(2) or perf_event_open(2) where the capabilities are held."""
    if in_first_namespace("user") is False:
        return USER_NAMESPACE
    if lockdown() == "confidentiality":
        return Obstacle(
            "kernel lockdown is in confidentiality mode, which lets no program read memory",
            "boot with lockdown=integrity",
        )
    if filters := seccomp_filters():
        return Obstacle(
            f"seccomp filters this process ({filters}) and may refuse bpf and perf_event_open",
            "allow both in the container's seccomp profile, or in SystemCallFilter= of the unit",
        )
    return Obstacle(
        "neither capabilities nor seccomp nor lockdown is why", "look for a security module that forbids it"
    )
