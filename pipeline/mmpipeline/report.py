"""What was spent, by whatever people ask for: from the running pipeline, or from its folder.

chDB allows one process a folder. While the pipeline runs, its API is asked; while it does not, the folder
is opened here, and rows that still wait in the outbox are delivered first, so that the answer is whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from mmpipeline import client
from mmpipeline.api.spend import group_form
from mmpipeline.config import PipelineSettings
from mmpipeline.ingest.writer import WarehouseWriter
from mmpipeline.store.control.database import Database
from mmpipeline.store.warehouse.shapes import DIMENSIONS, Dimension, Span
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmproto.callform import format_time

_NS = 1_000_000_000
_TIMES = frozenset({"hour", "day", "month"})


class ReportError(ValueError):
    """The question makes no sense; str() says what is expected."""


def dimensions(names: Sequence[str]) -> tuple[Dimension, ...]:
    """Names as dimensions. Raises ReportError."""
    known: dict[str, Dimension] = {name: name for name in DIMENSIONS}
    for name in names:
        if name not in known:
            raise ReportError(f"cannot report by '{name}'; known are {', '.join(DIMENSIONS)}")
    if len(set(names)) != len(names):
        raise ReportError("each dimension can be given once")
    return tuple(known[name] for name in names)


def span_of(month: str | None, since: str | None, until: str | None, now_unix_ns: int) -> Span:
    """The span of a month ("2026-11"), or of days from `since` up to but without `until`.

    The current month where nothing is given; up to now where only `since` is. Raises ReportError.
    """
    today = datetime.fromtimestamp(now_unix_ns // _NS, UTC).date()
    if month is not None and (since is not None or until is not None):
        raise ReportError("give a month, or days from and to, not both")
    if since is None and until is not None:
        raise ReportError("an end needs a beginning: give the day from which to report")
    if since is None:
        first = _day(f"{month}-01", f"'{month}' is no month; write it as 2026-11") if month else today
        first = first.replace(day=1)
        last = (first + timedelta(days=31)).replace(day=1)
    else:
        first = _day(since, f"'{since}' is no day; write it as 2026-11-01")
        last = today + timedelta(days=1)
        if until is not None:
            last = _day(until, f"'{until}' is no day; write it as 2026-11-30")
    if first >= last:
        raise ReportError(f"nothing lies between {first} and {last}")
    return Span(_midnight(first), _midnight(last))


def report_from_api(url: str, tenant: str, span: Span, by: tuple[Dimension, ...]) -> dict[str, Any]:
    """The report by the running pipeline. Raises client.NotRunning, client.Refused."""
    query = {
        "group_by": ",".join(by),
        "from": format_time(span.from_unix_ns),
        "to": format_time(span.to_unix_ns),
        "tenant": tenant,
        "limit": 1000,
    }
    answer = client.get(url, "/v1/spend", query)
    rows, total = answer["rows"], answer["total"]
    while answer["next_cursor"]:
        answer = client.get(url, "/v1/spend", query | {"cursor": answer["next_cursor"]})
        rows += answer["rows"]
    return _form(tenant, span, by, rows, total)


def report_from_folder(
    settings: PipelineSettings, tenant: str, span: Span, by: tuple[Dimension, ...]
) -> dict[str, Any]:
    """The report from the folder of a pipeline that does not run.

    Raises DatabaseError, StoreBusy, WarehouseError (WarehouseLocked where a pipeline has the folder).
    """
    with closing(Warehouse.open(settings.warehouse_folder, settings.warehouse)) as warehouse:
        with closing(Database.open(settings.control_url, "app")) as control:
            if control.dialect == "sqlite":
                WarehouseWriter(control, lambda _: warehouse).drain()
        rows = [group_form(row, by) for row in warehouse.spend(tenant, span, by)]
        return _form(tenant, span, by, rows, group_form(warehouse.total(tenant, span), ()))


def flat(by: Sequence[str], row: dict[str, Any]) -> dict[str, Any]:
    """A row of the report with everything on one level, for tables and CSV."""
    group = {name: row["group"][name] or "(unallocated)" for name in by}
    usage = row["usage"]
    return group | {
        "calls": row["calls"],
        "unpriced_calls": row["unpriced_calls"],
        "errors": row["errors"],
        "input_tokens": usage["input_tokens"],
        "output_tokens": usage["output_tokens"],
        "cost_usd": row["cost_usd"],
    }


def _form(
    tenant: str, span: Span, by: tuple[Dimension, ...], rows: list[dict[str, Any]], total: dict[str, Any]
) -> dict[str, Any]:
    if not _TIMES.intersection(by):  # times in their order, everything else the dearest first
        rows.sort(key=lambda row: -float(row["cost_usd"] or 0))
    return {
        "tenant": tenant,
        "from": format_time(span.from_unix_ns),
        "to": format_time(span.to_unix_ns),
        "by": list(by),
        "currency": "USD",
        "rows": rows,
        "total": total,
    }


def _day(text: str, message: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ReportError(message) from None


def _midnight(day: date) -> int:
    return int(datetime.combine(day, time(), UTC).timestamp()) * _NS
