"""Answers of OpenAI's and Anthropic's APIs with fixed usage, whole and streamed."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from typing import Any

from tests.router.upstream import Seen, Step, whole

INPUT_TOKENS = 1000
OUTPUT_TOKENS = 100
# By the test's rate cards: gpt-4o-mini 1000 x 1 $ + 100 x 10 $ for a million.
CHAT_NANO_USD = 2_000_000
MESSAGES_NANO_USD = 4_500_000


def respond_as_provider(seen: Seen) -> Iterator[Step]:
    path = seen.path.partition("?")[0]
    if path == "/v1/models":
        yield whole(b'{"object":"list","data":[{"id":"gpt-4o-mini","object":"model"}]}')
        return
    request = json.loads(seen.body)
    if path == "/v1/messages":
        yield from _messages(request)
    elif path == "/v1/messages/count_tokens":
        yield whole(b'{"input_tokens": 12}')
    elif path == "/v1/embeddings":
        usage = {"prompt_tokens": INPUT_TOKENS, "total_tokens": INPUT_TOKENS}
        data = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
        yield whole(
            json.dumps({"object": "list", "data": data, "model": request["model"], "usage": usage}).encode()
        )
    else:
        yield from _chat(request)


def chat_usage() -> dict[str, int]:
    total = INPUT_TOKENS + OUTPUT_TOKENS
    return {"prompt_tokens": INPUT_TOKENS, "completion_tokens": OUTPUT_TOKENS, "total_tokens": total}


def event_stream(events: list[bytes], extra: str = "") -> Iterator[Step]:
    """Server-sent events, one chunk each, as providers send them."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{extra}transfer-encoding: chunked\r\n\r\n"
    yield head.encode()
    for event in events:
        yield b"%x\r\n%s\r\n" % (len(event), event)
    yield b"0\r\n\r\n"


def chat_events(request: dict[str, Any]) -> list[bytes]:
    base = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion.chunk", "created": 1}
    base["model"] = request["model"]
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"content": "Hel"},
        {"content": "lo"},
    ]
    chunks = [base | {"choices": [{"index": 0, "delta": d, "finish_reason": None}]} for d in deltas]
    chunks.append(base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if (request.get("stream_options") or {}).get("include_usage"):
        chunks.append(base | {"choices": [], "usage": chat_usage()})
    return [b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks] + [b"data: [DONE]\n\n"]


def _chat(request: dict[str, Any]) -> Iterator[Step]:
    if request.get("stream"):
        yield from event_stream(chat_events(request))
        return
    message = {"role": "assistant", "content": "Hello"}
    body = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": 1,
        "model": request["model"],
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": chat_usage(),
    }
    yield whole(json.dumps(body).encode())


def message_events(request: dict[str, Any]) -> list[bytes]:
    def event(kind: str, **fields: Any) -> bytes:
        return f"event: {kind}\ndata: {json.dumps({'type': kind} | fields)}\n\n".encode()

    start = _message(request) | {"content": [], "stop_reason": None}
    start["usage"] = {"input_tokens": INPUT_TOKENS, "output_tokens": 1}
    return [
        event("message_start", message=start),
        event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Hello"}),
        event("content_block_stop", index=0),
        event(
            "message_delta",
            delta={"stop_reason": "end_turn", "stop_sequence": None},
            usage={"output_tokens": OUTPUT_TOKENS},
        ),
        event("message_stop"),
    ]


def _message(request: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": f"msg_{uuid.uuid4().hex[:24]}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": [{"type": "text", "text": "Hello"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS},
    }


def _messages(request: dict[str, Any]) -> Iterator[Step]:
    if request.get("stream"):
        yield from event_stream(message_events(request))
    else:
        yield whole(json.dumps(_message(request)).encode())
