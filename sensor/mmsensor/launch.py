"""Where `mmsensor run` goes on once the command line is read: the same process, started over without it.

The library that reads the command line takes 7 MB that a daemon never uses again; `exec` gives them back
and keeps the pid. The order is one JSON argument: configuration file, flags, processes to measure.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from mmproto.exits import Exit
from mmproto.settings import ConfigurationError
from mmsensor import service
from mmsensor.config import load_settings

_DESCRIPTORS = 65536


def launch(config: Path | None, flags: Mapping[str, str], only_pids: Sequence[int]) -> NoReturn:
    """Replaces this process by the daemon."""
    order = {"config": str(config) if config else None, "flags": flags, "only_pids": only_pids}
    sys.stdout.flush()
    # -P: the folder that the daemon happens to be started in is not a place to import from.
    command = [sys.executable, "-P", "-m", "mmsensor.launch", json.dumps(order)]
    try:
        os.execv(sys.executable, command)  # noqa: S606 - that is the point
    except OSError as error:
        text = f"mmsensor: {sys.executable} cannot be started by this user: {error.strerror}; run as root"
        print(text, file=sys.stderr)
        sys.exit(Exit.PERMISSION if isinstance(error, PermissionError) else Exit.UNHEALTHY)


def _allow_descriptors() -> None:
    """Every attached file takes some: the usual 1024 are those of two hundred files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, _DESCRIPTORS)), hard))


def main(order: str) -> int:
    """Runs the sensor as `order` says; returns the exit code."""
    form = json.loads(order)
    _allow_descriptors()
    try:
        settings = load_settings(Path(form["config"]) if form["config"] else None, form["flags"]).settings
        logging.basicConfig(
            stream=sys.stderr, level=settings.log_level.upper(), format="mmsensor: %(levelname)s: %(message)s"
        )
        service.run(settings, frozenset(form["only_pids"]) or None)
    except ConfigurationError as error:
        for problem in error.problems:
            print(f"mmsensor: {problem}", file=sys.stderr)
        return Exit.CONFIGURATION
    except service.CannotStart as error:
        print(f"mmsensor: {error}", file=sys.stderr)
        return error.code
    return Exit.OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
