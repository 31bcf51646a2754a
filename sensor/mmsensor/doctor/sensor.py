"""The sensor that runs here, and others that probe the same libraries."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mmsensor.control import ask
from mmsensor.doctor.findings import AS_ROOT, Finding, fail, ok, skipped, warn
from mmsensor.doctor.surroundings import Surroundings

_FIELD = re.compile(r"^(\w+):\s+(.+)$", re.MULTILINE)
#: What reading a document of another shape raises.
_NO_STATUS = (ValueError, KeyError, TypeError)
_UNTOLD = "the kernel does not say where"
_TLS = re.compile(r"ssl|tls|boring|/(?:node|bun|deno|claude)$", re.IGNORECASE)


def check_sensor(place: Surroundings) -> Finding:
    """Asks the running sensor for its own verdict."""
    socket = place.settings.control_socket
    try:
        status = _status(place)
        verdict, reasons = status["verdict"], status["reasons"]
    except PermissionError:
        return skipped(f"this user may not ask the sensor at {socket}", AS_ROOT)
    except OSError as error:
        return warn(
            f"no sensor answers at {socket} ({error.strerror or error})",
            "start it: `systemctl start modelmeter-sensor`, or `mmsensor run`",
        )
    except _NO_STATUS:
        return fail(f"what answers at {socket} is no sensor of this version", "restart the sensor")
    if verdict == "healthy":
        return ok("it runs, and is healthy")
    fact = f"it runs, and is {verdict}: {'; '.join(reasons)}"
    return (fail if verdict == "unhealthy" else warn)(fact, "`mmsensor status` has the details")


def check_other_sensors(place: Surroundings) -> Finding:
    """Probes of other processes on TLS libraries, as far as the kernel tells: it shows links, in newer
    versions with the file they are on, and perf events without a link not at all."""
    holders = dict(_holders(place.proc))
    if "CAP_SYS_PTRACE" not in place.held and not holders:
        return skipped("without CAP_SYS_PTRACE others' probes cannot be seen", AS_ROOT)
    own = _own_sensor(place)
    others = [f"{_command(place.proc, pid)} ({pid}, {where})" for pid, where in holders.items() if pid != own]
    if not others:
        return ok("nobody else probes TLS libraries through links")
    shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    return warn(
        f"TLS libraries are probed by {shown} too",
        "every one makes each TLS call dearer: stop what is not needed",
    )


def _holders(proc: Path) -> Iterator[tuple[int, str]]:
    """(pid, library) of each process, other than ours, that holds a uprobe link on one."""
    for process in proc.iterdir():
        if process.name.isdigit() and int(process.name) != os.getpid():
            files = filter(None, map(_probed, _infos(process)))
            names = (_name(process, file) for file in files)
            if library := next((name for name in names if name == _UNTOLD or _TLS.search(name)), None):
                yield int(process.name), library


def _infos(process: Path) -> Iterator[str]:
    """What the kernel says of each link that the process holds, as far as it lets us read it."""
    try:
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):
                if "bpf_link" in str(descriptor.readlink()):
                    yield (process / "fdinfo" / descriptor.name).read_text()
    except OSError:
        return


def _probed(info: str) -> str:
    """The file that a link of uprobes is on, `_UNTOLD` where the kernel does not tell; "" for other links."""
    fields: dict[str, str] = dict(_FIELD.findall(info))
    kind = fields.get("link_type", "")
    if kind in ("uprobe_multi", "uretprobe_multi"):
        return fields.get("path", _UNTOLD)
    if kind == "perf" and fields.get("event_type") in ("uprobe", "uretprobe"):
        return fields.get("name", _UNTOLD)
    return ""


def _name(process: Path, file: str) -> str:
    """Perf events show the path as it was given, which may be a descriptor of whoever gave it."""
    if not file.startswith("/proc/self/fd/"):
        return file
    try:
        return str((process / "fd" / Path(file).name).readlink())
    except OSError:
        return _UNTOLD


def _own_sensor(place: Surroundings) -> int | None:
    try:
        return int(_status(place)["identity"]["pid"])
    except (OSError, *_NO_STATUS):
        return None


def _status(place: Surroundings) -> Any:
    """The running sensor's status document. Raises OSError, or one of `_NO_STATUS` for what is none."""
    code, body = ask(place.settings.control_socket, "/status", timeout_s=4.0)
    return json.loads(body) if code == 200 else None


def _command(proc: Path, pid: int) -> str:
    try:
        return (proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return "a process"
