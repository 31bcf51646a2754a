"""Files that are written over while probes sit in them, and files whose owner makes others wait."""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmsensor.capture.options import CaptureOptions, TargetStatus
from tests.sensor.capture.recorder import WORKLOADS, Recorder, recording

pytestmark = pytest.mark.capture


def built(folder: Path, moved: int) -> Path:
    """odd_tls.c with its functions moved by so many bytes."""
    library, before = folder / f"moved{moved}.so", folder / f"before{moved}.s"
    before.write_text(f".text\n.skip {moved}\n")
    sources = [str(before), str(WORKLOADS / "odd_tls.c")]
    subprocess.run(["clang", "-O2", "-fPIC", "-shared", *sources, "-o", str(library)], check=True)
    return library


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("versions")
    return built(folder, 0), built(folder, 64)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """One that looks by itself only long after the test."""
    with recording([], CaptureOptions(reconcile_every_s=600.0)) as running:
        yield running


def use(library: Path) -> None:
    """Loads it in a process that ends at once."""
    subprocess.run(["/bin/true"], env={"LD_PRELOAD": str(library)}, check=True)


def target(recorder: Recorder, library: Path) -> TargetStatus | None:
    return next((each for each in recorder.capture.targets() if each.path == str(library)), None)


def is_attached(recorder: Recorder, library: Path) -> bool:
    found = target(recorder, library)
    return found is not None and found.attached


def test_a_file_that_is_written_over_loses_its_probes_at_once(
    recorder: Recorder, versions: tuple[Path, Path], tmp_path: Path
) -> None:
    library = Path(shutil.copy(versions[0], tmp_path / "library.so"))
    use(library)
    recorder.until(lambda: is_attached(recorder, library), "attached")
    shutil.copyfile(versions[1], library)
    recorder.until(lambda: target(recorder, library) is None, "let go")
    use(library)
    recorder.until(lambda: is_attached(recorder, library), "attached as it is now")


def test_one_written_through_a_mapping_is_examined_anew_when_it_is_used(
    recorder: Recorder, versions: tuple[Path, Path], tmp_path: Path
) -> None:
    library = Path(shutil.copy(versions[0], tmp_path / "library.so"))
    use(library)
    recorder.until(lambda: is_attached(recorder, library), "attached")
    with library.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[:4] = b"none"
        memory.flush()
        os.utime(library, (0, 0))
        # It is no program any more; as a script it is one that is mapped by nobody, so it is mapped here.
        mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC).close()
    recorder.until(lambda: target(recorder, library) is None, "let go")


def test_a_lease_keeps_nobody_waiting(
    recorder: Recorder, versions: tuple[Path, Path], tmp_path: Path
) -> None:
    """The owner is told that somebody opens the file, and does nothing about it."""
    leased = Path(shutil.copy(versions[0], tmp_path / "leased.so"))
    library = Path(shutil.copy(versions[1], tmp_path / "library.so"))
    told = signal.signal(signal.SIGIO, signal.SIG_IGN)
    handle = os.open(leased, os.O_RDWR)
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        with mmap.mmap(handle, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC):
            use(library)
            recorder.until(lambda: is_attached(recorder, library), "attached")
            assert target(recorder, leased) is None
            assert fcntl.fcntl(handle, fcntl.F_GETLEASE) is not None
    finally:
        os.close(handle)
        signal.signal(signal.SIGIO, told)
