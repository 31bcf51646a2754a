"""How long the overview's questions take over a company's month of calls, and what a call costs at rest.

    .venv/bin/python tests/bench/dashboard_bench.py [--calls N] [--folder DIR] [--runs N]

The calls are a company's month: a dozen teams, two applications each, five hundred users, nine models, a
working day's rhythm, two percent errors, one percent without a price. The first of them are made one by one
and inserted as the pipeline does it; the rest are these again, by the engine itself, at other moments of the
day and under other ids, in the columns as in the message, so that they are as hard to compress. With --folder
the warehouse stays, and the next run measures it without filling it again.
"""

# Statements are put together from constants of this file.
# ruff: noqa: S608

from __future__ import annotations

import argparse
import random
import re
import statistics
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from mmpipeline.budgets.service import BudgetService
from mmpipeline.dashboard.app import environment
from mmpipeline.dashboard.overview import gather
from mmpipeline.dashboard.view import read
from mmpipeline.rating.rated import RatedCall
from mmpipeline.rating.service import RatingService
from mmpipeline.services import Services
from mmpipeline.store.control.database import Database, file_url
from mmpipeline.store.warehouse.schema import CALLS
from mmpipeline.store.warehouse.shapes import Span
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmproto.v1.call_pb2 import Call, Observer
from mmproto.v1.usage_pb2 import Quality

NS = 1_000_000_000
DAY_NS = 86_400 * NS
# 2026-11-23T12:34:56Z.
NOW_NS = 1_795_437_296 * NS
BATCH = 8192
SAMPLE = 200_000
DAYS = 30
ALWAYS = Span(0, (NOW_NS // DAY_NS + 1) * DAY_NS)

TEAMS = (
    "search", "support", "billing", "growth", "platform", "research",
    "mobile", "data", "security", "sales", "legal", "",
)  # fmt: skip
APPLICATIONS = ("assistant", "batch")
# Provider, model, weight, nano-dollars of an input and of an output token.
MODELS = (
    ("openai", "gpt-4o-2024-08-06", 22, 2_500, 10_000),
    ("openai", "gpt-4o-mini-2024-07-18", 30, 150, 600),
    ("openai", "o3-2025-04-16", 5, 2_000, 8_000),
    ("openai", "gpt-4.1-2025-04-14", 9, 2_000, 8_000),
    ("openai", "text-embedding-3-small", 12, 20, 0),
    ("anthropic", "claude-sonnet-4-5-20250929", 14, 3_000, 15_000),
    ("anthropic", "claude-haiku-4-5-20251001", 6, 1_000, 5_000),
    ("anthropic", "claude-opus-4-1-20250805", 1, 15_000, 75_000),
    ("openai", "in-house-finetune", 1, None, None),
)
PROCESSES = ("python3", "node", "java", "gunicorn", "curl")
ERRORS = ("rate_limit_exceeded", "overloaded_error", "connection_closed", "invalid_request_error")


def company(calls: int, seed: int = 7, days: int = DAYS, now_ns: int = NOW_NS) -> Iterator[RatedCall]:
    """Calls of the last `days` days, always the same for a seed: `calls`, less those of quiet nights."""
    dice = random.Random(seed)
    weights = [model[2] for model in MODELS]
    size = [1.0 / (at + 1) for at in range(len(TEAMS))]
    step = days * DAY_NS / calls
    for number in range(calls):
        # In the order of time, as calls are, with a few late ones.
        at = int(now_ns - days * DAY_NS + step * number - dice.random() ** 8 * 3600 * NS)
        hour = at // (3600 * NS) % 24
        if (hour < 7 or hour > 19) and dice.random() < 0.7:
            continue
        team = dice.choices(TEAMS, size)[0]
        provider, model, _, price_in, price_out = dice.choices(MODELS, weights)[0]
        yield _call(dice, at, team, Price(provider, model, price_in, price_out))


class Price(NamedTuple):
    """What a model costs: nano-dollars of an input and of an output token; None where nobody knows."""

    provider: str
    model: str
    token_in: int | None
    token_out: int | None


def _call(dice: random.Random, at: int, team: str, price: Price) -> RatedCall:
    provider, model, price_in, price_out = price
    call = Call(
        id=str(uuid.UUID(int=dice.getrandbits(128), version=5)),
        provider=provider,
        operation="embeddings" if "embedding" in model else "chat",
        request_model=model,
        response_model=model,
        response_id=f"chatcmpl-{dice.getrandbits(120):030x}",
        host=f"api.{provider}.com",
        streaming=dice.random() < 0.6,
        http_status=200,
        billable=True,
        started_at_unix_ns=at,
        duration_s=round(dice.lognormvariate(0.6, 0.8), 6),
        tenant="default",
        team=team,
        application=f"{team}-{dice.choice(APPLICATIONS)}" if team else "",
        # Five hundred people, each of one team.
        user=f"{team}-{int(42 * dice.random() ** 2):02d}@example.com" if team else "",
        node=f"node-{dice.randrange(4)}",
        observer=Observer.OBSERVER_ROUTER if dice.random() < 0.2 else Observer.OBSERVER_SENSOR,
    )
    call.process.pid = dice.randrange(300, 40_000)
    call.process.command = dice.choice(PROCESSES)
    usage = call.usage
    usage.quality = Quality.QUALITY_EXACT
    if dice.random() < 0.02:
        call.http_status = 429
        call.error_type = dice.choice(ERRORS)
        call.billable = False
        usage.quality = Quality.QUALITY_UNKNOWN
        return RatedCall(call, 1, 0, "", "not_billable")
    tokens_in = int(dice.lognormvariate(6.8, 1.1))
    tokens_out = 0 if price_out == 0 else int(dice.lognormvariate(5.2, 0.9))
    cached = tokens_in // 2 if dice.random() < 0.4 else 0
    reasoning = tokens_out // 2 if model.startswith("o3") else 0
    usage.tokens["input"] = tokens_in - cached
    usage.tokens["input_cache_read"] = cached
    if tokens_out:
        usage.tokens["output"] = tokens_out - reasoning
        usage.tokens["output_reasoning"] = reasoning
    if dice.random() < 0.015:
        usage.quality = Quality.QUALITY_PARTIAL
    if price_in is None or price_out is None:
        return RatedCall(call, 1, None, "unknown_model", "")
    cost = (tokens_in - cached) * price_in + cached * price_in // 10 + tokens_out * price_out
    return RatedCall(call, 1, cost, "", f"{provider}/{model}@bench")


def fill(warehouse: Warehouse, calls: int) -> None:
    """The first calls one by one, the others by the engine."""
    sample = min(calls, SAMPLE)
    batch: list[RatedCall] = []
    spent = cpu = 0.0
    number = 0
    for row in company(sample):
        batch.append(row)
        if len(batch) == BATCH:
            number += 1
            began, began_cpu = time.perf_counter(), time.process_time()
            warehouse.insert(batch, f"bench-{number}")
            spent += time.perf_counter() - began
            cpu += time.process_time() - began_cpu
            batch = []
    warehouse.insert(batch, f"bench-{number + 1}")
    rows = number * BATCH
    if rows:
        print(
            f"insert: {rows:,} rows, {rows / spent:,.0f} rows/s, "
            f"{cpu * 1e6 / rows:.1f} us CPU a row, roll-ups included"
        )
    began = time.perf_counter()
    kept = warehouse.total("default", ALWAYS).calls
    if calls > sample:
        multiply(warehouse, (calls - sample) // kept)
    kept = warehouse.total("default", ALWAYS).calls
    print(f"filled: {kept:,} calls, {time.perf_counter() - began:.0f} s in the engine")


def multiply(warehouse: Warehouse, copies: int) -> None:
    """As many copies of what is there, a day after the other, as calls come."""
    names = [name for name, kind in CALLS.columns if " MATERIALIZED " not in kind]
    changed = {
        "started_at": "toDateTime64('1970-01-01 00:00:00', 9, 'UTC') + INTERVAL at NANOSECOND AS started_at",
        "id": "fresh AS id",
        "message": "replaceOne(message, id, fresh) AS message",
    }
    engine = warehouse._engine
    engine.command("CREATE TABLE sample ENGINE = MergeTree ORDER BY id AS SELECT * FROM calls FINAL")
    for day in range(DAYS):
        start = (NOW_NS // DAY_NS - day) * DAY_NS
        # Of each copy of the sample a thirtieth falls on this day, about the hour that it had.
        statement = (
            f"INSERT INTO calls ({', '.join(names)}) "
            f"SELECT {', '.join(changed.get(name, name) for name in names)} FROM ("
            "SELECT sample.*, "
            f"toInt64({start} + (toUnixTimestamp64Nano(started_at) + cityHash64(id, number) % {3600 * NS}) "
            f"% {DAY_NS}) AS at, "
            "lower(toString(reinterpretAsUUID(sipHash128(id, number)))) AS fresh "
            f"FROM sample, numbers({copies}) AS n WHERE cityHash64(number, id) % {DAYS} = {day}) "
            "SETTINGS max_threads = 2, max_insert_threads = 1"
        )
        engine.command(statement)
    engine.command("DROP TABLE sample")


def open_services(folder: Path, warehouse: Warehouse, control: Database) -> Services:
    """Services as the dashboard needs them, at a fixed time."""
    return Services(
        warehouse=warehouse,
        control=control,
        folder=folder,
        budgets=BudgetService(control, lambda: NOW_NS),
        rating=RatingService.open(),
        ingest=None,
        writer=None,
        clock=lambda: NOW_NS,
        ingest_token="bench",
    )


class Questions:
    """Every question of the warehouse, as it is asked: how long it took, by what was asked."""

    def __init__(self, warehouse: Warehouse) -> None:
        self.taken: dict[str, list[float]] = defaultdict(list)
        self._read = warehouse._engine.read
        warehouse._engine.read = self._timed  # type: ignore[method-assign]

    def _timed(self, tenant: str, sql: str, parameters: Mapping[str, Any]) -> Sequence[tuple[Any, ...]]:
        began = time.perf_counter()
        rows = self._read(tenant, sql, parameters)
        table = re.findall(r"FROM (\w+)", sql)[0]
        shown = sql.partition(" FROM")[0].removeprefix("SELECT ")[:60]
        self.taken[f"{table}: {shown}"].append(time.perf_counter() - began)
        return rows


def measure(services: Services, runs: int) -> None:
    """Time the page's questions and its drawing, for the whole and for a filtered view."""
    template = environment().get_template("overview.html")
    questions = Questions(services.warehouse)
    for label, query in (
        ("overview, 30 days", {"range": "30d"}),
        ("overview, 30 days, one team", {"range": "30d", "team": "search"}),
        ("overview, today", {"range": "today"}),
    ):
        view = read(query, NOW_NS)
        asking, drawing, cpu = [], [], []
        questions.taken.clear()
        for _ in range(runs + 1):
            began, began_cpu = time.perf_counter(), time.process_time()
            page = gather(services, view)
            asked = time.perf_counter()
            cpu.append(time.process_time() - began_cpu)
            html = template.render(page=page)
            asking.append(asked - began)
            drawing.append(time.perf_counter() - asked)
        print(
            f"{label}: questions {statistics.median(asking[1:]) * 1e3:.0f} ms median, "
            f"{min(asking[1:]) * 1e3:.0f} ms best ({statistics.median(cpu[1:]) * 1e3:.0f} ms CPU), "
            f"drawing {statistics.median(drawing[1:]) * 1e3:.1f} ms, {len(html):,} bytes, "
            f"{page.total.calls:,} calls"
        )
        slowest = sorted(questions.taken.items(), key=lambda each: -statistics.median(each[1]))
        for asked_for, taken in slowest[:6]:
            median, best = statistics.median(taken) * 1e3, min(taken) * 1e3
            print(f"    {median:6.1f} ms median, {best:6.1f} best  {asked_for}")


def main() -> None:
    """Fill where needed, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=1_500_000)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dashboard-bench-") as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        with (
            closing(Database.open(file_url(folder / "control.sqlite"))) as control,
            Warehouse.open(folder / "warehouse") as warehouse,
        ):
            if warehouse.total("default", ALWAYS).calls == 0:
                fill(warehouse, options.calls)
            measure(open_services(folder, warehouse, control), options.runs)
            calls = warehouse.total("default", ALWAYS).calls
            for size in warehouse.sizes():
                print(
                    f"{size.table}: {size.rows:,} rows, {size.bytes_on_disk / 1e6:.1f} MB, "
                    f"{size.bytes_on_disk / calls:.2f} bytes a call"
                )


if __name__ == "__main__":
    main()
