"""Gemini: a JSON array where nobody asks for `alt=sse`, else events."""

from __future__ import annotations

from typing import Any

from tests.e2e.reading.answers.answer import Answer, Read
from tests.e2e.reading.framings import array, cut, gzipped, server_sent


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
