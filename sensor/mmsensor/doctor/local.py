"""What the sensor keeps on this machine: its configuration, its state folder, its spool."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mmproto.delivery import read_token
from mmsensor.doctor.findings import Finding, fail, ok, skipped, warn
from mmsensor.doctor.surroundings import Surroundings
from mmsensor.render import size

_SQLITE_MAGIC = b"SQLite format 3\0"
#: Below this the spool's own files cannot grow.
_NO_ROOM = 16 << 20


def check_configuration(place: Surroundings) -> Finding:
    if place.problems:
        more = f" (and {len(place.problems) - 1} more)" if len(place.problems) > 1 else ""
        return fail(place.problems[0] + more, "correct it; `mmsensor config validate` names every mistake")
    if not place.files:
        return ok("no file, the defaults apply")
    return ok(f"valid: {', '.join(map(str, place.files))}")


def check_state_folder(place: Surroundings) -> Finding:
    folder = place.settings.folder
    fix = "give it to the sensor's user, or choose another with --state-dir"
    try:
        existing = _nearest(folder)
    except PermissionError as error:
        return _not_ours(f"{error.filename} may not be looked into", place)
    if not existing.is_dir():
        return fail(f"{existing} is not a folder, so {folder} cannot be made", fix)
    if not os.access(existing, os.W_OK | os.X_OK):
        return _not_ours(f"{existing} may not be written", place)
    return ok(f"{folder} may be written" if existing == folder else f"{folder} can be made in {existing}")


def _not_ours(fact: str, place: Surroundings) -> Finding:
    """Not being root and not having the folder's rights usually means: it belongs to the sensor's user."""
    if os.geteuid():
        return skipped(f"{fact} by this user", "run `mmsensor doctor` with sudo or as the sensor's user")
    return fail(fact, f"make {place.settings.folder} writable, or choose another with --state-dir")


def check_disk(place: Surroundings) -> Finding:
    """Whether the spool could grow to its limit."""
    if place.settings.jsonl:
        return ok(f"no spool: calls go to {place.settings.sink}")
    limit = place.settings.spool.max_bytes
    try:
        folder = _nearest(place.settings.spool_file.parent)
    except PermissionError as error:
        return _not_ours(f"{error.filename} may not be looked into", place)
    free = shutil.disk_usage(folder).free
    fact = f"{size(free)} free for a spool of at most {size(limit)}"
    fix = f"make room on the file system of {folder}, or lower spool.max_bytes"
    if free < min(_NO_ROOM, limit):
        return fail(fact, fix)
    return warn(fact, fix) if free < limit else ok(fact)


def check_spool(place: Surroundings) -> Finding:
    """The file, and what was set aside as damaged. Its content is the daemon's: see `sensor`."""
    if place.settings.jsonl:
        return ok(f"no spool: calls go to {place.settings.sink}")
    file = place.settings.spool_file
    try:
        with file.open("rb") as spool:
            start = spool.read(len(_SQLITE_MAGIC))
            length = os.fstat(spool.fileno()).st_size
        damaged = sorted(file.parent.glob(f"{file.name}.damaged-*"))
    except FileNotFoundError:
        return ok("none yet: the sensor makes it")
    except PermissionError:
        return _not_ours(f"{file} may not be read", place)
    if start and start != _SQLITE_MAGIC:
        return warn(
            f"{file} is no spool", "look at what it is; the sensor will set it aside and start a new one"
        )
    if damaged:
        return warn(
            f"{len(damaged)} damaged spools were set aside, e.g. {damaged[0]}",
            "check the disk; what they hold was not delivered: keep or delete them",
        )
    return ok(f"{file}, {size(length)}")


def check_token(place: Surroundings) -> Finding:
    """The token that the pipeline will ask for."""
    if place.settings.jsonl or place.settings.to_kafka:
        return ok(f"no token: calls go to {place.settings.sink}")
    file = place.settings.token_file
    try:
        token = read_token(file)
    except PermissionError:
        return _not_ours(f"{file} may not be read", place)
    if token:
        return ok(f"{file} holds one")
    if not place.settings.ingest.url:
        return ok(f"none yet in {file}: pipeline or sensor makes it, whoever starts first")
    return warn(
        f"{file} holds none, and the sensor would make one that the pipeline does not know",
        "copy the pipeline's ingest.token there",
    )


def _nearest(folder: Path) -> Path:
    """`folder`, or the nearest above it that is there. Raises PermissionError."""
    for candidate in (folder, *folder.parents):
        try:
            candidate.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        return candidate
    return Path("/")
