"""What slow searches found, by build: in memory, and in a JSON file of the state folder.

A build is known by its build-id and its size: a program that is packed behind the same interpreter (as
`bun build --compile` does) has the same build-id and is another file. One without a build-id is known by
device, inode, size and time, and is not kept in the file. What comes from the file is checked against the
program before it is believed (ladder/findings.py).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from mmsensor.capture import hooks
from mmsensor.capture.functions import Confidence, Located
from mmsensor.capture.ladder import findings
from mmsensor.capture.ladder.elf import ElfFile
from mmsensor.capture.ladder.table import Finding

_log = logging.getLogger(__name__)

_MOST_BUILDS = 512
_LARGEST_FILE = 4 << 20
_CODE_BYTES = 64  # from each probed place on


class FindingCache:
    """`path` is the file, None for memory alone. Trouble with the file is one line in the log, and the search
    is done again. Not thread-safe."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._known: OrderedDict[str, Mapping[str, Any]] = OrderedDict()
        if path is not None:
            self._load(path)

    def get(self, file: ElfFile) -> tuple[Finding] | None:
        """The finding as the only element, or None where the build is not known. Raises OSError."""
        key = _key(file)
        form = self._known.get(key)
        if form is None:
            return None
        self._known.move_to_end(key)
        try:
            finding = findings.from_json(form["finding"], file)
            if isinstance(finding, Located) and _code_of(finding, file) != form["code"]:
                raise findings.Unfit("other code than was examined")
        except (findings.Unfit, KeyError) as error:
            _log.warning(
                "what is remembered of build %s does not fit it (%s); it is searched again", key, error
            )
            del self._known[key]
            return None
        if isinstance(finding, Located):
            finding = replace(finding, confidence=Confidence.KNOWN, why=f"{finding.why}; known by build-id")
        return (finding,)

    def put(self, file: ElfFile, finding: Finding) -> None:
        """Remembers it. Raises OSError only where `file` cannot be read."""
        code = _code_of(finding, file) if isinstance(finding, Located) else ""
        self._known[_key(file)] = {"finding": findings.to_json(finding), "code": code}
        if len(self._known) > _MOST_BUILDS:
            self._known.popitem(last=False)
        if file.build_id and self._path is not None:
            self._save(self._path)

    def _load(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                document = json.loads(file.read(_LARGEST_FILE))
            if document["version"] != _version():
                return  # written by another ladder, which may know less or more
            known = document["builds"]
            if not all(isinstance(form, dict) for form in known.values()):
                raise TypeError("a build is no object")
            self._known.update(list(known.items())[-_MOST_BUILDS:])
        except FileNotFoundError:
            return
        except OSError as error:
            _log.warning("%s cannot be read (%s): programs are searched again", path, error.strerror)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            aside = path.with_suffix(".damaged")
            _log.warning(
                "%s is damaged (%s): put aside as %s, programs are searched again", path, error, aside
            )
            with suppress(OSError):
                path.replace(aside)

    def _save(self, path: Path) -> None:
        builds = {key: form for key, form in self._known.items() if not key.startswith(_UNNAMED)}
        fresh = path.with_suffix(".new")
        try:
            with suppress(FileNotFoundError):
                fresh.unlink()
            fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "w", encoding="utf-8") as file:
                json.dump({"version": _version(), "builds": builds}, file)
                file.flush()
                os.fsync(fd)
            fresh.replace(path)
        except OSError as error:
            _log.warning("%s cannot be written (%s): kept in memory", path, error.strerror)


_UNNAMED = "file:"


def _key(file: ElfFile) -> str:
    if file.build_id:
        return f"{file.build_id}:{file.size}"
    facts = os.fstat(file.fd)
    return f"{_UNNAMED}{facts.st_dev}:{facts.st_ino}:{facts.st_size}:{facts.st_mtime_ns}"


def _code_of(located: Located, file: ElfFile) -> str:
    """A digest of the code that is to be probed: a build-id is easily forged."""
    digest = hashlib.sha256()
    for function in located.functions:
        for place in (function.entry, *function.returns):
            digest.update(os.pread(file.fd, _CODE_BYTES, place))
    return digest.hexdigest()


@cache
def _version() -> str:
    """Of the ladder: what any other one found is not believed."""
    digest = hashlib.sha256()
    for source in sorted([*Path(__file__).parent.glob("*.py"), Path(hooks.__file__)]):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:16]
