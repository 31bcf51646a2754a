"""A pipeline as the router sees it: takes batches, tells budgets and prices. It counts like the real one.

The router's side of the contract is tested against this; the real pipeline is driven by the end-to-end tests.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from mmproto.delivery.token import ensure_token
from mmproto.ratebook import ModelRates, RateBook
from mmproto.rateform import book_to_json
from mmproto.rating import Rate, RateCard
from mmproto.v1.call_pb2 import Call
from mmproto.v1.ingest_pb2 import IngestBatch
from mmproto.v1.routing_pb2 import RoutingDecision

MILLION = 1_000_000


def book(version: str = "test-1") -> RateBook:
    """Round prices: gpt-4o-mini 1 $ in, 10 $ out; claude-test-1 3 $ in, 15 $ out, for a million each."""

    def model(provider: str, name: str, usd_in: str, usd_out: str) -> ModelRates:
        rates = {
            "input": Rate(Decimal(usd_in), MILLION),
            "input_cache_read": Rate(Decimal(usd_in), MILLION),
            "output": Rate(Decimal(usd_out), MILLION),
            "output_reasoning": Rate(Decimal(usd_out), MILLION),
        }
        card = RateCard(f"{name}-card", provider, name, "standard", 0, None, rates, ("test",))
        return ModelRates(name, {"starts_with": name}, [card])

    return RateBook(
        version,
        {
            "openai": [
                model("openai", "gpt-4o-mini", "1", "10"),
                model("openai", "text-embedding-3-small", "1", "1"),
            ],
            "anthropic": [model("anthropic", "claude-test-1", "3", "15")],
        },
    )


@dataclass
class FakePipeline:
    """`with FakePipeline(state folder, limit) as pipeline`. `away` makes it refuse to answer."""

    folder: Path
    limit_nano_usd: int
    team: str = "bench"
    block_at_percent: int | None = 100
    spent_nano_usd: int = 0
    away: bool = False
    scope: dict[str, str] = field(default_factory=dict)
    calls: dict[str, Call] = field(default_factory=dict)
    decisions: list[RoutingDecision] = field(default_factory=list)
    resets_in_s: int = 86_400
    port: int = 0

    def __enter__(self) -> Self:
        self._lock = threading.Lock()
        self._token = ensure_token(self.folder / "ingest.token")
        self._book = book()
        pipeline = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                pipeline.answer(self, b"")

            def do_POST(self) -> None:
                pipeline.answer(self, self.rfile.read(int(self.headers["content-length"])))

            def log_message(self, format: str, *args: object) -> None:
                pass

        ThreadingHTTPServer.daemon_threads = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        status, form = self._answer(handler, body)
        text = json.dumps(form).encode()
        handler.send_response(status)
        handler.send_header("content-length", str(len(text)))
        handler.end_headers()
        handler.wfile.write(text)

    def _answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, Any]:
        if self.away:
            return 503, {}
        if handler.headers.get("authorization") != f"Bearer {self._token}":
            return 401, {}
        with self._lock:
            if handler.path == "/v1/ingest":
                return 200, self._ingest(IngestBatch.FromString(body))
            if handler.path == "/v1/router/state":
                return 200, self._state()
            if handler.path.startswith("/v1/rate-cards"):
                return 200, book_to_json(self._book, ["openai", "anthropic"])
        return 404, {}

    def _ingest(self, batch: IngestBatch) -> Any:
        accepted = 0
        self.decisions += batch.routing_decisions
        for call in batch.calls:
            if call.id in self.calls:
                continue
            accepted += 1
            self.calls[call.id] = call
            names = [call.response_model, call.request_model]
            charge = self._book.price(
                call.provider, names, call.service_tier, call.started_at_unix_ns, dict(call.usage.tokens)
            )
            if call.billable and call.team == self.team:
                self.spent_nano_usd += charge.nano_usd or 0
        total = len(batch.calls) + len(batch.routing_decisions)
        return {"accepted": accepted, "duplicates": total - accepted, "rejected": []}

    def _state(self) -> Any:
        now = datetime.now(UTC)
        return {
            "as_of": now.isoformat().replace("+00:00", "Z"),
            "budgets": [
                {
                    "id": "budget-1",
                    "name": "Team budget",
                    "tenant": "default",
                    "scope": self.scope or {"team": self.team},
                    "period": "month",
                    "period_start": (now - timedelta(days=1)).isoformat().replace("+00:00", "Z"),
                    "resets_at": (now + timedelta(seconds=self.resets_in_s))
                    .isoformat()
                    .replace("+00:00", "Z"),
                    "limit_nano_usd": self.limit_nano_usd,
                    "spent_nano_usd": self.spent_nano_usd,
                    "block_at_percent": self.block_at_percent,
                }
            ],
            "rate_cards_version": self._book.version,
        }
