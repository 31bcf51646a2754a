"""Anthropic's messages, whole and cut off."""

from __future__ import annotations

from typing import Any

from tests.e2e.reading.answers.answer import SENTENCE, Answer, Read
from tests.e2e.reading.framings import brotli_packed, cut, server_sent

CLAUDE = "claude-sonnet-4-6"


def claude_events(
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
        "model": CLAUDE,
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
    brotli_packed(cut(server_sent(claude_events(1, (41, 43), 103, 59, 107), named=True))),
    Read(
        "anthropic", "chat", CLAUDE, CLAUDE, True,
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
    cut(server_sent(claude_events(3, (0, 0), 0, 313, 0)[:4], named=True)),
    Read(
        "anthropic", "chat", CLAUDE, CLAUDE, True, {"input": 313}, "ESTIMATED",
        error_type="connection_closed", estimated={"output": 8},
    ),
    has=('"content":"Stop early."',),
    unfinished=True,
)  # fmt: skip
