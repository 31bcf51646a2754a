"""Exit codes of every ModelMeter command: the same whatever the output format."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """What a command's exit code tells a script. 77 and 78 are those of sysexits.h."""

    OK = 0
    UNHEALTHY = 1
    USAGE = 2
    DEGRADED = 3
    UNREACHABLE = 4
    PERMISSION = 77
    CONFIGURATION = 78
