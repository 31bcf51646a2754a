"""Query parameters that several routes share, checked with messages that say what is expected.

Times are RFC 3339 or a date (midnight in UTC). Roll-ups have hours, so bounds of sums are whole hours.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, TypeVar

import orjson
from fastapi import Query

from mmpipeline.api.problems import BadRequest
from mmpipeline.budgets.periods import Period, bounds
from mmpipeline.store.warehouse.shapes import DIMENSIONS, HOUR_NS, Dimension, Filters, Span
from mmproto.callform import parse_time

_T = TypeVar("_T")

_NS: Final = 1_000_000_000
_MOST_TEXT: Final = 500

Tenant = Annotated[str, Query(max_length=100, description="Whose calls.")]
From = Annotated[
    str | None,
    Query(
        alias="from", description="Start (inclusive): a date or RFC 3339 time. Default: first of the month."
    ),
]
To = Annotated[
    str | None, Query(alias="to", description="End (exclusive): a date or RFC 3339 time. Default: now.")
]
_Name = Annotated[
    str | None, Query(max_length=_MOST_TEXT, description="Only these calls; empty for unallocated ones.")
]
Limit = Annotated[int, Query(ge=1, le=1000, description="Rows of one page.")]
Cursor = Annotated[str | None, Query(max_length=4000, description="`next_cursor` of the page before.")]


def filters(
    team: _Name = None,
    application: _Name = None,
    user: _Name = None,
    provider: _Name = None,
    model: _Name = None,
) -> Filters:
    """The filters of a request, as a dependency."""
    return Filters(team=team, application=application, user=user, provider=provider, model=model)


def moment(text: str, name: str) -> int:
    """A date or an RFC 3339 time as unix nanoseconds. Raises BadRequest."""
    try:
        if len(text) == len("2026-11-23"):
            return int(datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) * _NS
        # `+` of a zone arrives as a blank where a client did not escape it.
        return parse_time(text.replace(" ", "+") if "T" in text else text)
    except (ValueError, OverflowError) as error:
        raise BadRequest(
            f"{name}: a date such as 2026-11-23 or a time such as 2026-11-23T10:00:00Z is expected, "
            f"found {text[:40]!r}",
            name,
        ) from error


def hours(from_: str | None, to: str | None, now_ns: int) -> Span:
    """The span of a question about sums. Raises BadRequest."""
    start = bounds(Period.MONTH, now_ns)[0] if from_ is None else moment(from_, "from")
    end = (now_ns // HOUR_NS + 1) * HOUR_NS if to is None else moment(to, "to")
    for name, at in (("from", start), ("to", end)):
        if at % HOUR_NS:
            raise BadRequest(f"{name}: sums are kept by the hour in UTC; give a whole hour", name)
    return _span(start, end)


def any_time(from_: str | None, to: str | None, now_ns: int) -> Span:
    """The span of a question about single calls: widened to whole hours. Raises BadRequest."""
    start = bounds(Period.MONTH, now_ns)[0] if from_ is None else moment(from_, "from")
    end = now_ns + HOUR_NS if to is None else moment(to, "to")
    return _span(start // HOUR_NS * HOUR_NS, -(-end // HOUR_NS) * HOUR_NS)


def _span(start: int, end: int) -> Span:
    if start >= end:
        raise BadRequest("from: must be before `to`", "from")
    return Span(start, end)


def dimensions(text: str) -> tuple[Dimension, ...]:
    """`team,model,day` as dimensions. Raises BadRequest."""
    known = {name: name for name in DIMENSIONS}
    names = [name.strip() for name in text.split(",") if name.strip()]
    chosen: list[Dimension] = []
    for name in names:
        if name not in known:
            raise BadRequest(f"group_by: {name[:40]!r} is none of {', '.join(DIMENSIONS)}", "group_by")
        dimension = known[name]
        if dimension in chosen:
            raise BadRequest(f"group_by: {name} is given twice", "group_by")
        chosen.append(dimension)
    return tuple(chosen)


def encode_cursor(values: Sequence[str | int]) -> str:
    """A place in a list as an opaque text."""
    return base64.urlsafe_b64encode(orjson.dumps(list(values))).decode().rstrip("=")


def decode_cursor(text: str, shape: Callable[..., _T], types: Sequence[type]) -> _T:
    """What `encode_cursor` made, given to `shape`. Raises BadRequest."""
    try:
        values = orjson.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
        if not isinstance(values, list) or [type(value) for value in values] != list(types):
            raise ValueError("other values than this list has")
        return shape(*values)
    except (ValueError, binascii.Error, UnicodeError, orjson.JSONDecodeError) as error:
        raise BadRequest(
            "cursor: is not one of this list; use `next_cursor` of the page before with the same parameters",
            "cursor",
        ) from error
