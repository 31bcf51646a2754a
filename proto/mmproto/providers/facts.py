"""What reading an exchange brings to light, before it becomes a `Call`.

Nothing here has a default that could be taken for a report: "" and None mean that nobody said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, DecimalException
from typing import Any, Final

from mmproto.v1.usage_pb2 import QUALITY_UNKNOWN, Quality

_MAX_TEXT: Final = 512  # model names, ids and tiers are short; what is longer is damage
_NAME: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
# Beyond any call's cost in dollars: damage, or another unit.
_MAX_USD: Final = 1_000_000


@dataclass(slots=True)
class Facts:
    """What is known about an exchange so far."""

    request_model: str = ""
    stream_requested: bool = False
    streamed: bool | None = None  # whether the answer came as a stream, where its framing does not tell
    request_tier: str = ""
    end_user: str = ""
    session: str = ""
    request_shaped: bool = False  # the request looks like one of this dialect
    response_shaped: bool = False  # the response does
    response_id: str = ""
    response_model: str = ""
    response_tier: str = ""
    finish_reasons: list[str] = field(default_factory=list)
    error_type: str | None = None  # None: no error; "": an error without a name
    terminated: bool = False  # the response said itself that it is complete
    # Why the exchange costs nothing whatever numbers it shows, e.g. `token_counting`; "" where it costs.
    free: str = ""
    # What the provider itself says that the call cost, in nano-dollars.
    reported_cost_nano_usd: int | None = None
    anomalies: list[str] = field(default_factory=list)

    def anomaly(self, reason: str) -> None:
        """Notes a named oddity, once."""
        if reason not in self.anomalies:
            self.anomalies.append(reason)


@dataclass(slots=True)
class Measured:
    """Usage in disjoint buckets, and how far it can be trusted."""

    tokens: dict[str, int] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)
    quality: Quality = QUALITY_UNKNOWN
    estimated: tuple[str, ...] = ()  # those of the buckets that are our estimate


@dataclass(slots=True)
class Portion:
    """A call of its own inside an exchange: a response of a session, a line of a batch, an advisor's pass.

    `suffix` tells apart what shares one response id; `operation` is "" where it is the dialect's.
    """

    facts: Facts
    measured: Measured
    operation: str = ""
    suffix: str = ""


def text(value: Any) -> str:
    """`value` where it is a text of reasonable length, else ""."""
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        return ""
    # A JSON text may name a lone surrogate, which no UTF-8 and so no protobuf field can hold.
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def nano_usd(value: Any, per_usd: int = 1) -> int | None:
    """A provider's own cost, given in 1/`per_usd` dollars, in nano-dollars; None where it is no amount."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        usd = Decimal(str(value).strip()) / per_usd
    except DecimalException:
        return None
    if not usd.is_finite() or not 0 <= usd < _MAX_USD:
        return None
    return int((usd * 1_000_000_000).to_integral_value())


def error_name(error: Any) -> str:
    """The provider's name for an error: its code where that is a word, else its type, else a numeric code.

    A sentence is no name: it may quote what was asked, or a key.
    """
    if not isinstance(error, Mapping):
        return ""
    code, kind = error.get("code"), error.get("type") or error.get("status")
    for name in (code, kind):
        if isinstance(name, str) and not name.isdigit() and _NAME.fullmatch(name):
            return name
    return str(code) if isinstance(code, int | str) and str(code).lstrip("-").isdigit() else ""
