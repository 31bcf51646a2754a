"""From an event that uses up a budget to the router's first refusal: `python -m tests.bench.action_bench`.

    python -m tests.bench.action_bench [--rounds 200] [--load 0]

Broker, PostgreSQL (fsync on), one worker and one router, all on this machine. Each round takes a team with a
budget of its own: a call that costs all of it is produced as a sensor produces it, and the router is asked,
on a kept connection, until it refuses. Time runs from the call's hand-over to the producer to that refusal:
it holds Kafka twice, the worker's transaction, and the question that found out. `--load`: calls a second of
other teams, all the while.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import statistics
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from confluent_kafka import Producer

from mmpipeline.budgets.model import Action, Threshold
from mmpipeline.budgets.service import BudgetService
from mmpipeline.store.control.database import Database
from mmproto.kafka import topics
from mmproto.v1.call_pb2 import OBSERVER_SENSOR, Call
from mmproto.v1.ingest_pb2 import IngestBatch
from mmproto.v1.usage_pb2 import QUALITY_EXACT
from tests.bench.worker_bench import records
from tests.distributed import HEADERS, Installation, wait_for
from tests.e2e.provider.process import ProviderProcess

_GIVE_UP_S = 30.0


def key(team: int) -> str:
    return f"mmk-bench-{team:04}"


def event(team: int) -> bytes:
    """A call of one dollar: 400,000 tokens of gpt-4o's input."""
    call = Call(
        id=str(uuid.uuid4()),
        provider="openai",
        operation="chat",
        request_model="gpt-4o",
        http_status=200,
        billable=True,
        started_at_unix_ns=time.time_ns(),
        tenant="default",
        team=f"team-{team}",
        observer=OBSERVER_SENSOR,
    )
    call.usage.quality = QUALITY_EXACT
    call.usage.tokens["input"] = 400_000
    return IngestBatch(calls=(call,)).SerializeToString()


class Asking:
    """One connection to the router."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
        body = {"model": "gpt-4o", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}
        self._body = json.dumps(body)

    def refused(self, team: int) -> bool:
        headers = {
            "Authorization": f"Bearer {key(team)}",
            "Content-Type": "application/json",
            "x-local-provider": "input=0; cache_read=0; output=0",
        }
        self._connection.request("POST", "/v1/chat/completions", self._body, headers)
        answer = self._connection.getresponse()
        answer.read()
        if answer.status not in (200, 402, 429):
            raise SystemExit(f"the router answered {answer.status}")
        return answer.status != 200


def settings(installation: Installation, provider: ProviderProcess, rounds: int) -> Path:
    """The router's configuration file, with a key for each team."""
    secret = installation.state / "provider.key"
    secret.write_text("sk-bench")
    upstream: dict[str, Any] = {"base_url": provider.url, "ca_file": str(provider.ca)}
    upstream |= {"name": "openai", "dialect": "openai", "api_key_file": str(secret)}
    keys = [
        {"id": f"key-{n}", "sha256": hashlib.sha256(key(n).encode()).hexdigest(), "team": f"team-{n}"}
        for n in range(rounds)
    ]
    path = installation.state / "router.yaml"
    path.write_text(json.dumps({"listen": {"port": 0}, "upstreams": [upstream], "keys": keys}))
    return path


class Load:
    """Calls of teams without budgets, at a steady rate, until `stop`."""

    def __init__(self, producer: Producer, rate: int) -> None:
        self._producer = producer
        self._rate = rate
        self._stopping = threading.Event()
        self._made = records(20_000, 1, 0.0) if rate else []
        self._thread = threading.Thread(target=self._run, daemon=True)
        if rate:
            self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._rate:
            self._thread.join()

    def _run(self) -> None:
        began, sent = time.monotonic(), 0
        while not self._stopping.is_set():
            due = int((time.monotonic() - began) * self._rate)
            while sent < due:
                name, record = self._made[sent % len(self._made)]
                self._producer.produce(topics.CALLS, record, name, headers=HEADERS)
                sent += 1
            self._producer.poll(0)
            time.sleep(0.005)


def measure(installation: Installation, provider: ProviderProcess, rounds: int, load: int) -> list[float]:
    """Seconds of each round."""
    store = Database.open(installation.postgresql.url("app"))
    budgets = BudgetService(store, time.time_ns)
    blocks = (Threshold(100, Action.BLOCK),)
    for number in range(rounds):
        team = f"team-{number}"
        budgets.set(team, limit_nano_usd=10**9, scope={"team": team}, thresholds=blocks)
    store.close()
    worker = installation.worker()
    worker.start()
    wait_for("the worker works", lambda: "listening on" in worker.last_words())
    config = settings(installation, provider, rounds)
    installation.command("router", "mmrouter", "serve", "--config", str(config)).start()
    address = installation.state / "router" / "address"
    url = wait_for("the router listens", lambda: address.exists() and address.read_text().strip())
    asking, producer = Asking(url), installation.producer(**{"linger.ms": 0})
    other = Load(installation.producer(), load)
    seconds = []
    for number in range(rounds):
        if asking.refused(number):
            raise SystemExit(f"team-{number} is refused before it has spent anything")
        began = time.perf_counter()
        producer.produce(topics.CALLS, event(number), f"default/team-{number}", headers=HEADERS)
        producer.poll(0)
        while not asking.refused(number):
            if time.perf_counter() - began > _GIVE_UP_S:
                raise SystemExit(f"team-{number} is not refused after {_GIVE_UP_S:.0f} s")
        seconds.append(time.perf_counter() - began)
    other.stop()
    return seconds


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--load", type=int, default=0)
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="modelmeter-bench-") as folder,
        ProviderProcess.start(Path(folder) / "provider") as provider,
        Installation(Path(folder)) as installation,
    ):
        seconds = sorted(measure(installation, provider, options.rounds, options.load))
    cut = statistics.quantiles(seconds, n=100, method="inclusive") if len(seconds) > 1 else seconds * 99
    print(f"event to refusal, {len(seconds)} rounds, {options.load} other calls/s")
    for name, value in (("p50", cut[49]), ("p90", cut[89]), ("p99", cut[98]), ("max", seconds[-1])):
        print(f"  {name}  {value * 1e3:8.1f} ms")


if __name__ == "__main__":
    main()
