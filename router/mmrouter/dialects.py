"""What the router answers to, and how it says no: one table of paths, one table of errors.

A client library turns an error body into its own exception only where the shape is the one its provider
uses, so every refusal is written in the dialect of the path that was called. `x-should-retry: false` is
what the OpenAI and Anthropic libraries obey before anything else; without it they would send a call that
a budget refused again and again.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

import orjson


class Dialect(Enum):
    """Whose API a path belongs to."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


@dataclass(frozen=True, slots=True)
class Route:
    """One path of an API. `spends`: a call of it costs money. `output`: it generates tokens."""

    dialect: Dialect
    method: str
    spends: bool
    output: bool = True


_ROUTES = {
    "/v1/chat/completions": Route(Dialect.OPENAI, "POST", True),
    "/v1/responses": Route(Dialect.OPENAI, "POST", True),
    "/v1/completions": Route(Dialect.OPENAI, "POST", True),
    "/v1/embeddings": Route(Dialect.OPENAI, "POST", True, output=False),
    "/v1/messages": Route(Dialect.ANTHROPIC, "POST", True),
    "/v1/messages/count_tokens": Route(Dialect.ANTHROPIC, "POST", False),
}
_MODELS = {dialect: Route(dialect, "GET", False) for dialect in Dialect}


# One model by its id. Nothing that an upstream could read as another path: no dots alone, no escaped slash.
_ONE_MODEL = re.compile(r"/v1/models/[A-Za-z0-9_:@-][A-Za-z0-9._:@-]*")


def dialect_of(path: str, anthropic_client: bool) -> Dialect:
    """The dialect to answer in, also for paths that are nobody's."""
    known = _ROUTES.get(path)
    if known is not None:
        return known.dialect
    return Dialect.ANTHROPIC if anthropic_client or path.startswith("/v1/messages") else Dialect.OPENAI


def route_of(path: str, anthropic_client: bool) -> Route | None:
    """The route of `path`, None where the router has none. Both providers list models at the same path:
    there the `anthropic-version` header, which its clients always send, decides."""
    if path == "/v1/models" or _ONE_MODEL.fullmatch(path):
        return _MODELS[Dialect.ANTHROPIC if anthropic_client else Dialect.OPENAI]
    return _ROUTES.get(path)


class Refusal(Enum):
    """Why the router answers instead of an upstream: status, OpenAI's type and code, Anthropic's type."""

    MALFORMED = (400, "invalid_request_error", "malformed_request", "invalid_request_error")
    UNREADABLE = (400, "invalid_request_error", "unreadable_request", "invalid_request_error")
    NO_KEY = (401, "invalid_request_error", "invalid_api_key", "authentication_error")
    MODEL_NOT_ALLOWED = (403, "invalid_request_error", "model_not_allowed", "permission_error")
    UNPRICED_MODEL = (403, "invalid_request_error", "unpriced_model", "permission_error")
    NO_ROUTE = (404, "invalid_request_error", "unknown_url", "not_found_error")
    METHOD = (405, "invalid_request_error", "method_not_allowed", "invalid_request_error")
    SLOW_REQUEST = (408, "invalid_request_error", "request_timeout", "invalid_request_error")
    LENGTH_REQUIRED = (411, "invalid_request_error", "length_required", "invalid_request_error")
    TOO_LARGE = (413, "invalid_request_error", "request_too_large", "request_too_large")
    BUDGET_EXCEEDED = (429, "insufficient_quota", "budget_exceeded", "rate_limit_error")
    BUDGET_RESERVED = (429, "rate_limit_error", "budget_reserved", "rate_limit_error")
    HEAD_TOO_LARGE = (431, "invalid_request_error", "headers_too_large", "invalid_request_error")
    UPSTREAM_FAILED = (502, "server_error", "upstream_failed", "api_error")
    OVERLOADED = (503, "server_error", "router_overloaded", "overloaded_error")
    NO_UPSTREAM = (503, "server_error", "no_upstream", "api_error")
    BUDGETS_UNKNOWN = (503, "server_error", "budgets_unknown", "api_error")
    UPSTREAM_TIMEOUT = (504, "server_error", "upstream_timeout", "timeout_error")

    @property
    def status(self) -> int:
        return self.value[0]

    @property
    def code(self) -> str:
        return self.value[2]


_REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    411: "Length Required",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def error_body(dialect: Dialect, refusal: Refusal, message: str) -> bytes:
    """The JSON that the dialect's own clients understand."""
    _, kind, code, anthropic_kind = refusal.value
    if dialect is Dialect.ANTHROPIC:
        return orjson.dumps({"type": "error", "error": {"type": anthropic_kind, "message": message}})
    return orjson.dumps({"error": {"message": message, "type": kind, "param": None, "code": code}})


def error_response(
    dialect: Dialect,
    refusal: Refusal,
    message: str,
    *,
    close: bool,
    retry_after_s: int | None = None,
    should_retry: bool | None = None,
) -> bytes:
    """A whole response. `should_retry` None leaves the decision to the client library."""
    extra: list[tuple[str, str]] = []
    if should_retry is not None:
        extra.append(("x-should-retry", "true" if should_retry else "false"))
    if retry_after_s is not None:
        extra.append(("retry-after", str(retry_after_s)))
    return response(
        refusal.status, error_body(dialect, refusal, message), "application/json", close=close, extra=extra
    )


def response(
    status: int,
    body: bytes,
    content_type: str,
    *,
    close: bool,
    extra: list[tuple[str, str]] | None = None,
) -> bytes:
    """An HTTP/1.1 response of the router's own."""
    lines = [
        f"HTTP/1.1 {status} {_REASONS[status]}",
        f"content-type: {content_type}",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in extra or ()),
    ]
    if close:
        lines.append("connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
