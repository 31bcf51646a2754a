"""A capture that may have few files open, and a process that maps more libraries than that.

Usage: crowded LIBRARY FOLDER. It is a process of its own, because the limit counts what the process that runs
the tests has open, too.
"""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

from tests.sensor.capture.recorder import Recorder, recording

LIMIT = 400


def attached(recorder: Recorder, folder: Path) -> dict[str, bool]:
    return {
        each.path: each.attached for each in recorder.capture.targets() if each.path.startswith(f"{folder}/")
    }


def in_use() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def main(library: Path, folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    many = [str(shutil.copy(library, folder / f"{number}.so")) for number in range(200)]
    fresh = str(shutil.copy(library, folder / "fresh.so"))
    with recording() as recorder:
        with subprocess.Popen(["/bin/sleep", "600"], env={"LD_PRELOAD": ":".join(many)}) as user:
            recorder.until(lambda: False in attached(recorder, folder).values(), "refused")
            recorder.capture.refresh()
            assert True in attached(recorder, folder).values()
            assert in_use() < 0.9 * LIMIT
            user.kill()
        subprocess.run(["/bin/true"], env={"LD_PRELOAD": fresh}, check=True)

        def has_place() -> bool:
            recorder.capture.refresh()
            return attached(recorder, folder).get(fresh, False)

        recorder.until(has_place, "attached where unused ones were")


main(Path(sys.argv[1]), Path(sys.argv[2]))
