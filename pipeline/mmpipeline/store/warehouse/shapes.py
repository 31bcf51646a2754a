"""What goes into a question to the warehouse and what comes out of it.

Money is integer nano-dollars, times are unix nanoseconds. A sum of money never hides calls without a
price: `unpriced_calls` stands beside it, and where no call of a group has a price the sum is None, not 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from mmproto.v1.call_pb2 import Call

HOUR_NS: Final = 3600 * 1_000_000_000
DAY_NS: Final = 24 * HOUR_NS

Dimension = Literal[
    "team", "application", "user", "provider", "model", "node", "process", "hour", "day", "month"
]
DIMENSIONS: Final[tuple[Dimension, ...]] = get_args(Dimension)

# What a budget's scope can name.
ScopeField = Literal["team", "application", "user", "virtual_key", "model"]


class Unanswerable(ValueError):
    """The roll-ups cannot answer this question; str() says which one they can."""


@dataclass(frozen=True, slots=True)
class Span:
    """From (inclusive) to (exclusive), on whole hours in UTC: the finest grain of the roll-ups.

    Raises ValueError where a bound is not on the hour or nothing lies between them.
    """

    from_unix_ns: int
    to_unix_ns: int

    def __post_init__(self) -> None:
        if self.from_unix_ns % HOUR_NS or self.to_unix_ns % HOUR_NS:
            raise ValueError("the bounds of a span are whole hours in UTC")
        if self.from_unix_ns >= self.to_unix_ns:
            raise ValueError("a span ends after it begins")

    @property
    def whole_days(self) -> bool:
        """Whether both bounds are midnights in UTC, so that the short daily roll-ups can answer."""
        return self.from_unix_ns % DAY_NS == 0 and self.to_unix_ns % DAY_NS == 0


@dataclass(frozen=True, slots=True)
class Filters:
    """Which calls are asked about; None is all, "" is those that no rule allocated."""

    team: str | None = None
    application: str | None = None
    user: str | None = None
    provider: str | None = None
    model: str | None = None

    def chosen(self) -> dict[str, str]:
        """Column and value of each filter that is set."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class CostRow:
    """What one group of calls cost. `group` has one value for each dimension asked for."""

    group: tuple[str, ...]
    calls: int
    unpriced_calls: int
    priced_nano_usd: int

    @property
    def cost_nano_usd(self) -> int | None:
        """What the priced calls cost; None where there are calls and none of them has a price."""
        return None if self.calls and self.calls == self.unpriced_calls else self.priced_nano_usd


@dataclass(frozen=True, slots=True)
class SpendRow(CostRow):
    """What one group of calls used and cost."""

    errors: int
    duration_s: float
    timed_calls: int
    input_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    output_tokens: int
    reasoning_output_tokens: int


@dataclass(frozen=True, slots=True)
class QualityShare:
    """How many calls have a usage of this quality, and what they cost as far as that is known."""

    quality: str
    calls: int
    priced_nano_usd: int


@dataclass(frozen=True, slots=True)
class UnpricedShare:
    """Calls of one model without a price, and why."""

    provider: str
    model: str
    reason: str
    calls: int


@dataclass(frozen=True, slots=True)
class ErrorShare:
    """Calls that failed with one error of one provider."""

    provider: str
    error_type: str
    calls: int


@dataclass(frozen=True, slots=True)
class ObserverSeen:
    """A sensor, SDK or router on a node, and the start of the latest call that it reported."""

    node: str
    observer: str
    calls: int
    last_call_unix_ns: int


@dataclass(frozen=True, slots=True)
class Facets:
    """The values that calls of a span have, for choosing filters from; sorted, at most 500 each."""

    teams: tuple[str, ...]
    applications: tuple[str, ...]
    providers: tuple[str, ...]
    models: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StoredCall:
    """A call as it was reported, with its charge."""

    call: Call
    cost_nano_usd: int | None
    unpriced_reason: str
    rate_card: str


@dataclass(frozen=True, slots=True)
class CallCursor:
    """The place after a call in the order latest first."""

    started_at_unix_ns: int
    id: str


@dataclass(frozen=True, slots=True)
class CallPage:
    """Some calls, latest first, and where the next page begins; None where there is none."""

    calls: tuple[StoredCall, ...]
    next: CallCursor | None


@dataclass(frozen=True, slots=True)
class Relation:
    """Rows of one relation of the data model, and the names of their columns."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True, slots=True)
class TableSize:
    """Rows (before merging) and bytes on disk of one table, all tenants together."""

    table: str
    rows: int
    bytes_on_disk: int
