"""Our rights, those of the unit, and what of the other processes they let us see."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from mmsensor.capture.kernel import privileges
from mmsensor.capture.kernel.confinement import PID_NAMESPACE, USER_NAMESPACE, in_first_namespace
from mmsensor.capture.kernel.privileges import Right, When, Without
from mmsensor.doctor.findings import Finding, fail, ok, warn
from mmsensor.doctor.surroundings import Surroundings

_UNIT = "modelmeter-sensor.service"
#: Where systemd reads units from, what an administrator wrote first.
_UNIT_FOLDERS = (
    Path("/etc/systemd/system"),
    Path("/run/systemd/system"),
    Path("/usr/local/lib/systemd/system"),
    Path("/usr/lib/systemd/system"),
    Path("/lib/systemd/system"),
)


def check_capabilities(place: Surroundings) -> Finding:
    """Ours. Without root and without rights this is a person who looks, not a sensor that cannot start."""
    if not (place.proc / "self" / "status").is_file():
        return fail(f"{place.proc} is not the kernel's", "mount proc there: nothing can be measured without")
    user = _user_name()
    lacking = privileges.missing(place.needs, place.held)
    if not lacking:
        return ok(f"{user} holds what the sensor needs: {_names(privileges.missing(place.needs, ()))}")
    fact = f"{user} does not hold {_names(lacking)}"
    if os.geteuid():
        return warn(fact, "run `sudo mmsensor doctor` to see more, and the sensor with sudo or as its unit")
    if any(right.without is Without.REFUSES for right in lacking):
        return fail(fact, "give them to the container, or run the sensor on the host")
    return warn(f"{fact}: {lacking[0].lost}", "give them to the container")


def check_unit(place: Surroundings) -> Finding:
    """What the unit would hold, where one is installed."""
    return judge_unit(_UNIT_FOLDERS, place.needs, perf_events=place.lacks_multi_links)


def judge_unit(
    folders: Iterable[Path], needs: Collection[When] = (When.ALWAYS,), *, perf_events: bool = False
) -> Finding:
    """The first unit in `folders`, with all drop-ins. `perf_events`: probes will hang on those."""
    places = list(folders)
    unit = next((folder / _UNIT for folder in places if (folder / _UNIT).is_file()), None)
    if unit is None:
        return ok(f"{_UNIT} is not installed: the sensor is started by hand")
    granted = _granted(
        [unit, *sorted(file for folder in places for file in (folder / f"{_UNIT}.d").glob("*.conf"))]
    )
    lacking = privileges.missing(needs, granted)
    if not lacking and perf_events and privileges.missing((When.PERF_EVENTS,), among=granted):
        return warn(
            f"{unit} does not grant CAP_SYS_ADMIN, which most kernels without uprobe_multi links ask for",
            f"put systemd/sensor-before-linux-6.6.conf into {unit}.d",
        )
    if not lacking:
        return ok(f"{unit} grants what the sensor needs")
    fact = f"{unit} does not grant {_names(lacking)}: {lacking[0].lost}"
    fix = f"add them to AmbientCapabilities= and CapabilityBoundingSet= in {unit}"
    return fail(fact, fix) if any(right.without is Without.REFUSES for right in lacking) else warn(fact, fix)


def _granted(files: Iterable[Path]) -> frozenset[str]:
    """The capabilities that AmbientCapabilities= adds up to; an empty one starts over, `~` takes away. A unit
    without User= runs as root and keeps what its bounding set leaves."""
    keys: dict[str, set[str]] = {"AmbientCapabilities": set(), "CapabilityBoundingSet": set()}
    given: set[str] = set()
    user = ""
    for key, value in _assignments(files):
        if key == "User":
            user = value
        elif key in keys:
            given.add(key)
            words = set(value.lstrip("~").split())
            if not value:
                keys[key].clear()
            elif value.startswith("~"):
                keys[key] = (keys[key] or {right.name for right in privileges.RIGHTS}) - words
            else:
                keys[key] |= words
    everything = {right.name for right in privileges.RIGHTS}
    bound = keys["CapabilityBoundingSet"] if "CapabilityBoundingSet" in given else everything
    held = bound if user in ("", "root", "0") else keys["AmbientCapabilities"] & bound
    return frozenset(held | {right.name for right in privileges.RIGHTS if held.intersection(right.wider)})


def _assignments(files: Iterable[Path]) -> Iterator[tuple[str, str]]:
    for file in files:
        for line in file.read_text().splitlines():
            key, separator, value = line.partition("=")
            if separator and not line.startswith(("#", ";")):
                yield key.strip(), value.strip()


def check_namespaces(place: Surroundings) -> Finding:
    """The probes report the machine's own process numbers; ours must be the same."""
    inside = {kind: in_first_namespace(kind, place.proc) is False for kind in ("user", "pid", "cgroup")}
    if inside["user"]:
        return fail(USER_NAMESPACE.reason, USER_NAMESPACE.hint)
    if inside["pid"]:
        return fail(PID_NAMESPACE.reason, PID_NAMESPACE.hint)
    if inside["cgroup"]:
        return warn(
            "this is a cgroup namespace: containers and units of callers may not be recognised",
            "share the host's: `--cgroupns=host` with docker",
        )
    return ok("the machine's own user, pid and cgroup namespaces")


def check_processes(place: Surroundings) -> Finding:
    """Whether /proc shows every process, and lets us see what each has mapped.

    Yama's ptrace_scope is not looked at: it is about attaching to a process, and we only read.
    """
    processes = [entry for entry in place.proc.iterdir() if entry.name.isdigit()]
    closed = [process for process in processes if not _may_look_into(process)]
    fact = f"{len(processes)} processes to be seen"
    grant = "grant CAP_SYS_PTRACE, or see `capabilities`"
    if "CAP_SYS_PTRACE" not in place.held:
        if hidden := _hidepid(place.proc):
            return warn(f"{fact}; hidepid={hidden} hides those of other users", grant)
        return warn(f"{fact}, {len(closed)} of them closed to us", grant) if closed else ok(fact)
    if closed:
        return warn(
            f"{fact}, {len(closed)} of them closed to us whatever we hold, e.g. pid {closed[0].name}",
            "nothing, if that is meant; TLS libraries that others map as well are covered there too",
        )
    return ok(f"{fact}, and all that they have mapped")


def _may_look_into(process: Path) -> bool:
    """Whether we may follow its mappings to their files; a process that is gone does not count as closed."""
    try:
        with (process / "maps").open("rb", buffering=0) as maps:
            # Kernel threads and what has just ended map nothing, and have no root to be followed to.
            if maps.read(1):
                (process / "root").stat()
    except PermissionError:
        return False
    except OSError:
        return True
    return True


def _hidepid(proc: Path) -> str:
    """The mount option; "" where processes are not hidden."""
    try:
        mounts = (proc / "self" / "mountinfo").read_text()
    except OSError:
        return ""
    for line in mounts.splitlines():
        words = line.split()
        found = re.search(r"\bhidepid=(\w+)", line)
        if words[4] == "/proc" and found and found[1] not in ("0", "off"):
            return found[1]
    return ""


def _names(rights: Iterable[Right]) -> str:
    return ", ".join(right.name for right in rights)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"user {os.geteuid()}"
