"""OpenAI: chats, responses and transcriptions."""

from __future__ import annotations

import re
from typing import Any

from tests.e2e.reading.answers.answer import SENTENCE, Answer, Read
from tests.e2e.reading.framings import cut, dump, server_sent, zstandard_packed

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
