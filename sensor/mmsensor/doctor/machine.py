"""The machine: platform, kernel, its type information, clock and memory."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

from mmsensor.capture.kernel import bcc
from mmsensor.capture.kernel.confinement import in_first_namespace
from mmsensor.doctor.findings import Finding, fail, ok, skipped, warn
from mmsensor.doctor.surroundings import Surroundings
from mmsensor.render import size

#: The first with cookies for probes and with everything else the probes use.
MINIMUM = (5, 15)
#: What later kernels add.
_ADDED = (((6, 6), "one link for many probes"), ((6, 13), "entry and return in one probe"))
_MACHINES = ("x86_64", "aarch64")
_BTF_MAGIC = b"\x9f\xeb"
#: The sensor itself, beside its ring.
_RESIDENT = 50 << 20


def check_platform(_place: Surroundings) -> Finding:
    fact = f"{platform.system()} on {platform.machine()}, Python {platform.python_version()}"
    if platform.system() != "Linux" or platform.machine() not in _MACHINES:
        return fail(
            f"{fact}: the probes know Linux on {' and '.join(_MACHINES)}", "run the sensor on such a machine"
        )
    return ok(fact)


def check_kernel(_place: Surroundings) -> Finding:
    return judge_kernel(os.uname().release)


def judge_kernel(release: str) -> Finding:
    """By the release as `uname -r` prints it."""
    numbers = re.match(r"(\d+)\.(\d+)", release)
    if numbers is None:
        return skipped(
            f"the release {release!r} is no version", f"make sure it is Linux {_dotted(MINIMUM)} or newer"
        )
    version = (int(numbers[1]), int(numbers[2]))
    if version < MINIMUM:
        return fail(
            f"Linux {release} is older than {_dotted(MINIMUM)}", f"use Linux {_dotted(MINIMUM)} or newer"
        )
    lacking = [f"{what} ({_dotted(since)})" for since, what in _ADDED if version < since]
    fact = f"Linux {release}, at least {_dotted(MINIMUM)}"
    return ok(
        f"{fact}; newer ones add {', '.join(lacking)}" if lacking else f"{fact}, with everything there is"
    )


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))


def check_btf(place: Surroundings) -> Finding:
    path = place.sys / "kernel" / "btf" / "vmlinux"
    fix = "use a kernel with CONFIG_DEBUG_INFO_BTF=y, as Debian and Ubuntu build theirs"
    try:
        with path.open("rb") as file:
            magic = file.read(2)
            length = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        if not path.parents[1].is_dir():
            return fail(f"{place.sys} is not the kernel's: there is no {path}", "mount sysfs there")
        if bcc.is_installed():
            return warn(f"no type information: there is no {path}; BCC loads the probes, in seconds", fix)
        return fail(f"no type information: there is no {path}", fix)
    except OSError as error:
        return fail(f"{path} cannot be read: {error.strerror}", "mount sysfs readable for the sensor's user")
    if magic != _BTF_MAGIC:
        return fail(f"{path} is not type information in this machine's byte order", fix)
    return ok(f"type information of the running kernel, {size(length)}")


def check_clock(place: Surroundings) -> Finding:
    """The probes stamp with the kernel's boot clock, /proc with that of our time namespace."""
    boot_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    offsets = re.search(
        r"^boottime\s+(-?\d+)\s+(-?\d+)", _text(place.proc / "self/timens_offsets"), re.MULTILINE
    )
    if in_first_namespace("time", place.proc) is False or (offsets and (int(offsets[1]) or int(offsets[2]))):
        return fail(
            "a time namespace shifts the boot clock: calls and processes would not be matched",
            "run the sensor in the machine's own time namespace",
        )
    return ok(f"boot clock at {boot_s / 3600:.1f} h, not shifted")


def check_memory(place: Surroundings) -> Finding:
    """What the sensor takes, against what the machine and our control group leave."""
    needed = _RESIDENT + place.settings.capture.ring_bytes
    available = re.search(r"^MemAvailable:\s+(\d+) kB", _text(place.proc / "meminfo"), re.MULTILINE)
    if available is None:
        return skipped(
            f"{place.proc}/meminfo does not say what is free", f"have {size(needed)} free for the sensor"
        )
    free, limit = int(available[1]) << 10, _group_limit(place)
    fact = f"about {size(needed)} needed, {size(free)} free" + (
        f", limited to {size(limit)}" if limit else ""
    )
    if free < needed or (limit and limit < needed):
        return warn(fact, "make capture.ring_bytes smaller, or the memory or its limit larger")
    return ok(fact)


def _group_limit(place: Surroundings) -> int | None:
    """The memory limit of our own control group, version 2 or 1; None for none."""
    group = re.search(r"^\d+:(?:memory|):(/.*)$", _text(place.proc / "self/cgroup"), re.MULTILINE)
    path = group[1].lstrip("/") if group else ""
    root = place.sys / "fs" / "cgroup"
    for file in (root / path / "memory.max", root / "memory" / path / "memory.limit_in_bytes"):
        text = _text(file).strip()
        # Version 1 says "no limit" as the largest multiple of a page.
        if text.isdigit() and int(text) < 1 << 62:
            return int(text)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
