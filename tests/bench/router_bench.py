"""What the router adds: `python -m tests.bench.router_bench [--rounds N]`.

Upstream, router and client are three processes on this machine. Calls go directly to the upstream (TLS)
and through the router (plain to the router, TLS from there) in turns of one round each, so that whatever
else the machine does falls on both. The router runs as in production: virtual key, blocking budget, usage
read, records synced to the spool; a pipeline of canned answers takes them.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import signal
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast

import uvloop

from mmrouter.keys import digest
from tests.e2e.provider.certificates import make_certificates
from tests.router.pipeline import FakePipeline

ROUTER = (sys.executable, "-m", "mmrouter.cli")
KEY = "mmk-bench"
REQUEST = json.dumps(
    {"model": "gpt-4o-mini", "max_tokens": 64, "messages": [{"role": "user", "content": "word " * 200}]}
).encode()
RESPONSE = json.dumps(
    {
        "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
        "object": "chat.completion",
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "word " * 60}}],
        "usage": {"prompt_tokens": 210, "completion_tokens": 60, "total_tokens": 270},
    }
).encode()


class _Upstream(asyncio.Protocol):
    """Answers every request that was received whole; knows no more HTTP than the bench speaks."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's TLS transport is no subclass of it
        self._got = b""

    def data_received(self, data: bytes) -> None:
        self._got += data
        end = self._got.find(b"\r\n\r\n")
        if end >= 0 and len(self._got) >= end + 4 + len(REQUEST):
            self._got = b""
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
                % len(RESPONSE)
                + RESPONSE
            )


def _run_upstream(chain: Path, key: Path, ready: Connection) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", 0, ssl=context)
        ready.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())


def _run_pipeline(folder: Path, ready: Connection) -> None:
    with FakePipeline(folder, limit_nano_usd=10**15) as pipeline:
        ready.send(pipeline.url)
        signal.pause()


class _Client(asyncio.Protocol):
    """One connection; sends the next request when the last answer is whole."""

    def __init__(self, request: bytes, done: Callable[[_Client, float], None]) -> None:
        self._request = request
        self._done = done
        self._got = 0
        self._whole = 0
        self._started = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self) -> None:
        self._got = self._whole = 0
        self._started = time.perf_counter()
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self._whole:
            assert data.startswith(b"HTTP/1.1 200"), data[:300]
            self._whole = data.index(b"\r\n\r\n") + 4 + len(RESPONSE)
        self._got += len(data)
        if self._got >= self._whole:
            self._done(self, time.perf_counter() - self._started)


@dataclass(frozen=True, slots=True)
class Way:
    """How calls travel."""

    name: str
    port: int
    tls: ssl.SSLContext | None

    @property
    def request(self) -> bytes:
        return (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost:%d\r\nauthorization: Bearer %s\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n"
            % (self.port, KEY.encode(), len(REQUEST))
        ) + REQUEST

    async def round(self, connections: int, calls: int) -> tuple[list[float], float]:
        """Latencies in seconds and the wall time of `calls` calls over `connections` connections."""
        loop = asyncio.get_running_loop()
        latencies: list[float] = []
        finished = loop.create_future()
        left = calls

        def done(client: _Client, latency: float) -> None:
            nonlocal left
            latencies.append(latency)
            if left > 0:
                left -= 1
                client.send()
            elif len(latencies) == calls:
                finished.set_result(None)

        clients = []
        for _ in range(connections):
            _, client = await loop.create_connection(
                lambda: _Client(self.request, done),
                "127.0.0.1",
                self.port,
                ssl=self.tls,
                server_hostname="localhost" if self.tls else None,
            )
            clients.append(client)
        started = time.perf_counter()
        for client in clients:
            left -= 1
            client.send()
        await finished
        wall = time.perf_counter() - started
        for client in clients:
            client.transport.close()
        return latencies, wall


async def _measure(
    ways: list[Way], rounds: int, connections: int, calls: int
) -> dict[str, tuple[list[float], float]]:
    found: dict[str, tuple[list[float], float]] = {way.name: ([], 0.0) for way in ways}
    for way in ways:
        await way.round(connections, calls // 4)  # warm: connections, caches, rate cards
    for index in range(rounds):
        for way in ways if index % 2 else reversed(ways):
            latencies, wall = await way.round(connections, calls)
            found[way.name] = (found[way.name][0] + latencies, found[way.name][1] + wall)
    return found


def _row(name: str, latencies: list[float], wall: float) -> str:
    cut = statistics.quantiles(latencies, n=100)
    return f"{name:<22}{cut[49] * 1e3:>9.3f}{cut[98] * 1e3:>9.3f}{len(latencies) / wall:>12,.0f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--calls", type=int, default=1000, help="calls each round")
    parser.add_argument("--connections", type=int, default=32, help="for the throughput part")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mmrouter-bench-") as name:
        folder = Path(name)
        certificates = make_certificates(folder)
        here, there = multiprocessing.Pipe()
        upstream = multiprocessing.get_context("spawn").Process(
            target=_run_upstream, args=(certificates.chain, certificates.key, there), daemon=True
        )
        upstream.start()
        upstream_port = here.recv()
        pipeline = multiprocessing.get_context("spawn").Process(
            target=_run_pipeline, args=(folder, there), daemon=True
        )
        pipeline.start()
        router = _start_router(folder, certificates.ca, upstream_port, here.recv())
        try:
            context = ssl.create_default_context(cafile=certificates.ca)
            ways = [
                Way("direct", upstream_port, context),
                Way("through the router", int(_address(folder).rpartition(":")[2]), None),
            ]
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                _report(runner, ways, arguments)
        finally:
            router.terminate()
            router.wait()
            for process in (upstream, pipeline):
                process.terminate()
                process.join()
    return 0


def _report(runner: asyncio.Runner, ways: list[Way], arguments: argparse.Namespace) -> None:
    for title, connections in (
        ("one call at a time", 1),
        (f"{arguments.connections} at a time", arguments.connections),
    ):
        found = runner.run(_measure(ways, arguments.rounds, connections, arguments.calls))
        print(f"{title:<22}{'p50 ms':>9}{'p99 ms':>9}{'calls/s':>12}")
        for name, (latencies, wall) in found.items():
            print(_row("  " + name, latencies, wall))
        direct, routed = (statistics.quantiles(found[w.name][0], n=100) for w in ways)
        print(
            f"{'  added':<22}{(routed[49] - direct[49]) * 1e3:>9.3f}{(routed[98] - direct[98]) * 1e3:>9.3f}"
        )


def _start_router(folder: Path, ca: Path, upstream_port: int, pipeline_url: str) -> subprocess.Popen[bytes]:
    settings = {
        "listen": {"port": 0},
        "state_dir": str(folder),
        "pipeline": {"url": pipeline_url},
        "upstreams": [
            {
                "name": "openai",
                "base_url": f"https://localhost:{upstream_port}",
                "dialect": "openai",
                "api_key_env": "BENCH_KEY",
                "ca_file": str(ca),
            }
        ],
        "keys": [{"id": "bench", "sha256": digest(KEY), "team": "bench"}],
    }
    config = folder / "router.yaml"
    config.write_text(json.dumps(settings))
    router = subprocess.Popen(
        [*ROUTER, "serve", "--config", str(config)],
        env=os.environ | {"BENCH_KEY": "sk-bench"},
        stdout=subprocess.PIPE,
    )
    assert router.stdout is not None
    if not router.stdout.readline().startswith(b"listening"):
        raise SystemExit("router_bench: the router did not start")
    return router


def _address(folder: Path) -> str:
    return (folder / "router" / "address").read_text().strip()


if __name__ == "__main__":
    sys.exit(main())
