"""Calls a second through ingest, over real HTTP, with everything behind it: ledger, budgets, warehouse.

    python -m tests.bench.ingest_bench [--calls 200000] [--batch 1000] [--clients 4] [--pin]

Starts `mmpipeline serve` on a fresh state folder, posts distinct calls from `--clients` connections, and
prints: accepted calls a second (answered, so on disk), the server's CPU time per call on that way, and how
long until the warehouse has them all. `--pin` binds the server to one core and the clients to the others.
Synthetic calls of two providers, four teams, three applications, with two budgets over them.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import orjson

from mmproto.v1.call_pb2 import OBSERVER_SENSOR
from mmproto.v1.ingest_pb2 import IngestBatch
from mmproto.v1.usage_pb2 import QUALITY_EXACT

_MODELS = (
    ("openai", "gpt-4o", "gpt-4o-2024-08-06", "api.openai.com"),
    ("openai", "gpt-5", "gpt-5-2025-08-07", "api.openai.com"),
    ("anthropic", "claude-sonnet-4-5", "claude-sonnet-4-5-20250929", "api.anthropic.com"),
)


def bodies(calls: int, batch: int, seed: int) -> list[bytes]:
    """`calls` distinct calls in posts of `batch`, serialized."""
    rng = random.Random(seed)
    start = time.time_ns()
    posts = []
    for first in range(0, calls, batch):
        post = IngestBatch(schema_version=1, node="bench")
        for number in range(first, min(first + batch, calls)):
            provider, asked, served, host = rng.choice(_MODELS)
            call = post.calls.add(
                id=str(uuid.UUID(int=rng.getrandbits(128), version=5)),
                provider=provider,
                operation="chat",
                request_model=asked,
                response_model=served,
                response_id=f"resp_{rng.getrandbits(64):016x}",
                host=host,
                http_status=200,
                billable=True,
                started_at_unix_ns=start + number * 1000,
                duration_s=rng.random() * 3,
                finish_reasons=["stop"],
                team=rng.choice(("payments", "search", "support", "")),
                application=rng.choice(("checkout", "web", "batch")),
                observer=OBSERVER_SENSOR,
                node="bench",
            )
            call.process.pid = rng.randrange(1, 60_000)
            call.process.exe = "/usr/bin/python3.11"
            call.process.command = "python3"
            call.usage.quality = QUALITY_EXACT
            call.usage.tokens["input"] = rng.randrange(4000)
            call.usage.tokens["input_cache_read"] = rng.randrange(4000)
            call.usage.tokens["output"] = rng.randrange(900)
        posts.append(post.SerializeToString())
    return posts


@contextmanager
def pipeline(state: Path, pin: bool) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A pipeline on a free port over `state`; its process and address."""
    command = [sys.executable, "-m", "mmpipeline.cli"]
    folder = ["--state-dir", str(state)]
    for team in ("payments", "search"):
        setting = ["budgets", "set", team, "--team", team, "--amount", "1000000", "--block-at", "100"]
        subprocess.run([*command, *setting, *folder], check=True, stdout=subprocess.DEVNULL)
    pinned = ["taskset", "-c", "0"] if pin else []
    process = subprocess.Popen(
        [*pinned, *command, "serve", *folder, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline().strip()
        if not line.startswith("listening on "):
            raise SystemExit("the pipeline did not start")
        yield process, line.removeprefix("listening on ")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def post_all(url: str, token: str, posts: list[bytes], clients: int) -> float:
    """Post everything from `clients` connections; seconds until the last answer."""
    parts = urlsplit(url)
    headers = {"authorization": f"Bearer {token}", "content-type": "application/x-protobuf"}
    accepted = []

    def send(share: list[bytes]) -> None:
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
        for body in share:
            connection.request("POST", "/v1/ingest", body, headers)
            accepted.append(orjson.loads(connection.getresponse().read())["accepted"])
        connection.close()

    threads = [threading.Thread(target=send, args=(posts[i::clients],)) for i in range(clients)]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed = time.perf_counter() - began
    if len(accepted) != len(posts):
        raise SystemExit(f"{len(posts) - len(accepted)} posts were not answered")
    return elapsed


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def waiting_rows(url: str) -> int:
    """Rows that are not in the warehouse yet."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    connection.request("GET", "/v1/status")
    rows = orjson.loads(connection.getresponse().read())["warehouse"]["waiting_rows"]
    connection.close()
    return int(rows)


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--batch", type=int, default=1_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pin", action="store_true")
    options = parser.parse_args()
    posts = bodies(options.calls, options.batch, seed=7)
    if options.pin:
        os.sched_setaffinity(0, set(range(1, os.cpu_count() or 2)))
    with tempfile.TemporaryDirectory(prefix="modelmeter-bench-") as folder:
        state = Path(folder)
        with pipeline(state, options.pin) as (process, url):
            token = (state / "ingest.token").read_text(encoding="ascii").strip()
            before = cpu_seconds(process.pid)
            began = time.perf_counter()
            elapsed = post_all(url, token, posts, options.clients)
            answered = cpu_seconds(process.pid) - before
            while waiting_rows(url):
                time.sleep(0.2)
            delivered = time.perf_counter() - began
            total = cpu_seconds(process.pid) - before
    calls = options.calls
    print(f"accepted    {calls / elapsed:10,.0f} calls/s  ({calls} calls, posts of {options.batch})")
    print(f"delivered   {calls / delivered:10,.0f} calls/s  (in the warehouse, roll-ups included)")
    print(f"server CPU  {answered / calls * 1e6:10.1f} us/call until the last answer")
    print(f"            {total / calls * 1e6:10.1f} us/call until the warehouse had them")


if __name__ == "__main__":
    main()
