"""Files that appear while a capture runs are found, whatever the news of them come from."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mmsensor.capture.discovery import proc
from mmsensor.capture.options import CaptureOptions, HintSource, TargetStatus
from tests.sensor.capture.recorder import Recorder, Workload, recording, started
from tests.sensor.capture.test_completeness import Certificate, assert_same, libssl_workload

pytestmark = pytest.mark.capture

#: No test waits for a reconcile that hints did not ask for, but where there are none.
NEVER_S = 3600.0


def below(recorder: Recorder, folder: Path) -> list[TargetStatus]:
    return [each for each in recorder.capture.targets() if each.path.startswith(f"{folder}/")]


@pytest.mark.parametrize("source", list(HintSource))
def test_a_new_library_is_found(
    source: HintSource, libssl: Path, certificate: Certificate, tmp_path: Path
) -> None:
    options = CaptureOptions(hint_source=source, reconcile_every_s=NEVER_S)
    copy = Path(shutil.copy(libssl, tmp_path / "innocent.bin"))
    with (
        recording(options=options) as recorder,
        started(libssl_workload(copy, certificate, "sizes", sizes=[77, 30_000])) as workload,
    ):
        assert recorder.capture.statistics().hints == source
        recorder.capture.allow(workload.pid)
        workload.line()
        recorder.until(lambda: any(each.attached for each in below(recorder, tmp_path)), "attached")
        workload.go()
        workload.line()
        workload.go()
        result = recorder.result(workload)
        recorder.until_closed(2)
        assert_same(recorder, result["ends"])


@pytest.mark.parametrize("source", [HintSource.KERNEL, HintSource.PERF])
def test_a_library_of_a_process_that_is_gone_is_probed_for_the_next(
    source: HintSource, libssl: Path, tmp_path: Path
) -> None:
    options = CaptureOptions(hint_source=source, reconcile_every_s=NEVER_S)
    script = "import ctypes, sys; [ctypes.CDLL(path) for path in sys.argv[1:]]"
    with recording(options=options) as recorder:
        copies = [str(shutil.copy(libssl, tmp_path / f"{number}.so")) for number in range(5)]
        subprocess.run([sys.executable, "-c", script, *copies], check=True)
        recorder.until(
            lambda: [each.attached for each in below(recorder, tmp_path)] == [True] * len(copies),
            "every one attached",
        )
        recorder.capture.refresh()
        assert not any(each.processes for each in below(recorder, tmp_path))


def test_who_comes_while_a_library_is_let_go_is_captured(
    libssl: Path, certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells nothing of a file that was examined, and the look through /proc was a moment early."""
    copy = Path(shutil.copy(libssl, tmp_path / "rare.so"))
    command = libssl_workload(copy, certificate, "sizes", sizes=[77, 30_000])
    options = CaptureOptions(linger_s=0, reconcile_every_s=NEVER_S, ring_bytes=16 << 20)
    with ExitStack() as stack:
        recorder = stack.enter_context(recording(options=options))
        with started(command) as first:
            first.line()
            recorder.until(lambda: any(each.attached for each in below(recorder, tmp_path)), "attached")
        late: list[Workload] = []
        look = proc.pids

        def look_and_be_late(root: Path) -> Iterator[int]:
            found = list(look(root))
            if not late:
                late.append(stack.enter_context(started(command)))
                recorder.capture.allow(late[0].pid)
                late[0].line()
            return iter(found)

        monkeypatch.setattr(proc, "pids", look_and_be_late)
        recorder.capture.refresh()
        (workload,) = late
        workload.go()
        workload.line()
        workload.go()
        result = recorder.result(workload)
        recorder.until_closed(2)
        assert_same(recorder, result["ends"])


def test_a_library_written_over_in_place_is_read_again(
    libssl: Path, certificate: Certificate, tmp_path: Path
) -> None:
    """The same inode, which was of no interest before."""
    copy = Path(shutil.copy("/bin/true", tmp_path / "plugin"))
    script = "import mmap, sys; f = open(sys.argv[1], 'rb'); mmap.mmap(f.fileno(), 0, mmap.MAP_PRIVATE, 5)"
    with recording(options=CaptureOptions(reconcile_every_s=NEVER_S)) as recorder:
        subprocess.run([sys.executable, "-c", script, str(copy)], check=True)
        recorder.capture.refresh()
        assert not below(recorder, tmp_path)
        shutil.copyfile(libssl, copy)
        with started(libssl_workload(copy, certificate, "peeking")) as workload:
            workload.line()
            recorder.until(lambda: any(each.attached for each in below(recorder, tmp_path)), "attached")
            recorder.capture.refresh()
            (target,) = below(recorder, tmp_path)
            assert target.processes == 1
