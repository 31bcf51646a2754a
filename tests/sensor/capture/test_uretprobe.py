"""Whether return probes kill what runs under a seccomp filter, tried on the kernel that is here."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmsensor.capture.kernel import uretprobe

pytestmark = pytest.mark.capture

_PMU = Path("/sys/bus/event_source/devices/uprobe")


def pmu() -> tuple[int, int]:
    number = int((_PMU / "type").read_text())
    return number, int((_PMU / "format" / "retprobe").read_text().strip().partition(":")[2])


def test_this_kernel_spares_sandboxes() -> None:
    """True of every kernel that development and CI run on; a kernel of 6.11 to 6.13 may say False."""
    assert uretprobe.returns_survive_seccomp(*pmu()) is True


def test_a_system_call_on_the_way_out_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on the kernels in question, only that here the function itself makes it: mov $39,%eax; syscall."""
    calling = bytes.fromhex("b8 27 00 00 00 0f 05 c3")
    monkeypatch.setattr(uretprobe, "_CODE", calling + uretprobe._CODE[len(calling) :])
    assert uretprobe.returns_survive_seccomp(*pmu()) is False


def test_without_a_probe_there_is_no_answer() -> None:
    number, bit = pmu()
    assert uretprobe.returns_survive_seccomp(number + 1000, bit) is None
