"""The books that a scenario must come to, and the books as they are, read past all of the product's code.

Five of them: the sum over the charges, call by call; the counters of budgets, by period; the raw rows of the
warehouse, call by call; every roll-up, by all of its dimensions; and what ingest says that it did. Each is
a mapping, so that two of them differ in entries that can be named.
"""

from __future__ import annotations

import base64
import json
import urllib.request
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

import psycopg

from mmproto.v1.call_pb2 import Observer
from mmproto.v1.usage_pb2 import Quality
from tests.faults.reports import DAY_NS, SECOND_NS, Report

Key = tuple[Any, ...]
Book = dict[Key, Key]

_HOUR_NS = 3600 * SECOND_NS


@dataclass(frozen=True, slots=True)
class Limit:
    """A budget of the run. `scope`: fields of a report and what they must be."""

    name: str
    tenant: str
    scope: Mapping[str, str]
    period: str
    zone: str = "UTC"
    usd: str = "1000000"

    def covers(self, report: Report) -> bool:
        return report.tenant == self.tenant and all(
            getattr(report, name) == value for name, value in self.scope.items()
        )

    def period_start(self, at_unix_ns: int) -> int:
        """Start of the calendar period in the budget's own zone, as unix nanoseconds."""
        day = datetime.fromtimestamp(at_unix_ns // SECOND_NS, ZoneInfo(self.zone)).date()
        if self.period == "week":
            day -= timedelta(days=day.weekday())
        elif self.period == "month":
            day = day.replace(day=1)
        start = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.zone))
        return int(start.timestamp()) * SECOND_NS


LIMITS = (
    Limit("everything", "default", {}, "month"),
    Limit("acme-all", "acme", {}, "week", "America/New_York"),
    Limit("acme-payments", "acme", {"team": "payments"}, "day", "Asia/Kolkata"),
    Limit("web", "globex", {"application": "web"}, "day"),
    Limit("one-user", "globex", {"user": "user-7"}, "month", "Pacific/Auckland"),
    Limit("one-model", "default", {"model": "gpt-4o"}, "day"),
    Limit("one-key", "default", {"virtual_key": "key-1"}, "week"),
)

# The roll-ups: their dimensions beside tenant and time, as fields of a report, and what `at` is cut to.
ROLL_UPS: Mapping[str, tuple[tuple[str, ...], int]] = {
    "usage_hourly": (("team", "application", "provider", "model", "quality", "error_type"), _HOUR_NS),
    "usage_daily": (("team", "application", "provider", "model", "quality", "error_type"), DAY_NS),
    "users_daily": (("team", "application", "user", "provider", "model"), DAY_NS),
    "processes_daily": (("team", "application", "node", "process", "provider", "model"), DAY_NS),
}


def field_of(report: Report, name: str) -> str:
    """A column of the warehouse that a report fills."""
    match name:
        case "quality":
            # What is not told counts as unknown: failed calls have no usage.
            return "UNKNOWN" if report.error else Quality.Name(report.quality).removeprefix("QUALITY_")
        case "error_type":
            return report.error
        case "observer":
            return Observer.Name(report.observer).removeprefix("OBSERVER_").lower()
        case _:
            value: str = getattr(report, name)
            return value


def expected(truth: Iterable[Report]) -> dict[str, Book]:
    """All books of these calls."""
    charges: Book = {}
    raw: Book = {}
    sums: dict[str, defaultdict[Key, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0, 0, 0, 0, 0]))
    budgets: defaultdict[Key, list[int]] = defaultdict(lambda: [0, 0, 0])
    heard: dict[Key, list[int]] = defaultdict(lambda: [0])
    for report in truth:
        cost = report.cost
        charges[(report.id,)] = (report.tenant, report.team, cost)
        raw[(report.id,)] = (report.tenant, report.team, cost, 1)
        tokens = dict(report.tokens)
        told_input = tokens.get("input", 0) + tokens.get("input_cache_read", 0)
        measures = (1, cost is None, cost or 0, told_input, tokens.get("output", 0))
        for table, (dimensions, step) in ROLL_UPS.items():
            at = report.started_at // step * step // SECOND_NS
            key = (report.tenant, at, *(field_of(report, name) for name in dimensions))
            entry = sums[table][key]
            for index, measure in enumerate(measures):
                entry[index] += measure
        heard[report.tenant, report.node, field_of(report, "observer")][0] += 1
        for limit in LIMITS:
            if limit.covers(report):
                spend = budgets[limit.tenant, limit.name, limit.period_start(report.started_at)]
                spend[0] += cost or 0
                spend[1] += 1
                spend[2] += cost is None
    books = {table: {key: tuple(entry) for key, entry in sums[table].items()} for table in ROLL_UPS}
    return books | {
        "charges": charges,
        "calls": raw,
        "observers": {key: tuple(entry) for key, entry in heard.items()},
        "budget_spend": {key: tuple(spend) for key, spend in budgets.items()},
    }


def ledger_books(superuser_url: str) -> dict[str, Book]:
    """What PostgreSQL has: read by a superuser, whom no policy holds back."""
    with psycopg.connect(superuser_url) as connection:
        charges = connection.execute(
            "SELECT id, tenant_id, team, sum(cost_nano_usd * sign)::bigint, "
            "sum(sign), count(cost_nano_usd) FROM charges GROUP BY id, tenant_id, team "
            "HAVING sum(sign) <> 0 OR coalesce(sum(cost_nano_usd * sign), 0) <> 0"
        ).fetchall()
        spend = connection.execute(
            "SELECT b.tenant_id, b.name, s.period_start_unix_ns, s.spent_nano_usd, s.calls, s.unpriced_calls "
            "FROM budget_spend s JOIN budgets b ON b.id = s.budget_id"
        ).fetchall()
    book: Book = {}
    for key, tenant, team, cost, signs, _ in charges:
        one = (_uuid(bytes(key)),)
        # A second row of one call cannot be hidden: it stands in the place of its cost.
        book[one] = (
            (tenant, team, cost) if signs == 1 and one not in book else (tenant, team, "charged twice")
        )
    return {
        "charges": book,
        "budget_spend": {row[:3]: row[3:] for row in spend if any(row[3:])},
    }


def counters(superuser_url: str) -> dict[str, int]:
    """What the workers counted, over all lanes."""
    with psycopg.connect(superuser_url) as connection:
        rows = connection.execute("SELECT name, sum(value)::bigint FROM counters GROUP BY name").fetchall()
    return dict(rows)


def warehouse_books(url: str) -> dict[str, Book]:
    """What ClickHouse, or its stand-in, answers over HTTP. `url` as the pipeline is given it."""
    books: dict[str, Book] = {}
    for table, (dimensions, _) in ROLL_UPS.items():
        names = ", ".join(("tenant_id", "toUnixTimestamp(at)", *dimensions))
        told = "tokens_input + tokens_input_cache_read", "tokens_output"
        if table in ("users_daily", "processes_daily"):
            told = "input_tokens", "output_tokens"
        rows = ask(
            url,
            f"SELECT {names}, sum(calls) AS n, sum(unpriced_calls), sum(cost_nano_usd) AS cost, "  # noqa: S608
            f"sum({told[0]}), sum({told[1]}) FROM {table} GROUP BY {names} HAVING n != 0 OR cost != 0",
        )
        width = 2 + len(dimensions)
        books[table] = {tuple(row[:width]): tuple(row[width:]) for row in rows}
    books["observers"] = {
        tuple(row[:3]): (row[3],)
        for row in ask(
            url,
            "SELECT tenant_id, node, observer, sum(calls) AS n FROM observers "
            "GROUP BY tenant_id, node, observer HAVING n != 0",
        )
    }
    books["calls"] = {
        (row[0],): tuple(row[1:])
        for row in ask(
            url,
            "SELECT id, tenant_id, team, sum(cost_nano_usd * sign) AS cost, sum(sign) AS n FROM calls "
            "GROUP BY id, tenant_id, team HAVING n != 0 OR ifNull(cost, 0) != 0",
        )
    }
    return books


def ask(url: str, query: str) -> list[list[Any]]:
    """The rows of a query, over ClickHouse's HTTP interface and nothing else."""
    parts = urlsplit(url)
    login = base64.b64encode(f"{parts.username}:{unquote(parts.password or '')}".encode()).decode()
    target = f"{parts.scheme}://{parts.hostname}:{parts.port}/?database={parts.path.strip('/')}"
    body = f"{query} FORMAT JSONCompact SETTINGS output_format_json_quote_64bit_integers = 0".encode()
    request = urllib.request.Request(target, body, {"Authorization": f"Basic {login}"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        rows: list[list[Any]] = json.load(answer)["data"]
    return rows


def differences(wanted: Book, found: Book, show: int = 5) -> list[str]:
    """Every entry that is missing, too much or other, the first few of them in words."""
    wrong = [key for key in wanted.keys() | found.keys() if wanted.get(key) != found.get(key)]
    wrong.sort(key=str)
    words = [f"{key}: {found.get(key)} instead of {wanted.get(key)}" for key in wrong[:show]]
    return words + ([f"and {len(wrong) - show} more"] if len(wrong) > show else [])


def _uuid(key: bytes) -> str:
    text = key.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
