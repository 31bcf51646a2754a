"""Reading counts out of what providers send, where nothing is certain.

A count that is no plausible count (negative, fractional, boolean, beyond `usage.MAX_TOKENS`) is not used: it
becomes an anomaly and the quality drops. What was not reported is not in the outcome: there are no defaults.
"""

from __future__ import annotations

import math
from typing import Any, Final

from mmproto import usage as limits
from mmproto.providers.facts import Facts
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL, Quality

# Names of anomalies: exposed by `Recognised.anomalies` and counted by reason.
BAD_COUNT: Final = "bad_count"
CONTRADICTORY_COUNTS: Final = "contradictory_counts"
# More of a unit than one call can hold: seconds in three centuries, characters in a library.
_MAX_UNITS: Final = 1e10


class Counts:
    """Reads counts out of a usage object and remembers whether all of them were plausible."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.sound = True

    def get(self, source: Any, *names: str) -> int | None:
        """The first of `names` that `source` reports, None where it reports none or nonsense."""
        if not isinstance(source, dict):
            return None
        for name in names:
            value = source.get(name)
            if value is None:
                continue
            if type(value) is int and 0 <= value <= limits.MAX_TOKENS:
                return value
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # 12.0 is how some JSON writers put 12
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limits.MAX_TOKENS:
                self.doubt(BAD_COUNT)
                continue
            return value
        return None

    def units(self, source: Any, *names: str) -> float | None:
        """As `get`, for an amount that need not be whole: seconds, units of search."""
        if not isinstance(source, dict):
            return None
        for name in names:
            value = source.get(name)
            if value is None:
                continue
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not math.isfinite(value)
                or not 0 <= value <= _MAX_UNITS
            ):
                self.doubt(BAD_COUNT)
                continue
            return float(value)
        return None

    def of_text(self, digits: str | None) -> int | None:
        """A count in a header."""
        if digits is None or not (digits.isascii() and digits.isdigit()):
            if digits is not None:
                self.doubt(BAD_COUNT)
            return None
        return self.get({"": int(digits[:20])}, "")

    def quality(self, *, whole: bool = True) -> Quality:
        """Of a usage of which all that was read is plausible; `whole`: nothing of it is missing."""
        return QUALITY_EXACT if whole and self.sound else QUALITY_PARTIAL

    def doubt(self, reason: str) -> None:
        """The counts cannot all be right."""
        self.sound = False
        self._facts.anomaly(reason)


def divide(
    counts: Counts, tokens: dict[str, int], rest: str, whole: int, subsets: dict[str, int | None]
) -> None:
    """Puts subsets of an INCLUSIVE count and what remains of it into their buckets.

    Subsets that exceed the whole are cut to it and flagged: the total stays the provider's own.
    """
    remaining = whole
    for bucket, count in subsets.items():
        if count is None:
            continue
        if count > remaining:
            counts.doubt(CONTRADICTORY_COUNTS)
        tokens[bucket] = min(count, remaining)
        remaining -= tokens[bucket]
    tokens[rest] = remaining
