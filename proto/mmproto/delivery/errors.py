"""What can go wrong between a finished call and the pipeline that books it.

    DeliveryError
    ├── SpoolFull           no room: the byte cap is reached, or the disk is
    ├── SpoolUnavailable    the spool cannot be opened: a permission, another process, a broken disk
    └── PostError
        ├── Retry           the pipeline is away, busy or unauthorised: the same batch again, later
        └── Rejected        the batch itself is at fault: sending it again would change nothing

Each message is one line for a person and says what to do where there is something to do.
"""

from __future__ import annotations


class DeliveryError(Exception):
    """Root of the tree above."""


class SpoolFull(DeliveryError):
    """Records were not taken. `accepted`: how many of the batch, from its start, are durable all the same.

    `reason` is a name for counters: `spool_full` (the cap) or `disk_full`.
    """

    def __init__(self, reason: str, message: str, accepted: int) -> None:
        super().__init__(message)
        self.reason = reason
        self.accepted = accepted


class SpoolUnavailable(DeliveryError):
    """The spool cannot be used at all. `permission`: whether rights are what is missing."""

    def __init__(self, message: str, permission: bool = False) -> None:
        super().__init__(message)
        self.permission = permission


class PostError(DeliveryError):
    """A batch was not acknowledged. `reason` is a name for counters (`timeout`, `http_503`, ...)."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Retry(PostError):
    """Nothing is known to be wrong with the batch. `after_s`: the pause that the pipeline asked for."""

    def __init__(self, reason: str, message: str, after_s: float | None = None) -> None:
        super().__init__(reason, message)
        self.after_s = after_s


class Rejected(PostError):
    """The batch was read, or was too large to be, and will never be taken as it is."""
