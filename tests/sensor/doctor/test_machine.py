"""Kernel, type information, clock and memory, of machines that we do not have."""

from __future__ import annotations

import shutil

import pytest

from mmsensor.capture.kernel import bcc
from mmsensor.doctor import kernel, machine, parts
from mmsensor.doctor.findings import Outcome
from tests.sensor.doctor.machines import Machine

OK, WARN, FAIL, SKIPPED = Outcome.OK, Outcome.WARN, Outcome.FAIL, Outcome.SKIPPED


@pytest.mark.parametrize(
    ("release", "outcome", "word"),
    [
        ("4.19.0-27-amd64", FAIL, "older than 5.15"),
        ("5.10.0-30-amd64", FAIL, "older than 5.15"),
        ("5.15.0-119-generic", OK, "newer ones add one link for many probes (6.6), entry and return"),
        ("6.1.0-25-cloud-amd64", OK, "(6.6)"),
        ("6.6.99", OK, "newer ones add entry and return in one probe (6.13)"),
        ("6.13.0", OK, "with everything there is"),
        ("10.2-rc1+", OK, "with everything there is"),
        ("custom", SKIPPED, "'custom' is no version"),
        ("", SKIPPED, "is no version"),
    ],
)
def test_kernels(release: str, outcome: Outcome, word: str) -> None:
    finding = machine.judge_kernel(release)
    assert finding.outcome is outcome
    assert word in finding.fact


def test_type_information(computer: Machine) -> None:
    assert machine.check_btf(computer.look()).outcome is OK
    file = computer.write("sys/kernel/btf/vmlinux", b"\xeb\x9f other byte order")
    assert "byte order" in machine.check_btf(computer.look()).fact
    file.unlink()
    missing = machine.check_btf(computer.look())
    without = WARN if bcc.is_installed() else FAIL
    assert (missing.outcome, missing.fact.startswith("no type information")) == (without, True)
    assert "CONFIG_DEBUG_INFO_BTF" in missing.fix
    shutil.rmtree(computer.sys)
    assert machine.check_btf(computer.look()).fix == "mount sysfs there"


def test_a_shifted_boot_clock(computer: Machine) -> None:
    assert machine.check_clock(computer.look()).outcome is OK
    computer.write("proc/self/timens_offsets", "monotonic 0 0\nboottime      86400         0\n")
    assert machine.check_clock(computer.look()).outcome is FAIL
    (computer.proc / "self/timens_offsets").unlink()
    assert machine.check_clock(computer.look()).outcome is OK, "kernels before 5.6 have no time namespaces"


@pytest.mark.parametrize(
    ("files", "outcome"),
    [
        ({}, OK),
        ({"proc/meminfo": "MemAvailable:  10000 kB\n"}, WARN),
        ({"proc/meminfo": "nothing\n"}, SKIPPED),
        ({"sys/fs/cgroup/here/memory.max": "33554432\n"}, WARN),
        ({"sys/fs/cgroup/here/memory.max": "max\n"}, OK),
        (
            {
                "proc/self/cgroup": "4:memory:/a\n0::/\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "1048576\n",
            },
            WARN,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/a\n",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": "9223372036854771712\n",
            },
            OK,
        ),
    ],
)
def test_memory(computer: Machine, files: dict[str, str], outcome: Outcome) -> None:
    for path, content in files.items():
        computer.write(path, content)
    assert machine.check_memory(computer.look()).outcome is outcome


def test_a_larger_ring_takes_more_memory(computer: Machine) -> None:
    computer.configure("capture: {ring_bytes: 1GiB}")
    computer.write("proc/meminfo", "MemAvailable:  1000000 kB\n")
    finding = machine.check_memory(computer.look())
    assert finding.outcome is WARN
    assert "1.0 GiB needed" in finding.fact


@pytest.mark.parametrize(
    ("mode", "outcome"),
    [
        ("[none] integrity confidentiality\n", OK),
        ("none [integrity] confidentiality\n", OK),
        ("none integrity [confidentiality]\n", FAIL),
        ("", OK),
    ],
)
def test_lockdown(computer: Machine, mode: str, outcome: Outcome) -> None:
    computer.write("sys/kernel/security/lockdown", mode)
    assert kernel.check_lockdown(computer.look()).outcome is outcome


def test_links_without_rights_are_read_from_the_type_information(computer: Machine) -> None:
    computer.holds(0)
    assert "uprobe_multi, by the kernel's type information" in kernel.check_links(computer.look()).fact
    computer.write("sys/kernel/btf/vmlinux", b"no such function")
    assert "perf events" in kernel.check_links(computer.look()).fact
    (computer.sys / "bus/event_source/devices/uprobe/type").unlink()
    assert kernel.check_links(computer.look()).outcome is FAIL
    shutil.rmtree(computer.sys)
    assert kernel.check_links(computer.look()).outcome is SKIPPED


def test_what_takes_rights_is_not_asked_without_them_and_says_so(computer: Machine) -> None:
    computer.holds(0)
    computer.write("proc/sys/kernel/unprivileged_bpf_disabled", "2\n")
    computer.write("proc/sys/kernel/perf_event_paranoid", "4\n")
    bpf, discovery = kernel.check_bpf(computer.look()), kernel.check_discovery(computer.look())
    assert bpf.outcome is discovery.outcome is SKIPPED
    assert "CAP_BPF, CAP_PERFMON missing; kernel.unprivileged_bpf_disabled = 2 only binds others" in bpf.fact
    assert "CAP_PERFMON missing; kernel.perf_event_paranoid = 4" in discovery.fact


def test_the_second_loader_only_matters_without_type_information(computer: Machine) -> None:
    assert parts.check_bcc(computer.look()).outcome is OK
    (computer.sys / "kernel/btf/vmlinux").unlink()
    assert "python3-bpfcc is" in parts.check_bcc(computer.look()).fact


def test_the_parts_that_are_here(computer: Machine) -> None:
    assert parts.check_libbpf(computer.look()).fact.startswith("libbpf ")
    assert parts.check_probes(computer.look()).fact.startswith("tls.bpf.o and discover.bpf.o, ")
