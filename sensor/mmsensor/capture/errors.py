"""What can go wrong between us and the kernel.

    CaptureError
    ├── CaptureUnavailable    capture cannot work here at all: no BTF, objects not built
    │   └── CaptureForbidden  it could, with more rights
    └── AttachFailed          one target could not be attached; the others go on

Each carries a `reason` (what happened) and a `hint` (what to do about it), both one line.
"""

from __future__ import annotations


class CaptureError(Exception):
    """Base of everything the capture raises on purpose."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(f"{reason}: {hint}")
        self.reason = reason
        self.hint = hint


class CaptureUnavailable(CaptureError):
    """Nothing can be captured on this machine as things are."""


class CaptureForbidden(CaptureUnavailable):
    """This process has not the rights for it, whoever it runs as."""


class AttachFailed(CaptureError):
    """The kernel refused the probes on one file."""
