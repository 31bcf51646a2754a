"""The kernel's news of files that nobody has examined."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mmsensor.capture.discovery.files import Counter, FileWatch, NewFile

pytestmark = pytest.mark.capture

PATIENCE_S = 30.0


@pytest.fixture
def watch() -> Iterator[FileWatch]:
    watch = FileWatch()
    yield watch
    watch.close()


def copied(tmp_path: Path, name: str = "program") -> Path:
    return Path(shutil.copy("/bin/true", tmp_path / name))


def news(watch: FileWatch, wanted: Callable[[NewFile], bool]) -> list[NewFile]:
    """What the kernel has told by now of files that are wanted; everything else is of no interest here."""
    return [new for new in watch.read() if wanted(new)]


def of(path: Path) -> Callable[[NewFile], bool]:
    inode = path.stat().st_ino
    return lambda new: new.key.inode == inode


def test_a_program_is_told_of_once(watch: FileWatch, tmp_path: Path) -> None:
    program = copied(tmp_path)
    facts = program.stat()
    for _ in range(3):
        subprocess.run([program], check=True)
    (new,) = news(watch, of(program))
    assert new.mapping.path.endswith(str(program))
    assert new.key.changed_ns == facts.st_ctime_ns
    assert (new.mapping.major, new.mapping.minor) == (os.major(facts.st_dev), os.minor(facts.st_dev))
    watch.done(new.key)
    subprocess.run([program], check=True)
    assert not news(watch, of(program))


def test_what_was_forgotten_is_told_of_again(watch: FileWatch, tmp_path: Path) -> None:
    program = copied(tmp_path)
    subprocess.run([program], check=True)
    (new,) = news(watch, of(program))
    watch.forget(new.key)
    subprocess.run([program], check=True)
    assert [again.key for again in news(watch, of(program))] == [new.key]


def test_a_file_written_over_is_another_one(watch: FileWatch, tmp_path: Path) -> None:
    program = copied(tmp_path)
    subprocess.run([program], check=True)
    (new,) = news(watch, of(program))
    watch.done(new.key)
    inode = program.stat().st_ino
    shutil.copyfile("/bin/echo", program)
    assert program.stat().st_ino == inode
    subprocess.run([program], check=True, stdout=subprocess.DEVNULL)
    (again,) = news(watch, of(program))
    assert again.key != new.key


def test_a_library_is_told_of_with_its_process(watch: FileWatch, libssl: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(libssl, tmp_path / "plugin"))
    script = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); print(flush=True); sys.stdin.readline()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, copy], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        (new,) = news(watch, of(copy))
        assert new.pid == process.pid
        mapped = f"/proc/{new.pid}/map_files/{new.mapping.start:x}-{new.mapping.end:x}"
        assert os.stat(mapped).st_ino == copy.stat().st_ino  # noqa: PTH116
        process.communicate(b"\n")


def test_mounts_do_not_hide_which_file_it_is(watch: FileWatch, tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("lower", "upper", "work", "merged", "bound")]
    for folder in folders:
        folder.mkdir()
    lower, upper, work, merged, bound = folders
    program = copied(lower)
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], check=True)
    subprocess.run(["mount", "--bind", str(lower), str(bound)], check=True)
    try:
        keys = set()
        for folder in (lower, merged, bound):
            fd = os.open(folder / "program", os.O_RDONLY)
            keys.add(watch.identify(fd))
            os.close(fd)
            subprocess.run([folder / "program"], check=True)
        (key,) = keys
        assert key is not None
        assert key.inode == program.stat().st_ino
        (new,) = news(watch, of(program))
        assert new.key == key
        assert new.mapping.path.endswith(str(program))
    finally:
        subprocess.run(["umount", str(bound)], check=True)
        subprocess.run(["umount", str(merged)], check=True)


def test_what_cannot_be_run_has_no_identity(watch: FileWatch, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    with empty.open("rb") as file:
        assert watch.identify(file.fileno()) is None


def test_a_full_ring_is_counted_and_told_of_later(watch: FileWatch, tmp_path: Path) -> None:
    """More new files than the ring holds, with nobody reading."""
    programs = [copied(tmp_path, f"program{number}") for number in range(600)]
    for program in programs:
        subprocess.run([program], check=True)
    told = {new.key.inode for new in watch.read()}
    inodes = {program.stat().st_ino for program in programs}
    missed = inodes - told
    assert missed
    assert watch.lost >= len(missed)
    assert watch.count(Counter.NEW_FILES) >= len(inodes & told)
    for program in programs:
        if program.stat().st_ino in missed:
            subprocess.run([program], check=True)
    until = time.monotonic() + PATIENCE_S
    while missed and time.monotonic() < until:
        missed -= {new.key.inode for new in watch.read()}
    assert not missed
