"""One file and many ways to it: mounts, namespaces, roots, names that are gone or mean another file."""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mmsensor.capture.options import CaptureOptions, TargetStatus
from tests.sensor.capture.recorder import PATIENCE_S, Recorder, Workload, recording, started
from tests.sensor.capture.test_completeness import Certificate, assert_same, libssl_workload

pytestmark = pytest.mark.capture

ROOT = Path(__file__).parents[4]
SIZES = [10, 20_000]


def exchange(recorder: Recorder, workload: Workload) -> dict[str, Any]:
    """The workload's two connections from their first byte; it stands ready and its file is known."""
    workload.go()
    workload.line()
    workload.go()
    return recorder.result(workload)


def below(recorder: Recorder, folder: Path) -> list[TargetStatus]:
    return [each for each in recorder.capture.targets() if each.path.startswith(f"{folder}/")]


def until_attached(recorder: Recorder, folder: Path, files: int) -> list[TargetStatus]:
    recorder.until(
        lambda: [each.attached for each in below(recorder, folder)] == [True] * files, f"{files} attached"
    )
    return below(recorder, folder)


@contextmanager
def mounted(*arguments: str) -> Iterator[None]:
    """The last argument is where."""
    subprocess.run(["mount", *arguments], check=True)
    try:
        yield
    finally:
        # Lazily: any other sensor on the machine holds the file for a while.
        subprocess.run(["umount", "--lazy", arguments[-1]], check=True)


@contextmanager
def another_mount(kind: str, folder: Path) -> Iterator[tuple[Path, Path]]:
    """A folder, and another that shows the same files."""
    plain, other, upper, work = (folder / name for name in ("plain", "other", "upper", "work"))
    for each in (plain, other, upper, work):
        each.mkdir()
    overlay = f"lowerdir={plain},upperdir={upper},workdir={work}"
    arguments = {"overlay": ["-t", "overlay", "overlay", "-o", overlay], "bind": ["--bind", str(plain)]}
    with mounted(*arguments[kind], str(other)):
        yield plain, other


@pytest.mark.parametrize("kind", ["overlay", "bind"])
def test_one_file_through_two_mounts_is_one_target(
    kind: str, libssl: Path, certificate: Certificate, tmp_path: Path
) -> None:
    with another_mount(kind, tmp_path) as (plain, other):
        shutil.copy(libssl, plain / "libssl.so.3")
        with recording() as recorder:
            commands = [
                libssl_workload(folder / "libssl.so.3", certificate, "sizes", sizes=SIZES)
                for folder in (plain, other)
            ]
            with started(commands[0]) as one, started(commands[1]) as two:
                for workload in (one, two):
                    recorder.capture.allow(workload.pid)
                    workload.line()
                until_attached(recorder, tmp_path, 1)
                recorder.capture.refresh()
                (target,) = below(recorder, tmp_path)
                assert target.processes == 2
                ends = exchange(recorder, one)["ends"] + exchange(recorder, two)["ends"]
                recorder.until_closed(4)
                assert_same(recorder, ends)
                assert not any(recorder.capture.statistics().lost.values())


def test_a_file_of_another_mount_namespace(libssl: Path, certificate: Certificate, tmp_path: Path) -> None:
    """On a file system that nobody else sees."""
    script = 'mount -t tmpfs none "$1" && cp "$2" "$1/libssl.so.3" && shift 2 && exec "$@"'
    inner = tmp_path / "inner"
    inner.mkdir()
    command = libssl_workload(inner / "libssl.so.3", certificate, "sizes", sizes=SIZES)
    with (
        recording() as recorder,
        started(
            ["unshare", "--mount", "sh", "-c", script, "sh", str(inner), str(libssl), *command]
        ) as workload,
    ):
        recorder.capture.allow(workload.pid)
        workload.line()
        assert not (inner / "libssl.so.3").exists()
        until_attached(recorder, inner, 1)
        result = exchange(recorder, workload)
        recorder.until_closed(2)
        assert_same(recorder, result["ends"])


def test_a_file_in_another_root(libssl: Path, certificate: Certificate, tmp_path: Path) -> None:
    """The path that its process knows names another file, or none, for us."""
    script = (
        'mount --rbind / "$1" && mount -t tmpfs none "$1/mnt" && cp "$2" "$1/mnt/libssl-inner.so" &&'
        ' root=$1 && shift 2 && exec chroot "$root" sh -c \'cd "$0" && exec "$@"\' "$@"'
    )
    root = tmp_path / "root"
    root.mkdir()
    command = libssl_workload(Path("/mnt/libssl-inner.so"), certificate, "sizes", sizes=SIZES)
    outer = ["unshare", "--mount", "sh", "-c", script, "sh", str(root), str(libssl), str(ROOT), *command]
    with recording() as recorder, started(outer) as workload:
        recorder.capture.allow(workload.pid)
        workload.line()
        assert not Path("/mnt/libssl-inner.so").exists()
        recorder.until(
            lambda: any(
                each.attached and each.path.endswith("/mnt/libssl-inner.so")
                for each in recorder.capture.targets()
            ),
            "attached",
        )
        result = exchange(recorder, workload)
        recorder.until_closed(2)
        assert_same(recorder, result["ends"])


def test_a_deleted_file_that_is_still_used(libssl: Path, certificate: Certificate, tmp_path: Path) -> None:
    copy = tmp_path / "libssl.so.3"
    shutil.copy(libssl, copy)
    with started(libssl_workload(copy, certificate, "sizes", sizes=SIZES)) as workload:
        workload.line()
        copy.unlink()
        with recording([workload.pid]) as recorder:
            (target,) = below(recorder, tmp_path)
            assert target.attached
            assert target.path == str(copy)
            result = exchange(recorder, workload)
            recorder.until_closed(2)
            assert_same(recorder, result["ends"])


def test_an_upgrade_leaves_old_processes_their_file(
    libssl: Path, certificate: Certificate, tmp_path: Path
) -> None:
    """As package managers do it: the new file gets the old one's name."""
    copy = tmp_path / "libssl.so.3"
    shutil.copy(libssl, copy)
    command = libssl_workload(copy, certificate, "sizes", sizes=SIZES)
    with recording(options=CaptureOptions(linger_s=0)) as recorder:
        with started(command) as old:
            recorder.capture.allow(old.pid)
            old.line()
            until_attached(recorder, tmp_path, 1)
            shutil.copy(libssl, tmp_path / "new")
            (tmp_path / "new").replace(copy)
            with started(command) as new:
                recorder.capture.allow(new.pid)
                new.line()
                until_attached(recorder, tmp_path, 2)
                recorder.capture.refresh()
                targets = below(recorder, tmp_path)
                assert [each.processes for each in targets] == [1, 1]
                assert [each.path for each in targets] == [str(copy)] * 2
                assert len({each.inode for each in targets}) == 2
                ends = exchange(recorder, old)["ends"] + exchange(recorder, new)["ends"]
                recorder.until_closed(4)
                assert_same(recorder, ends)
        recorder.capture.refresh()
        assert not below(recorder, tmp_path), "unused and not let go"


def test_a_file_nobody_uses_does_not_keep_its_mount(
    libssl: Path, certificate: Certificate, tmp_path: Path
) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(inner)], check=True)
    shutil.copy(libssl, inner / "libssl.so.3")
    with recording(options=CaptureOptions(linger_s=0)) as recorder:
        with started(libssl_workload(inner / "libssl.so.3", certificate, "peeking")) as workload:
            workload.line()
            until_attached(recorder, inner, 1)
            assert subprocess.run(["umount", str(inner)], check=False, capture_output=True).returncode
        recorder.capture.refresh()
        assert not below(recorder, inner)
    # Another sensor on this machine may hold it for its own minute.
    until = time.monotonic() + 2 * PATIENCE_S
    while subprocess.run(["umount", str(inner)], check=False, capture_output=True).returncode:
        assert time.monotonic() < until
        time.sleep(0.5)
