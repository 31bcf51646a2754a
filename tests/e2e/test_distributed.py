"""The whole way in the distributed shape, nothing replaced but the provider and the ClickHouse server.

A program calls a provider over TLS; the sensor's probes read it; Kafka carries it; a worker charges it in
PostgreSQL; the sink puts it into the warehouse; the budget is crossed; and the router, which learns that over
Kafka, refuses the next request. What was spent is the same number in every book, to the nano-dollar.
"""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.distributed import Installation, installation, wait_for
from tests.e2e import clients
from tests.e2e.provider.plan import HEADER
from tests.e2e.provider.process import ProviderProcess
from tests.faults.books import ask

pytestmark = pytest.mark.capture

KEY = "mmk-distributed-payments-0123456789abcdef"
# Nano-dollars a token, as OpenAI publishes them.
PRICES = {
    "gpt-4o": {"input": 2_500, "input_cache_read": 1_250, "output": 10_000},
    "gpt-4o-mini": {"input": 150, "input_cache_read": 75, "output": 600},
}
# What the program orders: four small calls, and nine of a dollar. The budget is ten.
SMALL = "input=1237; cache_read=613; output=211"
DOLLAR = "input=400000; cache_read=0; output=0"


@dataclass(frozen=True, slots=True)
class Whole:
    installation: Installation
    router: str

    @property
    def budget(self) -> dict[str, Any]:
        shown = self.installation.run("mmpipeline", "budgets", "show", "payments", "-o", "json")
        answer: dict[str, Any] = json.loads(shown.stdout)
        return answer


@pytest.fixture
def whole(tmp_path: Path, provider: ProviderProcess) -> Iterator[Whole]:
    with installation(tmp_path) as running:
        running.run(
            "mmpipeline", "budgets", "set", "payments", "--team", "payments",
            "--amount", "10", "--period", "month", "--block-at", "100",
        )  # fmt: skip
        daemons = {
            "serve": running.command("serve", "mmpipeline", "serve"),
            "work": running.worker(),
            "sink": running.sink(),
            "sensor": running.command(
                "sensor", "mmsensor", "run", *config(running, "sensor", sensor(provider))
            ),
            "router": running.command(
                "router", "mmrouter", "serve", *config(running, "router", router(running, provider))
            ),
        }
        for daemon in daemons.values():
            daemon.start()
        address = {}
        for name in ("serve", "sensor", "router"):
            folder = running.state / {"serve": "pipeline"}.get(name, name) / "address"
            address[name] = wait_for(f"{name} listens", partial(told, folder))
            path = "/-/readyz" if name == "router" else "/readyz"
            wait_for(f"{name} is ready", partial(answers, address[name] + path))
        yield Whole(running, address["router"])


def test_from_the_probe_to_the_refusal_every_number_is_the_same(
    whole: Whole, provider: ProviderProcess
) -> None:
    running = whole.installation
    ask_router(whole.router, SMALL)  # admitted, and seen twice: by the router and by the probes on its socket
    call(provider, "gpt-4o-mini", SMALL, 4)
    call(provider, "gpt-4o", DOLLAR, 9)
    spent = Decimal(9) + nano_usd(provider, "gpt-4o-mini") + nano_usd(provider, "gpt-4o", small=True)
    wait_for("nine dollars and some", lambda: usd(whole.budget) == spent)
    ask_router(whole.router, SMALL)
    call(provider, "gpt-4o", DOLLAR, 1)
    refusal = wait_for("the router refuses", lambda: refused(whole.router))
    assert refusal["error"]["code"] == "budget_exceeded"
    assert "payments" in refusal["error"]["message"]
    served = [one for one in provider.journal() if one.operation]
    wanted = sum(
        PRICES[one.model][bucket] * count for one in served for bucket, count in (one.buckets or {}).items()
    )

    # An insert fills the roll-ups one after the other.
    for table in ("usage_hourly", "usage_daily", "users_daily", "processes_daily"):
        wait_for(f"all calls in {table}", partial(holds, running, table, (len(served), wanted)))
    assert in_ledger(running) == (len(served), wanted)
    budget = whole.budget
    assert usd(budget) * 10**9 == wanted
    assert [crossing["percent"] for crossing in budget["crossed"]] == [50, 80, 100]
    report = json.loads(running.run("mmpipeline", "report", "--by", "team", "-o", "json").stdout)
    (own,) = [row for row in report["rows"] if row["group"]["team"] == "payments"]
    assert Decimal(own["cost_usd"]) * 10**9 == wanted
    assert own["calls"] == len(served)
    verified = running.verify()
    assert verified.returncode == 0, verified.stdout + verified.stderr

    refused(whole.router)
    assert len([one for one in provider.journal() if one.operation]) == len(served), (
        "a refused call was served"
    )


def call(provider: ProviderProcess, model: str, order: str, times: int) -> None:
    """A program of team payments, over TLS."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "ask"}]})
    argv = clients.curl(provider.url, repeat=times, body=body)
    ordered = [
        part for word in argv for part in (["-H", f"{HEADER}: {order}", word] if word == "-d" else [word])
    ]
    clients.run(provider, ordered)


def ask_router(base: str, order: str) -> None:
    """A call that must be admitted."""
    with urllib.request.urlopen(request(base, order), timeout=30) as answer:
        assert answer.status == 200


def refused(base: str) -> dict[str, Any] | None:
    """What the router says to the next request; None while it admits."""
    try:
        with urllib.request.urlopen(request(base, "input=0; cache_read=0; output=0"), timeout=30):
            return None
    except urllib.error.HTTPError as error:
        answer: dict[str, Any] = json.load(error)
        return answer


def request(base: str, order: str) -> urllib.request.Request:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "ask"}], "max_tokens": 1}
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", HEADER: order}
    return urllib.request.Request(f"{base}/v1/chat/completions", json.dumps(body).encode(), headers)


def nano_usd(provider: ProviderProcess, model: str, small: bool = False) -> Decimal:
    """Dollars that the calls of a model cost so far; `small`: without those of a dollar."""
    total = 0
    for served in provider.journal():
        if served.model == model and served.buckets:
            cost = sum(PRICES[model][bucket] * count for bucket, count in served.buckets.items())
            total += 0 if small and cost == 10**9 else cost
    return Decimal(total) / 10**9


def usd(budget: dict[str, Any]) -> Decimal:
    return Decimal(budget["spent_usd"])


def in_ledger(running: Installation) -> tuple[int, int]:
    with psycopg.connect(running.superuser_url) as connection:
        row = connection.execute(
            "SELECT sum(sign)::bigint, sum(cost_nano_usd * sign)::bigint FROM charges WHERE team = 'payments'"
        ).fetchone()
    assert row is not None
    return row[0], row[1]


def in_warehouse(running: Installation, table: str) -> tuple[int, int]:
    query = f"SELECT sum(calls), sum(cost_nano_usd) FROM {table} WHERE team = 'payments'"  # noqa: S608
    try:
        ((calls, cost),) = ask(running.clickhouse.url, query)
    except urllib.error.HTTPError:
        return 0, 0  # the sink makes the tables
    return calls, cost


def holds(running: Installation, table: str, wanted: tuple[int, int]) -> bool:
    return in_warehouse(running, table) == wanted


def config(running: Installation, product: str, settings: dict[str, Any]) -> tuple[str, str]:
    path = running.state / f"{product}.yaml"
    path.write_text(json.dumps(settings))
    return "--config", str(path)


def sensor(provider: ProviderProcess) -> dict[str, Any]:
    """Other programs of this machine are seen too: only this provider's callers are team payments."""
    rule = {"match": {"host": f"127.0.0.1:{provider.port}"}, "set": {"team": "payments"}}
    return {"sink": "kafka", "metrics": {"listen": "127.0.0.1:0"}, "attribution": {"rules": [rule]}}


def router(running: Installation, provider: ProviderProcess) -> dict[str, Any]:
    key = running.state / "provider.key"
    key.write_text("sk-the-real-key")
    return {
        "listen": {"port": 0},
        "upstreams": [
            {
                "name": "openai",
                "dialect": "openai",
                "base_url": provider.url,
                "ca_file": str(provider.ca),
                "api_key_file": str(key),
            }
        ],
        "keys": [{"id": "payments", "sha256": hashlib.sha256(KEY.encode()).hexdigest(), "team": "payments"}],
    }


def told(file: Path) -> str:
    return file.read_text().strip() if file.exists() else ""


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
