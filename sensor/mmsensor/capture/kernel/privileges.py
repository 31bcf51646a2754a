"""What the sensor needs each of its rights for, and what becomes of the measuring without it.

Rights are what counts, not the user: the unit runs as an ordinary user that holds the five that are always of
use. Each sentence of the table was found by taking the right away from a running capture, and a test does so
again. The kernel asks the real questions; what is asked here beforehand only turns its EPERM into a name.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from mmsensor.capture.errors import CaptureForbidden
from mmsensor.capture.kernel import syscalls

_STATUS = Path("/proc/self/status")


class When(Enum):
    """What the sensor is doing that asks for a right."""

    ALWAYS = auto()
    PERF_EVENTS = auto()  # probes hang on perf events, because the kernel has no better links
    HOLDING = auto()  # processes are stopped until their probes are on


class Without(Enum):
    """What the sensor does where the right is missing."""

    REFUSES = auto()  # it does not start
    DEGRADES = auto()  # it measures less, and says so


@dataclass(frozen=True, slots=True)
class Right:
    """One capability. `needed_for` completes "needed to"; `lost` is a sentence about what is not measured."""

    name: str
    number: int
    needed_for: str
    lost: str
    without: Without
    when: When = When.ALWAYS
    #: Capabilities that the kernel takes in its place.
    wider: tuple[str, ...] = ()


_SYS_ADMIN = "CAP_SYS_ADMIN"

RIGHTS = (
    Right(
        "CAP_BPF",
        39,
        "load the probes and read their maps",
        "nothing can be measured",
        Without.REFUSES,
        wider=(_SYS_ADMIN,),
    ),
    Right(
        "CAP_PERFMON",
        38,
        "load programs that read other programs' memory, and hear of new mappings",
        "nothing can be measured",
        Without.REFUSES,
        wider=(_SYS_ADMIN,),
    ),
    Right(
        "CAP_SYS_PTRACE",
        19,
        "look into the processes of other users: their mappings, executable and mount namespace",
        "the executables of other users' processes are unknown; their TLS libraries that are deleted or in "
        "other mount namespaces (containers) are not covered; before Linux 6.15 none of their processes is",
        Without.DEGRADES,
    ),
    Right(
        "CAP_DAC_READ_SEARCH",
        2,
        "read TLS libraries and folders that only their owner may read, and other users' map_files",
        "TLS libraries that the sensor's user may not read, or that were deleted, are not covered",
        Without.DEGRADES,
        wider=("CAP_DAC_OVERRIDE",),
    ),
    Right(
        "CAP_CHECKPOINT_RESTORE",
        40,
        "open a mapped file through /proc/PID/map_files",
        "files are opened by their path instead: deleted and replaced ones are not covered",
        Without.DEGRADES,
        wider=(_SYS_ADMIN,),
    ),
    Right(
        _SYS_ADMIN,
        21,
        # Until 5.15.189, 6.1.146, 6.6.99, 6.12.39 and 6.15.7, CAP_PERFMON was enough (CVE-2025-38466).
        "attach a probe as a perf event",
        "no probe can be attached, as this kernel has no uprobe_multi links (Linux 6.6)",
        Without.REFUSES,
        When.PERF_EVENTS,
    ),
    Right(
        "CAP_KILL",
        5,
        "stop and resume processes of other users while their probes are put on",
        "processes of other users are not held: the first calls through a new TLS library may be missed",
        Without.DEGRADES,
        When.HOLDING,
    ),
)

_NUMBERS = {right.name: right.number for right in RIGHTS} | {"CAP_DAC_OVERRIDE": 1}


def held(status: Path = _STATUS) -> frozenset[str]:
    """Names of the capabilities of the table that this process may use now, those included that a wider one
    stands for. Empty where /proc does not say."""
    try:
        effective = int(status.read_text().partition("CapEff:")[2].split()[0], 16)
    except (OSError, ValueError, IndexError):
        return frozenset()
    direct = {name for name, number in _NUMBERS.items() if effective >> number & 1}
    return frozenset(direct | {right.name for right in RIGHTS if direct.intersection(right.wider)})


def missing(when: Collection[When] = (When.ALWAYS,), among: Collection[str] | None = None) -> list[Right]:
    """The rights that are needed and not held, in the order of the table. `among`: held by somebody else."""
    has = held() if among is None else among
    return [right for right in RIGHTS if right.when in when and right.name not in has]


def require_to_load() -> None:
    """Raises CaptureForbidden where the kernel would not load a single probe."""
    _refuse("to load probes", [right for right in missing() if right.without is Without.REFUSES])


def require_perf_uprobes(pmu: int) -> None:
    """Raises CaptureForbidden where we may attach no probe as a perf event; `pmu` is their kind's number.

    Which right that takes differs between kernels of one version, so the kernel is asked: for a probe on a
    folder, which it refuses in any case, but only after the question of rights.
    """
    try:
        os.close(syscalls.link_perf_uprobe(-1, pmu, "/", (0, 0), None))
    except PermissionError:
        _refuse("to attach probes as perf events", missing((When.PERF_EVENTS,), among=()))
    except OSError:
        return


def _refuse(purpose: str, lacking: list[Right]) -> None:
    if lacking:
        raise CaptureForbidden(
            f"no permission {purpose} ({', '.join(right.name for right in lacking)})",
            "run it with sudo or as the systemd unit; docs/install.md says what the unit needs",
        )


def needs(hold_first_exec: bool) -> tuple[When, ...]:
    """When rights are needed, by the configuration; perf events are the kernel's choice and not ours."""
    return (When.ALWAYS, When.HOLDING) if hold_first_exec else (When.ALWAYS,)


def shortfalls(when: Collection[When] = (When.ALWAYS,)) -> list[str]:
    """What a sensor that has started does not measure for want of rights, one sentence a right."""
    return [
        f"without {right.name}, {right.lost}" for right in missing(when) if right.without is Without.DEGRADES
    ]
