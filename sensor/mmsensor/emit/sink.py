"""What the daemon asks of a place for calls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mmproto.v1.call_pb2 import Call


@dataclass(frozen=True, slots=True)
class Taken:
    """What a sink did with a batch: `accepted` calls from its start; the rest was refused for `reason`."""

    accepted: int
    reason: str = ""
    message: str = ""


class Sink(Protocol):
    """Takes calls in batches. `emit` returns when the accepted ones are as safe as the sink makes them."""

    def emit(self, calls: Sequence[Call]) -> Taken: ...

    def status(self) -> dict[str, Any]:
        """What `mmsensor status` shows of the sink: at least `kind`, `target`, `ok` and `problem`."""
        ...

    def close(self) -> None:
        """Delivers what it can in a few seconds and releases everything."""
        ...
