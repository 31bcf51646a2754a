"""How long the overview's questions take with a million calls in the warehouse, and how fast they got there.

    .venv/bin/python tests/bench/dashboard_bench.py [--calls N] [--folder DIR] [--runs N]

The calls are a company's month: a dozen teams, two applications each, five hundred users, nine models, a
working day's rhythm, two percent errors, one percent without a price. With --folder the warehouse stays,
and the next run measures it without filling it again.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from mmpipeline.budgets.service import BudgetService
from mmpipeline.dashboard.app import environment
from mmpipeline.dashboard.overview import gather
from mmpipeline.dashboard.view import read
from mmpipeline.ingest.service import IngestService
from mmpipeline.ingest.writer import WarehouseWriter
from mmpipeline.rating.rated import RatedCall
from mmpipeline.rating.service import RatingService
from mmpipeline.services import Services
from mmpipeline.store.control.store import ControlStore
from mmpipeline.store.warehouse.shapes import Span
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmproto.v1.call_pb2 import Call, Observer
from mmproto.v1.usage_pb2 import Quality

NS = 1_000_000_000
DAY_NS = 86_400 * NS
# 2026-11-23T12:34:56Z.
NOW_NS = 1_795_437_296 * NS
BATCH = 8192
DAYS = 30

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


def fill(warehouse: Warehouse, calls: int) -> float:
    """Insert the company's calls; returns the seconds that `insert` took, process CPU included elsewhere."""
    batch: list[RatedCall] = []
    spent = cpu = 0.0
    number = 0
    for row in company(calls):
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
    return spent


def open_services(folder: Path, warehouse: Warehouse, control: ControlStore) -> Services:
    """Services as the dashboard needs them, at a fixed time."""
    rating = RatingService.open()
    return Services(
        warehouse=warehouse,
        control=control,
        budgets=BudgetService(control, lambda: NOW_NS),
        rating=rating,
        ingest=IngestService(control, rating, lambda: NOW_NS),
        writer=WarehouseWriter(control, lambda: warehouse),
        clock=lambda: NOW_NS,
        ingest_token="bench",
    )


def measure(services: Services, runs: int) -> None:
    """Time the page's questions and its drawing, for the whole and for a filtered view."""
    template = environment().get_template("overview.html")
    for label, query in (
        ("overview, 30 days", {"range": "30d"}),
        ("overview, 30 days, one team", {"range": "30d", "team": "search"}),
        ("overview, today", {"range": "today"}),
    ):
        view = read(query, NOW_NS)
        asking, drawing, cpu = [], [], []
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


def main() -> None:
    """Fill where needed, then measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--calls", type=int, default=1_500_000)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dashboard-bench-") as temporary:
        folder = options.folder or Path(temporary)
        control = ControlStore(folder / "control.sqlite")
        with Warehouse.open(folder / "warehouse") as warehouse:
            if warehouse.total("default", Span(0, (NOW_NS // DAY_NS + 1) * DAY_NS)).calls == 0:
                fill(warehouse, options.calls)
            measure(open_services(folder, warehouse, control), options.runs)
            for size in warehouse.sizes():
                print(f"{size.table}: {size.rows:,} rows, {size.bytes_on_disk / 1e6:.1f} MB")
        control.close()


if __name__ == "__main__":
    main()
