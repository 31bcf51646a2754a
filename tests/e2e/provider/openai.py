"""OpenAI's chat completions, responses, embeddings and models, as its API answers them."""

from __future__ import annotations

import secrets
import time
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
from tests.e2e.provider.usage import Usage, usage_of

# The dated name that OpenAI answers with for a short one; a name that is not here is answered as it came.
SNAPSHOTS = {
    "gpt-4o": "gpt-4o-2024-08-06",
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "gpt-4.1": "gpt-4.1-2025-04-14",
    "gpt-4.1-mini": "gpt-4.1-mini-2025-04-14",
    "gpt-4.1-nano": "gpt-4.1-nano-2025-04-14",
    "o3": "o3-2025-04-16",
    "o4-mini": "o4-mini-2025-04-16",
    "gpt-5": "gpt-5-2025-08-07",
    "gpt-5-mini": "gpt-5-mini-2025-08-07",
    "gpt-5-nano": "gpt-5-nano-2025-08-07",
}
ERRORS = {
    400: ("invalid_request_error", None, "The request body could not be read."),
    401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
    404: (
        "invalid_request_error",
        "model_not_found",
        "The model does not exist or you do not have access to it.",
    ),
    429: ("requests", "rate_limit_exceeded", "Rate limit reached for requests."),
}


def common_headers() -> dict[str, str]:
    return {
        "x-request-id": f"req_{secrets.token_hex(16)}",
        "openai-organization": "org-local-provider",
        "openai-version": "2020-10-01",
        "openai-processing-ms": "12",
    }


def error(status: int, message: str | None = None) -> Answer:
    kind, code, text = ERRORS.get(
        status, ("server_error", None, "The server had an error while processing your request.")
    )
    body = {"error": {"message": message or text, "type": kind, "param": None, "code": code}}
    return json_answer(status, body, common_headers())


def chat(request: Request, body: Mapping[str, Any], plan: Plan) -> Answer:
    model = str(body.get("model", ""))
    served, usage = SNAPSHOTS.get(model, model), usage_of(body, plan)
    streaming = body.get("stream") is True
    identity = "chatcmpl-123" if plan.id == "weak" else f"chatcmpl-{random_text(29)}"
    asked = bool((body.get("stream_options") or {}).get("include_usage"))
    reported = usage if plan.usage == "normal" and (asked or not streaming) else None
    operation = Operation("openai", "chat", model, served, identity, streaming, reported)
    base = {"id": identity, "created": int(time.time()), "model": served, "service_tier": plan.tier}
    if not streaming:
        value = {
            **base,
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "message": {
                        "role": "assistant",
                        "content": "".join(text_parts(plan.text_bytes, 1)),
                        "refusal": None,
                    },
                    "logprobs": None,
                    "finish_reason": "stop",
                }
            ],
            **({"usage": usage.as_chat()} if reported else {}),
            "system_fingerprint": "fp_local",
        }
        return whole(value, plan, operation)

    chunk = {**base, "object": "chat.completion.chunk", "system_fingerprint": "fp_local"}
    empty = {"usage": None} if asked else {}

    def delta(part: Mapping[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": part, "logprobs": None, "finish_reason": finish}
        return event({**chunk, "choices": [choice], **empty})

    events = [delta({"role": "assistant", "content": "", "refusal": None})]
    events += [delta({"content": part}) for part in text_parts(plan.text_bytes, plan.events)]
    events.append(delta({}, "stop"))
    if reported:
        events.append(event({**chunk, "choices": [], "usage": usage.as_chat()}))
    events.append(b"data: [DONE]\n\n")
    return stream(events, plan, operation)


def responses(request: Request, body: Mapping[str, Any], plan: Plan) -> Answer:
    model = str(body.get("model", ""))
    served, usage = SNAPSHOTS.get(model, model), usage_of(body, plan)
    streaming = body.get("stream") is True
    identity, item = f"resp_{secrets.token_hex(24)}", f"msg_{secrets.token_hex(24)}"
    reported = usage if plan.usage == "normal" else None
    operation = Operation("openai", "chat", model, served, identity, streaming, reported)

    def response(status: str, output: list[dict[str, Any]], used: Usage | None) -> dict[str, Any]:
        return {
            "id": identity,
            "object": "response",
            "created_at": int(time.time()),
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": None,
            "max_output_tokens": body.get("max_output_tokens"),
            "model": served,
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "service_tier": plan.tier,
            "usage": used.as_responses() if used else None,
            "metadata": {},
        }

    def message(text: str) -> dict[str, Any]:
        content = [{"type": "output_text", "annotations": [], "logprobs": [], "text": text}]
        return {"id": item, "type": "message", "status": "completed", "role": "assistant", "content": content}

    text = "".join(text_parts(plan.text_bytes, 1))
    done = response("completed", [message(text)], reported)
    if not streaming:
        return whole(done, plan, operation)
    place = {"item_id": item, "output_index": 0, "content_index": 0}
    started = {"id": item, "type": "message", "status": "in_progress", "role": "assistant", "content": []}
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": response("in_progress", [], None)}),
        ("response.in_progress", {"response": response("in_progress", [], None)}),
        ("response.output_item.added", {"output_index": 0, "item": started}),
        (
            "response.content_part.added",
            {**place, "part": {"type": "output_text", "annotations": [], "logprobs": [], "text": ""}},
        ),
        *(
            ("response.output_text.delta", {**place, "delta": part, "logprobs": []})
            for part in text_parts(plan.text_bytes, plan.events)
        ),
        ("response.output_text.done", {**place, "text": text, "logprobs": []}),
        ("response.content_part.done", {**place, "part": message(text)["content"][0]}),
        ("response.output_item.done", {"output_index": 0, "item": message(text)}),
        ("response.completed", {"response": done}),
    ]
    events = [
        event({"type": name, "sequence_number": number, **data}, name)
        for number, (name, data) in enumerate(bodies)
    ]
    return stream(events, plan, operation)


def embeddings(request: Request, body: Mapping[str, Any], plan: Plan) -> Answer:
    model = str(body.get("model", ""))
    usage = usage_of(body, plan, generates=False)
    reported = usage if plan.usage == "normal" else None
    texts = body.get("input")
    count = len(texts) if isinstance(texts, list) else 1
    vector: object = [0.0125, -0.0075, 0.0025]
    if body.get("encoding_format") == "base64":
        vector = "zczMPI/C9bvNzCM7"  # three little-endian floats
    value: dict[str, Any] = {
        "object": "list",
        "data": [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)],
        "model": model,
    }
    if reported:
        value["usage"] = usage.as_embeddings()
    return whole(value, plan, Operation("openai", "embeddings", model, model, "", False, reported))


def models() -> Answer:
    data = [
        {"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "openai"} for name in SNAPSHOTS
    ]
    return json_answer(200, {"object": "list", "data": data}, common_headers())


def whole(value: Mapping[str, Any], plan: Plan, operation: Operation) -> Answer:
    return Answer(
        200,
        [json_bytes(value)],
        {"content-type": "application/json", **common_headers()},
        compress=plan.gzip != "never",
        delay_s=plan.delay_ms / 1000,
        operation=operation,
    )


def stream(events: list[bytes], plan: Plan, operation: Operation) -> Answer:
    return Answer(
        200,
        events,
        {"content-type": "text/event-stream; charset=utf-8", **common_headers()},
        stream=True,
        compress=plan.gzip == "all",
        delay_s=plan.delay_ms / 1000,
        gap_s=plan.gap_ms / 1000,
        cut=plan.cut,
        operation=operation,
    )
