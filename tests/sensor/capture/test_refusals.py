"""Where the probes would do harm, or would be read wrongly, there are none."""

from __future__ import annotations

import struct

import pytest

from mmsensor.capture.errors import AttachFailed, CaptureUnavailable
from mmsensor.capture.functions import Function
from mmsensor.capture.kernel import abi, probes
from mmsensor.capture.kernel.probes import Kernel
from mmsensor.capture.options import CaptureOptions

pytestmark = pytest.mark.capture


def test_probes_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading their maps would write beyond our buffers."""
    monkeypatch.setattr(abi, "CONNECTION", struct.Struct("=4Q2I"))
    with pytest.raises(CaptureUnavailable, match=r"not of this sensor's version \(map connections\)"):
        Kernel(CaptureOptions())


def test_no_return_probe_where_it_would_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """No kernel that does so can be had here: the finding of the trial is given."""
    monkeypatch.setattr(probes, "returns_survive_seccomp", lambda _pmu, _bit: False)
    kernel = Kernel(CaptureOptions())
    try:
        with pytest.raises(AttachFailed, match="kills programs that run under seccomp"):
            kernel.attach("/proc/self/exe", [Function("SSL_read", 0x1000)], 0)
    finally:
        kernel.close()
