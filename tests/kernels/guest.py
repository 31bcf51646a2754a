"""What holds on every kernel of the matrix, run inside it by `make test-kernels`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmsensor.capture.errors import CaptureUnavailable
from mmsensor.capture.options import CaptureOptions, LinkKind, Loader
from mmsensor.capture.session import Capture
from tests.kernels.matrix import MATRIX, Kernel
from tests.sensor.capture.recorder import recording
from tests.sensor.capture.test_completeness import Certificate, test_every_size_both_directions

__all__: list[str] = []


def this_kernel() -> Kernel:
    return next(each for each in MATRIX if os.uname().release.startswith(f"{each.series}."))


def refusal(options: CaptureOptions | None = None) -> str:
    with pytest.raises(CaptureUnavailable) as caught:
        Capture(options).start()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_it_has_the_links_of_its_version() -> None:
    """Every program passes the verifier for every kind, and a kind that is missing is missed by its name."""
    expected = this_kernel().links
    for kind in LinkKind:
        options = CaptureOptions(link_kind=kind)
        if kind in expected:
            with recording(options=options) as recorder:
                assert recorder.capture.statistics().link_kind == kind
        else:
            assert f"the kernel has no {kind} links" in refusal(options)
    with recording() as recorder:
        assert recorder.capture.statistics().link_kind == expected[0], "not the best kind that there is"


@pytest.mark.usefixtures("without_bpf_loop")
def test_calls_of_every_size_without_bpf_loop(libssl: Path, certificate: Certificate) -> None:
    test_every_size_both_directions(this_kernel().links[0], libssl, certificate)


@pytest.mark.usefixtures("without_btf")
def test_a_kernel_without_btf_is_refused_in_one_line() -> None:
    assert "the kernel has no BTF" in refusal(CaptureOptions(loader=Loader.LIBBPF))


def test_a_kernel_that_is_too_old_is_refused_in_one_line() -> None:
    assert "Linux 5.15 or newer" in refusal()
