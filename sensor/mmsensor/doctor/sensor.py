"""The sensor that runs here, and others that probe the same libraries."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

from mmsensor.control import ask
from mmsensor.doctor.findings import AS_ROOT, Finding, fail, ok, skipped, warn
from mmsensor.doctor.surroundings import Surroundings

_UPROBE_LINK = re.compile(r"^link_type:\s+u(?:ret)?probe_multi$", re.MULTILINE)
_PATH = re.compile(r"^path:\s+(.+)$", re.MULTILINE)
_TLS = re.compile(r"ssl|tls|boring|/(?:node|bun|deno|claude)$", re.IGNORECASE)


def check_sensor(place: Surroundings) -> Finding:
    """Asks the running sensor for its own verdict."""
    socket = place.settings.control_socket
    try:
        code, body = ask(socket, "/status", timeout_s=4.0)
        status = json.loads(body) if code == 200 else {}
        verdict, reasons = status["verdict"], status["reasons"]
    except PermissionError:
        return skipped(f"this user may not ask the sensor at {socket}", AS_ROOT)
    except OSError as error:
        return warn(
            f"no sensor answers at {socket} ({error.strerror or error})",
            "start it: `systemctl start modelmeter-sensor`, or `mmsensor run`",
        )
    except (ValueError, KeyError):
        return fail(f"what answers at {socket} is no sensor of this version", "restart the sensor")
    if verdict == "healthy":
        return ok("it runs, and is healthy")
    fact = f"it runs, and is {verdict}: {'; '.join(reasons)}"
    return (fail if verdict == "unhealthy" else warn)(fact, "`mmsensor status` has the details")


def check_other_sensors(place: Surroundings) -> Finding:
    """Probes of other processes on TLS libraries, as far as the kernel tells: it shows links, since Linux
    6.17 with the file they are on, and perf events without a link not at all."""
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
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            infos = list((process / "fdinfo").iterdir())
        except OSError:
            continue
        for info in infos:
            try:
                text = info.read_text()
            except OSError:
                continue
            if not _UPROBE_LINK.search(text):
                continue
            path = _PATH.search(text)
            if path is None or _TLS.search(path[1]):
                yield int(process.name), path[1] if path else "the kernel does not say where"
                break


def _own_sensor(place: Surroundings) -> int | None:
    try:
        code, body = ask(place.settings.control_socket, "/status", timeout_s=4.0)
        return int(json.loads(body)["identity"]["pid"]) if code == 200 else None
    except (OSError, ValueError, KeyError):
        return None


def _command(proc: Path, pid: int) -> str:
    try:
        return (proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return "a process"
