"""Messages of the providers' APIs, written for these tests, and their bytes on an HTTP/1.1 connection."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mmproto.exchange import Outcome, ReadingRules, Recognised
from mmproto.reader import ConnectionReader, Direction
from mmproto.v1.call_pb2 import Call

START_NS = 1_700_000_000_000_000_000
CHAT_ID = "chatcmpl-Bq7TeSt0nLyXyZ123456"
MESSAGE_ID = "msg_01TeStOnLyAbCdEfGhIjKl"
RESPONSE_ID = "resp_0a1b2c3d4e5f60718293a4b5c6d7e8f9"

RULES = ReadingRules(hash_key=lambda key: f"hash-of-{len(key)}")


def dump(document: Any) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def request(
    host: str,
    path: str,
    document: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
) -> bytes:
    """A request with a counted body; `document` may be bytes already."""
    body = b"" if document is None else document if isinstance(document, bytes) else dump(document)
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def response(
    document: Any,
    *,
    status: int = 200,
    content_type: str = "application/json",
    headers: Mapping[str, str] | None = None,
    framing: str = "length",
    encoding: str = "identity",
    chunk: int = 100,
) -> bytes:
    """A response; `framing` is length, chunked or close, `encoding` identity, gzip or deflate."""
    body = document if isinstance(document, bytes) else dump(document)
    lines = [f"HTTP/1.1 {status} Reason", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if encoding != "identity":
        lines.append(f"Content-Encoding: {encoding}")
        body = gzip.compress(body) if encoding == "gzip" else zlib.compress(body)
    if framing == "length":
        lines.append(f"Content-Length: {len(body)}")
    elif framing == "chunked":
        lines.append("Transfer-Encoding: chunked")
        body = chunked(body[i : i + chunk] for i in range(0, len(body), chunk))
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chunked(pieces: Iterable[bytes], *, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    body = b"".join(b"%x%s\r\n%s\r\n" % (len(piece), extension, piece) for piece in pieces if piece)
    return body + b"0\r\n" + trailers + b"\r\n"


def sse(events: Iterable[Any], *, end: bytes = b"\n", done: bool = False, names: bool = False) -> bytes:
    """An event stream of documents (bytes pass through as data); `names` adds `event:` from their type."""
    blocks: list[bytes] = []
    for event in events:
        data = event if isinstance(event, bytes) else dump(event)
        name = b"event: " + event["type"].encode() + end if names and isinstance(event, dict) else b""
        blocks.append(name + b"data: " + data + end + end)
    if done:
        blocks.append(b"data: [DONE]" + end + end)
    return b"".join(blocks)


def chat_usage(prompt: int = 30, completion: int = 12, **extra: Any) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        **extra,
    }


def chat_request(**fields: Any) -> dict[str, Any]:
    return {"model": "gpt-test", "messages": [{"role": "user", "content": "secret prompt"}], **fields}


def chat_completion(**fields: Any) -> dict[str, Any]:
    return {
        "id": CHAT_ID,
        "object": "chat.completion",
        "model": "gpt-test-2026",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "secret answer"},
                "finish_reason": "stop",
            }
        ],
        "usage": chat_usage(),
        **fields,
    }


def chat_chunks(words: Sequence[str] = ("a", "b", "c"), usage: Any = None) -> list[dict[str, Any]]:
    base = {"id": CHAT_ID, "object": "chat.completion.chunk", "model": "gpt-test-2026", "usage": None}
    chunks: list[dict[str, Any]] = [
        {**base, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}
        for word in words
    ]
    chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage is not None:
        chunks.append({**base, "choices": [], "usage": usage})
    return chunks


def message(**fields: Any) -> dict[str, Any]:
    return {
        "id": MESSAGE_ID,
        "type": "message",
        "role": "assistant",
        "model": "claude-test-1",
        "content": [{"type": "text", "text": "secret answer"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 21, "output_tokens": 34},
        **fields,
    }


def message_events(
    start: Mapping[str, Any] | None = None, delta: Mapping[str, Any] | None = None, words: int = 3
) -> list[dict[str, Any]]:
    opening = message(
        content=[], stop_reason=None, usage={"input_tokens": 21, "output_tokens": 2, **(start or {})}
    )
    text = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "secret"}}
    return [
        {"type": "message_start", "message": opening},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        *[text] * words,
        {"type": "content_block_stop", "index": 0},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn", "stop_sequence": None},
            "usage": {"output_tokens": 34, **(delta or {})},
        },
        {"type": "message_stop"},
    ]


def response_object(**fields: Any) -> dict[str, Any]:
    return {
        "id": RESPONSE_ID,
        "object": "response",
        "status": "completed",
        "model": "gpt-test-2026",
        "background": False,
        "error": None,
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "secret answer"}]}],
        "service_tier": "default",
        "usage": {
            "input_tokens": 40,
            "input_tokens_details": {"cached_tokens": 8},
            "output_tokens": 25,
            "output_tokens_details": {"reasoning_tokens": 5},
            "total_tokens": 65,
        },
        **fields,
    }


def response_events(last: str = "response.completed", **fields: Any) -> list[dict[str, Any]]:
    started = response_object(status="in_progress", usage=None, output=[])
    delta = {"type": "response.output_text.delta", "delta": "secret", "output_index": 0}
    return [
        {"type": "response.created", "response": started},
        {"type": "response.in_progress", "response": started},
        *[delta] * 3,
        {"type": last, "response": response_object(**fields)},
    ]


def upgrade(host: str, path: str) -> tuple[bytes, bytes]:
    """The request and the response that turn a connection into a WebSocket."""
    asked = (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGVzdHMgb25seSwgbm90IQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    answered = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    return asked.encode(), answered.encode()


def websocket(message: Any, *, masked: bool = False) -> bytes:
    """A document (or bytes as they are) as one text message."""
    return _frame(0x81, message if isinstance(message, bytes) else dump(message), masked=masked)


def websocket_close(*, masked: bool = False) -> bytes:
    return _frame(0x88, b"\x03\xe8", masked=masked)


def _frame(first: int, payload: bytes, *, masked: bool) -> bytes:
    size = len(payload)
    if size < 126:
        length, extended = size, b""
    elif size < 1 << 16:
        length, extended = 126, size.to_bytes(2)
    else:
        length, extended = 127, size.to_bytes(8)
    if not masked:
        return bytes([first, length]) + extended + payload
    key = b"\x37\xfa\x21\x3d"
    covered = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return bytes([first, 0x80 | length]) + extended + key + covered


def read_turns(
    turns: Iterable[tuple[bytes, bytes]], *, close: bool = False, step: int = 1 << 30
) -> list[Outcome]:
    """The outcomes of one connection whose ends took turns: what was sent, then what was received."""
    reader = ConnectionReader(RULES, "connection-1")
    outcomes: list[Outcome] = []
    for turn in turns:
        for direction, data in zip((Direction.WRITE, Direction.READ), turn, strict=True):
            for start in range(0, len(data), step):
                outcomes += reader.feed(direction, data[start : start + step], START_NS)
    if close:
        outcomes += reader.close(START_NS)
    return outcomes


def read(
    sent: bytes, received: bytes, *, rules: ReadingRules = RULES, close: bool = False, step: int = 1 << 30
) -> list[Outcome]:
    """The outcomes of one connection that a client had: all of `sent`, then all of `received`."""
    reader = ConnectionReader(rules, "connection-1")
    outcomes: list[Outcome] = []
    for direction, data in ((Direction.WRITE, sent), (Direction.READ, received)):
        for start in range(0, len(data), step):
            outcomes += reader.feed(direction, data[start : start + step], START_NS)
    if close:
        outcomes += reader.close(START_NS)
        assert reader.open_exchanges == 0
    return outcomes


def the_call(outcomes: Sequence[Outcome]) -> Call:
    """The call of an exchange that has to have been recognised, alone."""
    assert len(outcomes) == 1, outcomes
    [outcome] = outcomes
    assert isinstance(outcome, Recognised), outcome
    return outcome.call
