"""Ollama: lines of JSON."""

from __future__ import annotations

from typing import Any

from tests.e2e.reading.answers.answer import SENTENCE, Answer, Read
from tests.e2e.reading.framings import cut, lines

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
