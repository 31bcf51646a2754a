"""How an exchange ends, and what a deployment configures about reading it.

Outcome
├── Recognised   an LLM operation: a Call, with the odd things seen on the way (`anomalies`)
├── Dropped      seen, understood, not ours
└── Failed       should have been a call, or cannot be known
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from mmproto.v1.call_pb2 import Call


@dataclass(frozen=True, slots=True)
class Recognised:
    """A call. Its attribution, process, observer and node are still to be filled in."""

    call: Call
    # Those request headers that `ReadingRules.keep_headers` names, lower-case, never credentials.
    headers: Mapping[str, str] = field(default_factory=dict)
    # Named oddities to be counted: bad_count, contradictory_counts, content_encoding_unsupported, ...
    anomalies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Dropped:
    """Seen, understood, no call: not_llm, server_side, token_counting, retrieval, response_pending, ...

    `call` is what was read of an exchange of an LLM API that costs nothing, for measuring how well it is
    read. It is never an event.
    """

    reason: str
    call: Call | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Failed:
    """Should have been a call, or cannot be known: malformed_http, malformed_json, ..."""

    reason: str


Outcome = Recognised | Dropped | Failed


def _no_hash(_key: str) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class ReadingRules:
    """What a deployment configures about reading."""

    # Further LLM hosts: "host", "host:port" or "*.suffix" (lower-case) -> provider name.
    hosts: Mapping[str, str] = field(default_factory=dict)
    # Names (lower-case) of request headers that attribution rules match on.
    keep_headers: frozenset[str] = frozenset()
    # Keyed hash of a credential; the credential itself goes nowhere else.
    hash_key: Callable[[str], str] = _no_hash
