"""Rights: ours, the unit's, and what /proc shows of others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from mmsensor.capture.kernel.privileges import RIGHTS
from mmsensor.doctor import rights
from mmsensor.doctor.findings import Outcome
from tests.sensor.doctor.machines import Machine

UNITS = Path(__file__).parents[3] / "systemd"
UNIT = "modelmeter-sensor.service"
NUMBERS = {right.name: right.number for right in RIGHTS}
OK, WARN, FAIL = Outcome.OK, Outcome.WARN, Outcome.FAIL


def bits(*names: str) -> int:
    return sum(1 << NUMBERS[name] for name in names)


FIVE = bits("CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH", "CAP_CHECKPOINT_RESTORE")


def test_the_five_are_enough(computer: Machine) -> None:
    computer.holds(FIVE)
    assert rights.check_capabilities(computer.look()).outcome is OK


def test_what_is_missing_is_named(computer: Machine) -> None:
    computer.holds(FIVE & ~bits("CAP_BPF"))
    finding = rights.check_capabilities(computer.look())
    # A person without root may only be looking; for root nothing better can come.
    assert finding.outcome is (WARN if os.geteuid() else FAIL)
    assert finding.fact.endswith("does not hold CAP_BPF")
    computer.holds(FIVE & ~bits("CAP_SYS_PTRACE"))
    assert rights.check_capabilities(computer.look()).outcome is WARN


def test_holding_processes_takes_a_right_more(computer: Machine) -> None:
    computer.holds(FIVE)
    computer.configure("capture: {hold_first_exec: true}")
    finding = rights.check_capabilities(computer.look())
    assert (finding.outcome, "does not hold CAP_KILL" in finding.fact) == (WARN, True)
    finding = rights.judge_unit([UNITS], computer.look().needs)
    assert (finding.outcome, "does not grant CAP_KILL" in finding.fact) == (WARN, True)


def test_without_proc(computer: Machine) -> None:
    (computer.proc / "self/status").unlink()
    finding = rights.check_capabilities(computer.look())
    assert (finding.outcome, "is not the kernel's" in finding.fact) == (FAIL, True)


def test_no_unit_is_no_fault(tmp_path: Path) -> None:
    assert rights.judge_unit([tmp_path]).outcome is OK


def test_our_own_unit_grants_what_is_needed() -> None:
    finding = rights.judge_unit([UNITS])
    assert (finding.outcome, finding.fact) == (OK, f"{UNITS / UNIT} grants what the sensor needs")


def test_on_a_kernel_without_better_links_the_unit_needs_its_drop_in(tmp_path: Path) -> None:
    shutil.copy(UNITS / UNIT, tmp_path)
    finding = rights.judge_unit([tmp_path], perf_events=True)
    assert (finding.outcome, "CAP_SYS_ADMIN" in finding.fact) == (WARN, True)
    (tmp_path / f"{UNIT}.d").mkdir()
    shutil.copy(UNITS / "sensor-before-linux-6.6.conf", tmp_path / f"{UNIT}.d")
    assert rights.judge_unit([tmp_path], perf_events=True).outcome is OK


@pytest.mark.parametrize(
    ("unit", "drop_in", "outcome", "word"),
    [
        ("User=mm\nAmbientCapabilities=CAP_BPF CAP_PERFMON\n", "", WARN, "does not grant CAP_SYS_PTRACE"),
        ("User=mm\nAmbientCapabilities=CAP_SYS_PTRACE\n", "", FAIL, "does not grant CAP_BPF, CAP_PERFMON"),
        ("User=mm\n#AmbientCapabilities=CAP_BPF\n", "", FAIL, "CAP_BPF"),
        (
            "User=mm\n",
            "AmbientCapabilities=CAP_SYS_ADMIN CAP_SYS_PTRACE\n",
            WARN,
            "grant CAP_DAC_READ_SEARCH:",
        ),
        ("User=mm\nAmbientCapabilities=CAP_BPF\n", "AmbientCapabilities=\n", FAIL, "CAP_BPF, CAP_PERFMON"),
        ("User=root\n", "", OK, "grants what"),
        ("User=root\n", "CapabilityBoundingSet=~CAP_BPF CAP_SYS_ADMIN\n", FAIL, "does not grant CAP_BPF:"),
        ("", "User=mm\n", FAIL, "CAP_BPF"),
        ("CapabilityBoundingSet=\n", "", FAIL, "CAP_BPF"),
    ],
)
def test_units_as_people_edit_them(
    tmp_path: Path, unit: str, drop_in: str, outcome: Outcome, word: str
) -> None:
    (tmp_path / UNIT).write_text(f"[Service]\n{unit}")
    if drop_in:
        (tmp_path / f"{UNIT}.d").mkdir()
        (tmp_path / f"{UNIT}.d" / "override.conf").write_text(f"[Service]\n{drop_in}")
    finding = rights.judge_unit([tmp_path / "nothing", tmp_path])
    assert finding.outcome is outcome, finding
    assert word in finding.fact


def test_hidden_processes(computer: Machine) -> None:
    assert rights.check_processes(computer.look()).outcome is OK
    computer.write("proc/self/mountinfo", "22 1 0:20 / /proc rw - proc proc rw,hidepid=invisible\n")
    assert rights.check_processes(computer.look()).outcome is OK, "who holds CAP_SYS_PTRACE sees them"
    computer.holds(FIVE & ~bits("CAP_SYS_PTRACE"))
    finding = rights.check_processes(computer.look())
    assert (finding.outcome, "hidepid=invisible hides" in finding.fact) == (WARN, True)
