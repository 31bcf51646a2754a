"""A process that maps more TLS libraries than the sensor may have files open."""

from __future__ import annotations

import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sensor.capture.recorder import WORKLOADS, Recorder, recording

pytestmark = pytest.mark.capture

LIMIT = 400


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    built = tmp_path_factory.mktemp("many") / "library.so"
    subprocess.run(
        ["clang", "-O2", "-fPIC", "-shared", str(WORKLOADS / "odd_tls.c"), "-o", str(built)], check=True
    )
    return built


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def attached(recorder: Recorder, folder: Path) -> dict[str, bool]:
    return {
        each.path: each.attached for each in recorder.capture.targets() if each.path.startswith(f"{folder}/")
    }


def in_use() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.usefixtures("few_descriptors")
def test_some_descriptors_are_left_and_come_back(library: Path, tmp_path: Path) -> None:
    many = [str(shutil.copy(library, tmp_path / f"{number}.so")) for number in range(200)]
    fresh = str(shutil.copy(library, tmp_path / "fresh.so"))
    with recording() as recorder:
        with subprocess.Popen(["/bin/sleep", "600"], env={"LD_PRELOAD": ":".join(many)}) as user:
            recorder.until(lambda: False in attached(recorder, tmp_path).values(), "refused")
            recorder.capture.refresh()
            assert True in attached(recorder, tmp_path).values()
            assert in_use() < 0.9 * LIMIT
            user.kill()
        subprocess.run(["/bin/true"], env={"LD_PRELOAD": fresh}, check=True)

        def has_place() -> bool:
            recorder.capture.refresh()
            return attached(recorder, tmp_path).get(fresh, False)

        recorder.until(has_place, "attached where unused ones were")
