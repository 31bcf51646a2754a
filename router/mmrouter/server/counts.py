"""What happened since the start, by reason: the numbers behind `/-/metrics` and `mmrouter status`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """Each request ends in exactly one of `ended`, `refused` and `answered`.

    calls          recorded as calls
    ended          forwarded requests by how they ended (complete, client_disconnected, ...)
    refused        requests answered with an error of the router's own, by code
    answered       the router's own pages
    rejected       connections and bytes that never became a request, by reason
    unread         forwarded calls of which no record could be made, by reason
    reader_errors  defects of the reader of usage, by exception
    """

    connections: int = 0
    calls: int = 0
    answered: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    unread: Counter[str] = field(default_factory=Counter)
    reader_errors: Counter[str] = field(default_factory=Counter)
