"""Bedrock: Converse, and models' own answers to InvokeModel."""

from __future__ import annotations

import base64
from typing import Any

from tests.e2e.reading.answers.answer import SENTENCE, Answer, Read
from tests.e2e.reading.answers.anthropic import CLAUDE, claude_events
from tests.e2e.reading.framings import cut, dump, frames

AMAZON_STREAM = "application/vnd.amazon.eventstream"


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
    events = claude_events(2, (0, 0), 0, 181, 97)
    events[-1]["amazon-bedrock-invocationMetrics"] = {"inputTokenCount": 181, "outputTokenCount": 97}
    chunks = [("chunk", {"bytes": base64.b64encode(dump(event)).decode(), "p": "abcd"}) for event in events]
    return cut(frames(chunks))


INVOKE_STREAM = Answer(
    f"/model/{_BEDROCK_CLAUDE}/invoke-with-response-stream",
    AMAZON_STREAM,
    _invoke_stream(),
    Read("aws.bedrock", "chat", _BEDROCK_CLAUDE, CLAUDE, True, {"input": 181, "output": 97}),
    headers={"x-amzn-bedrock-content-type": "application/json"},
)
