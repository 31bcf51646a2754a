"""What the providers answer, written by us in the shapes of their APIs, and what has to be read of it."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.reading.framings import (
    array,
    brotli_packed,
    cut,
    dump,
    frames,
    grpc,
    gzipped,
    lines,
    protobuf,
    server_sent,
    zstandard_packed,
)

SENTENCE = "Eleven is a prime above nine."
AMAZON_STREAM = "application/vnd.amazon.eventstream"


@dataclass(frozen=True, slots=True)
class Read:
    """A call as it has to be recorded.

    `buckets` are what the provider reports and is not 0; what it does not is `estimated`, here the truth.
    """

    provider: str
    operation: str
    request_model: str
    response_model: str
    streaming: bool
    buckets: Mapping[str, float]
    quality: str = "EXACT"
    reported_cost_usd: str = ""
    error_type: str = ""
    estimated: Mapping[str, float] = field(default_factory=dict, compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to a request for `path` whose body holds all of `has`: `pieces`, one by one."""

    path: str
    content_type: str
    pieces: tuple[bytes, ...]
    read: Read
    has: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    trailers: Mapping[str, str] = field(default_factory=dict)
    unfinished: bool = False  # the client leaves after these pieces

    def planned(self) -> dict[str, Any]:
        """The form that server.mjs takes."""
        return {
            "path": self.path,
            "has": list(self.has),
            "headers": {"content-type": self.content_type, **self.headers},
            "pieces": [base64.b64encode(piece).decode() for piece in self.pieces],
            "trailers": dict(self.trailers),
            "unfinished": self.unfinished,
        }


# -- OpenAI ------------------------------------------------------------------------------------------

_MINI = "gpt-4o-mini-2024-07-18"


def _chat(number: int, model: str, usage: Any, words: int | None = None) -> tuple[bytes, ...]:
    """With `words` so many of them, and nothing more."""
    head = {"id": f"chatcmpl-Cq1WvE2rTyU3iOpA4sDfG{number}", "object": "chat.completion.chunk"}

    def chunk(choices: list[Any], usage: Any = None) -> dict[str, Any]:
        return {**head, "created": 1_790_000_000, "model": model, "choices": choices, "usage": usage}

    deltas: list[Any] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in re.findall(r"^\w+| \w+|\.", SENTENCE)[:words]]
    chunks = [chunk([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    if words is not None:
        return cut(server_sent(chunks))
    chunks.append(chunk([{"index": 0, "delta": {}, "finish_reason": "stop"}]))
    if usage is not None:
        chunks.append(chunk([], usage))
    return cut(server_sent(chunks, done=True))


def _counted_chat(
    number: int, model: str, served: str, asked: tuple[int, int], answered: tuple[int, int]
) -> Answer:
    """`asked` is all input and what of it was cached, `answered` all output and what of it was thought."""
    usage = {
        "prompt_tokens": asked[0],
        "completion_tokens": answered[0],
        "total_tokens": asked[0] + answered[0],
        "prompt_tokens_details": {"cached_tokens": asked[1], "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": answered[1], "audio_tokens": 0},
    }
    buckets = {
        "input": asked[0] - asked[1],
        "input_cache_read": asked[1],
        "output": answered[0] - answered[1],
        "output_reasoning": answered[1],
    }
    return Answer(
        "/v1/chat/completions",
        "text/event-stream; charset=utf-8",
        _chat(number, served, usage),
        Read("openai", "chat", model, served, True, buckets),
        has=(f'"model":"{model}"', "include_usage"),
    )


CHAT = _counted_chat(1, "gpt-4o-mini", _MINI, (101, 37), (53, 17))
# Two at a time on one connection.
CHAT_SIDE_BY_SIDE = (
    _counted_chat(2, "gpt-4.1", "gpt-4.1-2025-04-14", (283, 7), (293, 5)),
    _counted_chat(3, "gpt-4.1-mini", "gpt-4.1-mini-2025-04-14", (307, 2), (311, 13)),
)
# "Eleven" is what comes, of two tokens; the request's are those of UNASKED.
CHAT_CUT = Answer(
    "/v1/chat/completions",
    "text/event-stream; charset=utf-8",
    _chat(5, "gpt-4.1-nano-2025-04-14", None, words=1),
    Read(
        "openai", "chat", "gpt-4.1-nano", "gpt-4.1-nano-2025-04-14", True,
        {}, "ESTIMATED", error_type="connection_closed", estimated={"input": 13, "output": 2},
    ),
    has=('"model":"gpt-4.1-nano"',),
    unfinished=True,
)  # fmt: skip
# Nobody asked for usage. Both are the counts of OpenAI's own tokenizer: 6 tokens of text ("Name a prime above
# nine."), 4 for the message and 3 for the reply's beginning; 8 tokens of SENTENCE.
UNASKED = Answer(
    "/v1/chat/completions",
    "text/event-stream; charset=utf-8",
    _chat(4, _MINI, None),
    Read("openai", "chat", "gpt-4o-mini", _MINI, True, {}, "ESTIMATED", estimated={"input": 13, "output": 8}),
)

_RESPONSE: dict[str, Any] = {
    "id": "resp_4e5f60718293a4b5c6d7e8f90a1b2c3d",
    "object": "response",
    "created_at": 1_790_000_000,
    "model": _MINI,
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
    "service_tier": "default",
}
_RESPONSE_USAGE = {
    "input_tokens": 127,
    "input_tokens_details": {"cached_tokens": 61, "cache_write_tokens": 0},
    "output_tokens": 83,
    "output_tokens_details": {"reasoning_tokens": 19},
    "total_tokens": 210,
}
_ITEM = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
_TEXT = {"type": "output_text", "text": SENTENCE, "annotations": []}
_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}


def _numbered(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


RESPONSES = Answer(
    "/v1/responses",
    "text/event-stream; charset=utf-8",
    zstandard_packed(
        cut(
        server_sent(
            _numbered(
                [
                    {
                        "type": "response.created",
                        "response": {**_RESPONSE, "status": "in_progress", "usage": None},
                    },
                    {"type": "response.output_item.added", "output_index": 0, "item": _MESSAGE},
                    {"type": "response.content_part.added", **_ITEM, "part": {**_TEXT, "text": ""}},
                    {"type": "response.output_text.delta", **_ITEM, "delta": SENTENCE, "logprobs": []},
                    {"type": "response.output_text.done", **_ITEM, "text": SENTENCE, "logprobs": []},
                    {
                        "type": "response.completed",
                        "response": {
                            **_RESPONSE,
                            "status": "completed",
                            "output": [{**_MESSAGE, "status": "completed", "content": [_TEXT]}],
                            "usage": _RESPONSE_USAGE,
                        },
                    },
                ]
            ),
            named=True,
        )
    )),
    Read(
        "openai", "chat", "gpt-4o-mini", _MINI, True,
        {"input": 127 - 61, "input_cache_read": 61, "output": 83 - 19, "output_reasoning": 19},
    ),
    headers={"content-encoding": "zstd"},
)  # fmt: skip

TRANSCRIPTION = Answer(
    "/v1/audio/transcriptions",
    "application/json",
    cut(
        dump(
            {
                "text": SENTENCE,
                "usage": {
                    "type": "tokens",
                    "input_tokens": 139,
                    "input_token_details": {"text_tokens": 139 - 109, "audio_tokens": 109},
                    "output_tokens": 29,
                    "total_tokens": 168,
                },
            }
        )
    ),
    Read(
        "openai", "transcription", "gpt-4o-mini-transcribe", "", False,
        {"input": 139 - 109, "input_audio": 109, "output": 29},
    ),
)  # fmt: skip

# -- Anthropic ---------------------------------------------------------------------------------------

_CLAUDE = "claude-sonnet-4-6"


def _claude_events(
    number: int, written: tuple[int, int], read: int, fresh: int, output: int
) -> list[dict[str, Any]]:
    usage = {
        "input_tokens": fresh,
        "cache_creation_input_tokens": sum(written),
        "cache_read_input_tokens": read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": written[0],
            "ephemeral_1h_input_tokens": written[1],
        },
    }
    message: dict[str, Any] = {
        "id": f"msg_01QwErTyUiOpAsDfGhJkL{number}",
        "type": "message",
        "role": "assistant",
        "model": _CLAUDE,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 1, "service_tier": "standard"},
    }
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    return [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {
            "type": "content_block_delta",
            "index": 0,
            "delta": {"type": "text_delta", "text": SENTENCE},
        },
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": delta, "usage": {**usage, "output_tokens": output}},
        {"type": "message_stop"},
    ]


MESSAGES = Answer(
    "/v1/messages",
    "text/event-stream; charset=utf-8",
    brotli_packed(cut(server_sent(_claude_events(1, (41, 43), 103, 59, 107), named=True))),
    Read(
        "anthropic", "chat", _CLAUDE, _CLAUDE, True,
        {
            "input": 59,
            "input_cache_read": 103,
            "input_cache_write_5m": 41,
            "input_cache_write_1h": 43,
            "output": 107,
        },
    ),
    headers={"content-encoding": "br"},
)  # fmt: skip

# The input is told at the beginning and is right; the output is estimated from SENTENCE.
MESSAGES_CUT = Answer(
    MESSAGES.path,
    MESSAGES.content_type,
    cut(server_sent(_claude_events(3, (0, 0), 0, 313, 0)[:4], named=True)),
    Read(
        "anthropic", "chat", _CLAUDE, _CLAUDE, True, {"input": 313}, "ESTIMATED",
        error_type="connection_closed", estimated={"output": 8},
    ),
    has=('"content":"Stop early."',),
    unfinished=True,
)  # fmt: skip

# -- Bedrock -----------------------------------------------------------------------------------------


def _converse(model: str, fresh: int, read: int, written: int, output: int) -> Answer:
    usage = {
        "inputTokens": fresh,
        "outputTokens": output,
        "totalTokens": fresh + read + written + output,
        "cacheReadInputTokens": read,
        "cacheWriteInputTokens": written,
    }
    deltas: list[tuple[str, Any]] = [
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}, "p": "abcdefgh"[:number]})
        for number, word in enumerate(SENTENCE.split(" "))
    ]
    events = [
        ("messageStart", {"role": "assistant", "p": "abc"}),
        *deltas,
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
    ]
    buckets = {"input": fresh, "input_cache_read": read, "input_cache_write_5m": written, "output": output}
    read_as = Read("aws.bedrock", "chat", model, "", True, buckets)
    return Answer(f"/model/{model}/converse-stream", AMAZON_STREAM, cut(frames(events)), read_as)


CONVERSE_STREAM = _converse("eu.amazon.nova-pro-v1:0", 67, 131, 137, 71)
# Two at a time on one connection.
CONVERSE_SIDE_BY_SIDE = (
    _converse("us.anthropic.claude-sonnet-4-6", 149, 151, 157, 73),
    _converse("us.amazon.nova-lite-v1:0", 163, 167, 173, 79),
)

_TITAN = "amazon.titan-text-express-v1"
INVOKE = Answer(
    f"/model/{_TITAN}/invoke",
    "application/json",
    cut(
        dump(
            {
                "inputTextTokenCount": 179,
                "results": [{"tokenCount": 89, "outputText": SENTENCE, "completionReason": "FINISH"}],
            }
        )
    ),
    Read("aws.bedrock", "chat", _TITAN, "", False, {"input": 179, "output": 89}),
    headers={"x-amzn-bedrock-input-token-count": "179", "x-amzn-bedrock-output-token-count": "89"},
)

_BEDROCK_CLAUDE = "anthropic.claude-3-5-sonnet-20241022-v2:0"


def _invoke_stream() -> tuple[bytes, ...]:
    events = _claude_events(2, (0, 0), 0, 181, 97)
    events[-1]["amazon-bedrock-invocationMetrics"] = {"inputTokenCount": 181, "outputTokenCount": 97}
    chunks = [("chunk", {"bytes": base64.b64encode(dump(event)).decode(), "p": "abcd"}) for event in events]
    return cut(frames(chunks))


INVOKE_STREAM = Answer(
    f"/model/{_BEDROCK_CLAUDE}/invoke-with-response-stream",
    AMAZON_STREAM,
    _invoke_stream(),
    Read("aws.bedrock", "chat", _BEDROCK_CLAUDE, _CLAUDE, True, {"input": 181, "output": 97}),
    headers={"x-amzn-bedrock-content-type": "application/json"},
)

# -- Gemini: a JSON array where nobody asks for `alt=sse` -----------------------------------------------


def _generated(model: str, part: str, usage: dict[str, Any], **candidate: Any) -> dict[str, Any]:
    content = {"parts": [{"text": part}], "role": "model"}
    return {
        "candidates": [{"content": content, "index": 0, **candidate}],
        "usageMetadata": usage,
        "modelVersion": model,
        "responseId": f"q1W2e3R4t5Z6{usage['promptTokenCount']}",
    }


def _gemini(model: str, prompt: tuple[int, int], answered: tuple[int, int], *, events: bool) -> Answer:
    """`prompt` is all of it and what of it was cached, `answered` the words and the thoughts."""
    first = {"promptTokenCount": prompt[0], "candidatesTokenCount": 2, "totalTokenCount": prompt[0] + 2}
    last = {
        "promptTokenCount": prompt[0],
        "candidatesTokenCount": answered[0],
        "thoughtsTokenCount": answered[1],
        "cachedContentTokenCount": prompt[1],
        "totalTokenCount": prompt[0] + sum(answered),
    }
    chunks = [
        _generated(model, "Eleven is ", first),
        _generated(model, "a prime above nine.", last, finishReason="STOP"),
    ]
    buckets = {
        "input": prompt[0] - prompt[1],
        "input_cache_read": prompt[1],
        "output": answered[0],
        "output_reasoning": answered[1],
    }
    return Answer(
        f"/v1beta/models/{model}:streamGenerateContent",
        "text/event-stream" if events else "application/json; charset=UTF-8",
        gzipped(cut(server_sent(chunks) if events else array(chunks))),
        Read("gcp.gemini", "generate_content", model, model, True, buckets),
        headers={"content-encoding": "gzip"},
    )


GEMINI = _gemini("gemini-2.5-flash", (191, 113), (31, 197), events=False)
# Two at a time on one connection.
GEMINI_SIDE_BY_SIDE = (
    _gemini("gemini-2.5-pro", (317, 139), (337, 347), events=True),
    _gemini("gemini-2.5-flash-lite", (349, 23), (353, 359), events=True),
)

# -- Ollama ------------------------------------------------------------------------------------------

_LLAMA = "gpt-oss:20b"


def _said(content: str, **fields: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content}
    head = {"model": _LLAMA, "created_at": "2026-11-23T12:00:00Z", "message": message, "done": False}
    return {**head, **fields}


OLLAMA = Answer(
    "/api/chat",
    "application/x-ndjson",
    cut(
        lines(
            [
                *(_said(word) for word in SENTENCE.split(" ")),
                _said("", done=True, done_reason="stop", prompt_eval_count=199, eval_count=11),
            ]
        )
    ),
    Read("ollama", "chat", _LLAMA, _LLAMA, True, {"input": 199, "output": 11}),
)

# -- xAI over gRPC: the fields' numbers are those of xai.api.v1 ------------------------------------------

_GROK = "grok-4-fast-reasoning"


def _grok_usage(prompt: int, cached: int, completion: int, thoughts: int, ticks: int) -> bytes:
    total = prompt + completion + thoughts
    return protobuf((1, completion), (2, prompt), (3, total), (6, thoughts), (7, cached), (11, ticks))


XAI = Answer(
    "/xai_api.Chat/GetCompletion",
    "application/grpc",
    cut(
        grpc(
            protobuf(
                (1, "5f1d0c9e-0d42-4f4c-9a7d-1d2c3b4a5968"),
                (2, protobuf((1, 3), (3, protobuf((1, SENTENCE), (3, 2))))),
                (6, _GROK),
                (9, _grok_usage(211, 47, 223, 227, 1_234_567_890)),
            )
        )
    ),
    Read(
        "x_ai", "chat", _GROK, _GROK, False,
        {"input": 211 - 47, "input_cache_read": 47, "output": 223, "output_reasoning": 227},
        reported_cost_usd="0.123456789",
    ),
    trailers={"grpc-status": "0"},
)  # fmt: skip
XAI_STREAM = Answer(
    "/xai_api.Chat/GetCompletionChunk",
    "application/grpc",
    cut(
        grpc(
            *(
                protobuf(
                    (1, "7c2e1d0f-1e53-4a5d-8b8e-2e3d4c5b6a79"),
                    (2, protobuf((1, protobuf((1, word))), *(((3, 3),) if last else ()))),
                    (4, _GROK),
                    (6, _grok_usage(229, 0, output, 233, ticks)),
                )
                for word, last, output, ticks in (
                    ("Eleven", False, 1, 1000),
                    (" is a prime.", True, 239, 987_654_320),
                )
            ),
            packed=True,
        )
    ),
    Read(
        "x_ai", "chat", _GROK, _GROK, True,
        {"input": 229, "output": 239, "output_reasoning": 233},
        reported_cost_usd="0.098765432",
    ),
    headers={"grpc-encoding": "gzip"},
    trailers={"grpc-status": "0"},
)  # fmt: skip

PLAN = (
    *CHAT_SIDE_BY_SIDE,
    CHAT_CUT,
    CHAT,
    UNASKED,
    RESPONSES,
    TRANSCRIPTION,
    MESSAGES_CUT,
    MESSAGES,
    CONVERSE_STREAM,
    *CONVERSE_SIDE_BY_SIDE,
    INVOKE,
    INVOKE_STREAM,
    GEMINI,
    *GEMINI_SIDE_BY_SIDE,
    OLLAMA,
    XAI,
    XAI_STREAM,
)
