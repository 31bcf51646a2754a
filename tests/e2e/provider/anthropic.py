"""Anthropic's messages, as its API answers them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.e2e.provider.answer import (
    Answer,
    Operation,
    Request,
    event,
    json_answer,
    json_bytes,
    random_text,
    text_parts,
)
from tests.e2e.provider.plan import Plan
from tests.e2e.provider.usage import usage_of

SNAPSHOTS = {
    "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
    "claude-haiku-4-5": "claude-haiku-4-5-20251001",
    "claude-opus-4-5": "claude-opus-4-5-20251101",
    "claude-3-5-haiku-latest": "claude-3-5-haiku-20241022",
}
ERRORS = {
    400: ("invalid_request_error", "The request body could not be read."),
    401: ("authentication_error", "invalid x-api-key"),
    404: ("not_found_error", "model: not found"),
    429: ("rate_limit_error", "This request would exceed your organization's rate limit."),
    529: ("overloaded_error", "Overloaded"),
}


def request_id() -> str:
    return f"req_01{random_text(22)}"


def error(status: int, message: str | None = None) -> Answer:
    kind, text = ERRORS.get(status, ("api_error", "Internal server error"))
    identity = request_id()
    body = {"type": "error", "error": {"type": kind, "message": message or text}, "request_id": identity}
    return json_answer(
        status, body, {"request-id": identity, "x-should-retry": "true" if status >= 429 else "false"}
    )


def messages(request: Request, body: Mapping[str, Any], plan: Plan) -> Answer:
    model = str(body.get("model", ""))
    served, usage = SNAPSHOTS.get(model, model), usage_of(body, plan)
    streaming = body.get("stream") is True
    identity = "msg_123" if plan.id == "weak" else f"msg_01{random_text(22)}"
    reported = usage if plan.usage == "normal" else None
    operation = Operation("anthropic", "chat", model, served, identity, streaming, reported)
    tier = "standard" if plan.tier == "default" else plan.tier
    headers = {
        "request-id": request_id(),
        "anthropic-organization-id": "00000000-0000-4000-8000-000000000000",
        "content-type": "text/event-stream; charset=utf-8" if streaming else "application/json",
    }
    base = {"model": served, "id": identity, "type": "message", "role": "assistant"}
    if not streaming:
        value = {
            **base,
            "content": [{"type": "text", "text": "".join(text_parts(plan.text_bytes, 1))}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            **({"usage": usage.as_messages(tier)} if reported else {}),
        }
        return Answer(
            200,
            [json_bytes(value)],
            headers,
            compress=plan.gzip != "never",
            delay_s=plan.delay_ms / 1000,
            operation=operation,
        )

    # The start carries the input and a first few output tokens, the delta at the end the final output.
    first = {**usage.as_messages(tier), "output_tokens": 1}
    start: dict[str, Any] = {**base, "content": [], "stop_reason": None, "stop_sequence": None}
    delta: dict[str, Any] = {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
    }
    if reported:
        start["usage"] = first
        delta["usage"] = {"output_tokens": usage.output_total} | (
            {"output_tokens_details": {"thinking_tokens": usage.reasoning}} if usage.reasoning else {}
        )
    events = [
        event({"type": "message_start", "message": start}, "message_start"),
        event(
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            "content_block_start",
        ),
        event({"type": "ping"}, "ping"),
        *(
            event(
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": part}},
                "content_block_delta",
            )
            for part in text_parts(plan.text_bytes, plan.events)
        ),
        event({"type": "content_block_stop", "index": 0}, "content_block_stop"),
        event(delta, "message_delta"),
        event({"type": "message_stop"}, "message_stop"),
    ]
    return Answer(
        200,
        events,
        headers,
        stream=True,
        compress=plan.gzip == "all",
        delay_s=plan.delay_ms / 1000,
        gap_s=plan.gap_ms / 1000,
        cut=plan.cut,
        operation=operation,
    )
