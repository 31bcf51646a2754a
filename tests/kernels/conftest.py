"""What makes a kernel look older than it is. Only for those that are booted for it: it mounts over /sys."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mmsensor.capture.kernel.btf import KERNEL_BTF
from tests.sensor.capture.conftest import certificate, libssl

__all__ = ["certificate", "libssl", "without_bpf_loop", "without_btf"]


@contextmanager
def _mounted(at: Path, *arguments: str) -> Iterator[None]:
    subprocess.run(["mount", *arguments, str(at)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(at)], check=True)


@pytest.fixture
def without_bpf_loop(tmp_path: Path) -> Iterator[None]:
    """The kernel's type information, where the probes look for bpf_loop, with another name in its place.

    The same object then takes the way of kernels before 5.17, and this kernel's verifier walks it.
    """
    types = KERNEL_BTF.read_bytes()
    assert types.count(b"\0BPF_FUNC_loop\0") == 1
    altered = tmp_path / "vmlinux"
    altered.write_bytes(types.replace(b"\0BPF_FUNC_loop\0", b"\0BPF_FUNC_none\0"))
    with _mounted(KERNEL_BTF, "--bind", str(altered)):
        yield


@pytest.fixture
def without_btf() -> Iterator[None]:
    with _mounted(KERNEL_BTF.parent, "-t", "tmpfs", "none"):
        yield
