"""The exchanges that `reading_bench` reads: messages of the providers' shapes, all with one usage."""

from __future__ import annotations

import base64
import binascii
import json
import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from mmproto.score.record import Record, read_record
from tests.proto import wire

CHUNKS: Final = 500
INPUT, OUTPUT = 1234, 567
MB: Final = 1 << 20
_WORDS: Final = ("measured", "words", "about", "nothing", "in", "particular", "that", "no", "coder", "knows")
_JSON: Final = "application/json"
_SSE: Final = "text/event-stream"


@dataclass(frozen=True)
class Said:
    """A request and its response: what a server writes at once, and the JSON documents of both sides."""

    record: Record
    pieces: tuple[bytes, ...]
    documents: tuple[bytes, ...]


def said(
    host: str,
    path: str,
    asked: Any,
    answers: Sequence[Any],
    pieces: Sequence[bytes] | None = None,
    *,
    content_type: str = _JSON,
    **more: Any,
) -> Said:
    """An exchange; `pieces` is how its answers are written, where they are not one plain document."""
    request, documents = wire.dump(asked), [wire.dump(answer) for answer in answers]
    written = documents if pieces is None else pieces
    document = {
        "request": {
            "method": "POST",
            "host": host,
            "path": path,
            "headers": {
                "content-type": _JSON,
                "authorization": "Bearer sk-not-a-key",
                "user-agent": "OpenAI/Python 2.54.0",
            },
            "body": {"text": request.decode()},
        },
        "response": {
            "status": 200,
            "headers": {
                "content-type": content_type,
                "x-request-id": "req_0123456789abcdef0123",
                "server": "cloudflare",
            },
            "body_b64": base64.b64encode(b"".join(written)).decode(),
        },
        "expected": {"provider": "bench"},
        **more,
    }
    return Said(read_record(document, "bench"), tuple(written), (request, *documents))


def _words(size: int) -> str:
    rng = random.Random(size)
    return " ".join(rng.choice(_WORDS) + str(rng.randrange(1000)) for _ in range(size // 8 + 1))[:size]


def _asked(size: int = 900, **fields: Any) -> dict[str, Any]:
    return {"model": "gpt-bench", "messages": [{"role": "user", "content": _words(size)}], **fields}


def _sse(events: Sequence[dict[str, Any]], *, end: bytes = b"\n", names: bool = False) -> list[bytes]:
    return [wire.sse([event], end=end, names=names) for event in events]


# OpenAI.

_OPENAI: Final = "api.openai.com"
_USAGE: Final = {"input_tokens": INPUT, "output_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT}


def chat(asked: int = 900, answered: int = 600) -> Said:
    """A chat completion, by the sizes of its texts."""
    text = {"role": "assistant", "content": _words(answered)}
    choices = [{"index": 0, "message": text, "finish_reason": "stop"}]
    answer = wire.chat_completion(choices=choices, usage=wire.chat_usage(INPUT, OUTPUT))
    return said(_OPENAI, "/v1/chat/completions", _asked(asked), [answer])


def chat_stream() -> Said:
    """A chat completion as server-sent events."""
    chunks = wire.chat_chunks(["word "] * (CHUNKS - 2), wire.chat_usage(INPUT, OUTPUT))
    pieces = [*_sse(chunks), b"data: [DONE]\n\n"]
    return said(_OPENAI, "/v1/chat/completions", _asked(stream=True), chunks, pieces, content_type=_SSE)


def responses() -> Said:
    """An answer of the Responses API."""
    output = [{"type": "message", "content": [{"type": "output_text", "text": _words(600)}]}]
    answer = wire.response_object(usage=_USAGE, output=output)
    return said(_OPENAI, "/v1/responses", {"model": "gpt-bench", "input": _words(900)}, [answer])


def embeddings(size: int) -> Said:
    """Embeddings of about `size` bytes."""
    rng = random.Random(1)
    vector = [round(rng.uniform(-1, 1), 8) for _ in range(1536)]
    count = size // len(json.dumps(vector))
    data = [{"object": "embedding", "index": index, "embedding": vector} for index in range(count)]
    usage = {"prompt_tokens": INPUT, "total_tokens": INPUT}
    answer = {"object": "list", "data": data, "model": "text-embedding-bench", "usage": usage}
    return said(_OPENAI, "/v1/embeddings", {"model": "text-embedding-bench", "input": "x"}, [answer])


def realtime() -> Said:
    """A session of many small messages and one answer."""
    delta = {"type": "response.output_text.delta", "event_id": "event_0123456789", "delta": "word "}
    response = {"id": wire.RESPONSE_ID, "object": "realtime.response", "status": "completed", "usage": _USAGE}
    frames: list[dict[str, Any]] = [{"direction": "client", "data": {"type": "response.create"}}]
    frames += [{"direction": "server", "data": delta}] * (CHUNKS - 2)
    frames.append({"direction": "server", "data": {"type": "response.done", "response": response}})
    documents = [frame["data"] for frame in frames]
    return said(_OPENAI, "/v1/realtime?model=gpt-bench", None, documents, [], frames=frames)


# Anthropic.

_ANTHROPIC: Final = "api.anthropic.com"


def messages() -> Said:
    """A message."""
    content = [{"type": "text", "text": _words(600)}]
    answer = wire.message(content=content, usage={"input_tokens": INPUT, "output_tokens": OUTPUT})
    return said(_ANTHROPIC, "/v1/messages", _asked(max_tokens=100), [answer])


def messages_stream() -> Said:
    """A message as server-sent events."""
    events = wire.message_events({"input_tokens": INPUT}, {"output_tokens": OUTPUT}, words=CHUNKS - 6)
    asked = _asked(max_tokens=100, stream=True)
    return said(_ANTHROPIC, "/v1/messages", asked, events, _sse(events, names=True), content_type=_SSE)


# Google.

_GEMINI: Final = "generativelanguage.googleapis.com"
_GENERATE: Final = "/v1beta/models/gemini-bench:generateContent"
_STREAM: Final = "/v1beta/models/gemini-bench:streamGenerateContent"
_CONTENTS: Final = {"contents": [{"role": "user", "parts": [{"text": _words(900)}]}]}


def _candidate(text: str, *, last: bool) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    output = OUTPUT if last else 1
    usage = {"promptTokenCount": INPUT, "candidatesTokenCount": output, "totalTokenCount": INPUT + output}
    if last:
        candidate["finishReason"] = "STOP"
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "gemini-bench-001"}


def _candidates() -> list[dict[str, Any]]:
    return [_candidate("word ", last=index == CHUNKS - 1) for index in range(CHUNKS)]


def gemini() -> Said:
    """Generated content."""
    return said(_GEMINI, _GENERATE, _CONTENTS, [_candidate(_words(600), last=True)])


def gemini_stream() -> Said:
    """Generated content as server-sent events."""
    items = _candidates()
    return said(_GEMINI, f"{_STREAM}?alt=sse", _CONTENTS, items, _sse(items, end=b"\r\n"), content_type=_SSE)


def gemini_array() -> Said:
    """Generated content as the items of one JSON array."""
    items = _candidates()
    pieces = [(b"[" if not index else b",\r\n") + wire.dump(item) for index, item in enumerate(items)]
    return said(_GEMINI, _STREAM, _CONTENTS, items, [*pieces, b"]"])


# Amazon.

_BEDROCK: Final = "bedrock-runtime.us-east-1.amazonaws.com"
_MODEL: Final = "/model/amazon.bench-v1%3A0"
_CONVERSE: Final = {"messages": [{"role": "user", "content": [{"text": _words(900)}]}]}
_BEDROCK_USAGE: Final = {"inputTokens": INPUT, "outputTokens": OUTPUT, "totalTokens": INPUT + OUTPUT}


def converse() -> Said:
    """An answer of Converse."""
    message = {"message": {"role": "assistant", "content": [{"text": _words(600)}]}}
    answer = {"output": message, "stopReason": "end_turn", "usage": _BEDROCK_USAGE}
    return said(_BEDROCK, f"{_MODEL}/converse", _CONVERSE, [answer])


def converse_stream() -> Said:
    """An answer of ConverseStream as AWS event stream frames."""
    delta = {"contentBlockIndex": 0, "delta": {"text": "word "}, "p": "abcdefghij"}
    events: list[tuple[str, dict[str, Any]]] = [("messageStart", {"role": "assistant"})]
    events += [("contentBlockDelta", delta)] * (CHUNKS - 3)
    events.append(("messageStop", {"stopReason": "end_turn"}))
    events.append(("metadata", {"usage": _BEDROCK_USAGE, "metrics": {"latencyMs": 5}}))
    frames = [_aws_frame(name, wire.dump(event)) for name, event in events]
    documents = [event for _, event in events]
    kind = "application/vnd.amazon.eventstream"
    return said(_BEDROCK, f"{_MODEL}/converse-stream", _CONVERSE, documents, frames, content_type=kind)


def _aws_frame(event: str, payload: bytes) -> bytes:
    named = ((":event-type", event), (":content-type", _JSON), (":message-type", "event"))
    headers = b"".join(
        struct.pack(">B", len(name)) + name.encode() + struct.pack(">BH", 7, len(value)) + value.encode()
        for name, value in named
    )
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    frame = prelude + struct.pack(">I", binascii.crc32(prelude)) + headers + payload
    return frame + struct.pack(">I", binascii.crc32(frame))


# Others.


def cohere() -> Said:
    """An answer of Cohere's second chat API."""
    units = {"input_tokens": INPUT, "output_tokens": OUTPUT}
    message = {"role": "assistant", "content": [{"type": "text", "text": _words(600)}]}
    answer = {
        "id": "c14c80c3-18eb-4519-9460-6c92edd8cfb4",
        "message": message,
        "finish_reason": "COMPLETE",
        "usage": {"billed_units": units, "tokens": units},
    }
    return said("api.cohere.com", "/v2/chat", _asked(model="command-bench"), [answer])


_OLLAMA: Final = "localhost:11434"
_OLLAMA_END: Final = {"done": True, "done_reason": "stop", "prompt_eval_count": INPUT, "eval_count": OUTPUT}


def _ollama_line(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"model": "bench", "created_at": "2026-11-23T10:00:00Z", "message": message, "done": False}


def ollama() -> Said:
    """An answer of Ollama's own chat API."""
    return said(_OLLAMA, "/api/chat", _asked(stream=False), [_ollama_line(_words(600)) | _OLLAMA_END])


def ollama_stream() -> Said:
    """The same as lines."""
    lines = [*[_ollama_line("word ")] * (CHUNKS - 1), _ollama_line("") | _OLLAMA_END]
    pieces = [wire.dump(line) + b"\n" for line in lines]
    return said(_OLLAMA, "/api/chat", _asked(), lines, pieces, content_type="application/x-ndjson")
