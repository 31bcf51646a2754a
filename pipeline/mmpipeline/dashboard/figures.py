"""Numbers as people read them.

Money never loses what matters: a small amount shows its leading digits instead of $0.00, a column shows
all its amounts with the same number of decimals so that they line up, and what has no price says so.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from typing import Final

UNPRICED: Final = "unpriced"
NOTHING: Final = "–"

_NANO: Final = 9
_CENTS: Final = 2


def money(nano_usd: int | None) -> str:
    """One amount on its own: cents from a dollar on, three leading digits below. 123_000 is `$0.000123`."""
    if nano_usd is None:
        return UNPRICED
    return _dollars(nano_usd, _decimals(abs(nano_usd)))


def money_column(amounts: Iterable[int | None], most: int = 4) -> list[str]:
    """Amounts under one another: as many decimals as the smallest needs, at most `most`.

    What is smaller than the last decimal shows as `<$0.0001`, never as zero.
    """
    given = list(amounts)
    sizes = [abs(amount) for amount in given if amount]
    decimals = min(most, max((_decimals(size) for size in sizes), default=_CENTS))
    return [_cell(amount, decimals) for amount in given]


def _cell(amount: int | None, decimals: int) -> str:
    if amount is None:
        return UNPRICED
    least = 10 ** (_NANO - decimals)
    if 0 < amount < least / 2:
        return f"<{_dollars(least, decimals)}"
    return _dollars(amount, decimals)


def _decimals(nano_usd: int) -> int:
    """Decimals that show three leading digits, but two from a dollar on and for nothing at all."""
    if nano_usd == 0 or nano_usd >= 995_000_000:
        return _CENTS
    return min(_NANO, max(_CENTS, _NANO + 3 - len(str(nano_usd))))


def _dollars(nano_usd: int, decimals: int) -> str:
    amount = Decimal(nano_usd).scaleb(-_NANO).quantize(Decimal(1).scaleb(-decimals), ROUND_HALF_UP)
    sign = "−" if amount < 0 else ""
    return f"{sign}${abs(amount):,.{decimals}f}"


def count(number: int | None) -> str:
    """A whole number with its thousands apart; a dash where it is not known."""
    return NOTHING if number is None else f"{number:,}"


def short_count(number: int) -> str:
    """A large number in three digits: `1.24 M`."""
    for size, unit in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            share = number / size
            return f"{share:.{0 if share >= 99.95 else 1 if share >= 9.995 else 2}f} {unit}"
    return str(number)


def share(part: int, whole: int) -> str:
    """A part as a percentage that is 0 or 100 only where it is exactly that."""
    if whole <= 0 or part <= 0:
        return "0 %"
    if part >= whole:
        return "100 %" if part == whole else f"{part * 100 / whole:.0f} %"
    percent = part * 100 / whole
    if percent < 0.1:
        return "<0.1 %"
    return f"{min(percent, 99.9):.1f} %"


def duration(seconds: float | None) -> str:
    """A duration in the unit that suits it."""
    if seconds is None:
        return NOTHING
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"


def ago(then_ns: int, now_ns: int) -> str:
    """How long ago something was; the future counts as now."""
    seconds = max(0, now_ns - then_ns) // 1_000_000_000
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit} ago"
    return f"{seconds} s ago"


def clock(unix_ns: int, now_ns: int) -> str:
    """A moment in UTC: the time alone where it is today's."""
    at = datetime.fromtimestamp(min(max(unix_ns, 0) // 1_000_000_000, 253_402_300_799), UTC)
    today = datetime.fromtimestamp(now_ns // 1_000_000_000, UTC).date()
    return at.strftime("%H:%M:%S") if at.date() == today else at.strftime("%-d %b %H:%M:%S")


def day(unix_ns: int) -> str:
    """A day in UTC, as `1 Dec 2026`."""
    return datetime.fromtimestamp(unix_ns // 1_000_000_000, UTC).strftime("%-d %b %Y")
