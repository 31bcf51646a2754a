"""What became of a post."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Rejection:
    """A call that was not taken, and why (ingest/admission.py lists the reasons)."""

    id: str
    reason: str


@dataclass(slots=True)
class IngestResult:
    """What became of one post: accepted + duplicates + len(rejected) is what it held."""

    accepted: int = 0
    duplicates: int = 0
    rejected: list[Rejection] = field(default_factory=list)
