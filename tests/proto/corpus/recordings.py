"""Recorded exchanges of real providers, where the folder that holds them exists beside the project.

They are read in place and never copied: without the folder there is nothing to read, and the tests over it
collect no case.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parents[4] / "shared" / "corpus" / "open"

# The recordings' names of providers and ours, where they differ.
_PROVIDERS: dict[str, frozenset[str]] = {
    "alibaba_dashscope": frozenset({"alibaba"}),
    "aws_bedrock": frozenset({"aws.bedrock"}),
    "aws_bedrock_mantle": frozenset({"aws.bedrock"}),
    "azure": frozenset({"azure.ai.openai", "azure.ai.inference"}),
    "cloudflare_workers_ai": frozenset({"cloudflare"}),
    # Behind a host that nobody knows, the flavour of the dialect is all there is.
    "gateway_proxy": frozenset({"openai", "anthropic"}),
    "google_gemini": frozenset({"gcp.gemini"}),
    "google_vertex": frozenset({"gcp.vertex_ai"}),
    "mistral": frozenset({"mistral_ai"}),
    "moonshot": frozenset({"moonshot_ai"}),
    "openai_compatible_local": frozenset({"openai"}),
    "snowflake_cortex": frozenset({"snowflake"}),
    "vercel_ai_gateway": frozenset({"vercel"}),
    "xai": frozenset({"x_ai"}),
    "zhipu": frozenset({"z_ai", "zhipu"}),
}
_OPERATIONS = (
    "/chat/completions",
    "/completions",
    "/responses",
    "/responses/compact",
    "/embeddings",
    "/v1/messages",
)


@dataclass(frozen=True)
class Recording:
    name: str
    method: str
    host: str
    target: str
    request_headers: dict[str, str]
    request_body: bytes
    status: int
    response_headers: dict[str, str]
    response_body: bytes
    expected: dict[str, Any]

    @property
    def providers(self) -> frozenset[str]:
        name = self.expected["provider"]
        return _PROVIDERS.get(name, frozenset({name}))

    @property
    def in_scope(self) -> bool:
        """Whether the dialects of this project have to read it."""
        path = self.target.partition("?")[0].rstrip("/")
        if path.endswith("/api/embeddings"):
            return False
        return self.method == "POST" and path.endswith(_OPERATIONS)

    @property
    def is_pending(self) -> bool:
        """Accepted for later: costs nothing yet."""
        return "background_create_usage_pending" in self.expected["quirks"]

    def accepted(self, name: str) -> list[Any]:
        """The values of a field that a careful product may report."""
        return [self.expected[name], *self.expected["alt"].get(name, [])]

    def as_archive(self) -> bytes:
        """The recording as an HTTP archive of one entry."""
        scheme = "http" if self.host.partition(":")[0] in ("localhost", "127.0.0.1", "0.0.0.0") else "https"  # noqa: S104
        entry = {
            "startedDateTime": "2026-01-01T00:00:00Z",
            "time": 100,
            "request": {
                "method": self.method,
                "url": f"{scheme}://{self.host}{self.target}",
                "headers": [{"name": name, "value": value} for name, value in self.request_headers.items()],
                "postData": {"text": base64.b64encode(self.request_body).decode(), "encoding": "base64"},
            },
            "response": {
                "status": self.status,
                "headers": [{"name": name, "value": value} for name, value in self.response_headers.items()],
                "content": {"text": base64.b64encode(self.response_body).decode(), "encoding": "base64"},
            },
        }
        return json.dumps({"log": {"entries": [entry]}}).encode()


def load() -> list[Recording]:
    """All recordings in order of their names; none where the folder does not exist."""
    return [_read(path) for path in sorted(FOLDER.glob("*.json"))]


def _read(path: Path) -> Recording:
    record = json.loads(path.read_bytes())
    asked, answered = record["request"], record["response"]
    body = asked.get("body") or {}
    text = body.get("text")
    return Recording(
        name=path.stem,
        method=asked["method"],
        host=asked["host"],
        target=asked["path"],
        request_headers=asked["headers"],
        request_body=text.encode() if text is not None else base64.b64decode(body.get("base64") or ""),
        status=answered["status"],
        response_headers=answered["headers"],
        response_body=base64.b64decode(answered["body_b64"]),
        expected=record["expected"],
    )
