"""The form of an answer and of what has to be read of it."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

SENTENCE = "Eleven is a prime above nine."


@dataclass(frozen=True, slots=True)
class Read:
    """A call as it has to be recorded.

    `buckets` are what the provider reports and is not 0; what it does not is `estimated`, here the truth.
    """

    provider: str
    operation: str
    request_model: str
    response_model: str
    streaming: bool
    buckets: Mapping[str, float]
    quality: str = "EXACT"
    reported_cost_usd: str = ""
    error_type: str = ""
    estimated: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to a request for `path` whose body holds all of `has`: `pieces`, one by one."""

    path: str
    content_type: str
    pieces: tuple[bytes, ...]
    read: Read
    has: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    trailers: Mapping[str, str] = field(default_factory=dict)
    unfinished: bool = False  # the client leaves after these pieces

    def planned(self) -> dict[str, Any]:
        """The form that server.mjs takes."""
        return {
            "path": self.path,
            "has": list(self.has),
            "headers": {"content-type": self.content_type, **self.headers},
            "pieces": [base64.b64encode(piece).decode() for piece in self.pieces],
            "trailers": dict(self.trailers),
            "unfinished": self.unfinished,
        }
