"""What is estimated: calls that were served and told no numbers, or were cut off before they did."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.estimation_error import HEADER, table
from tests.proto import wire
from tests.proto.corpus.recordings import FOLDER

from mmproto.estimation import tokenizer
from mmproto.exchange import Exchange, Recognised, RequestHead, ResponseHead
from mmproto.v1.usage_pb2 import Quality

DOCUMENT = Path(__file__).resolve().parents[3] / "docs/reference/estimation.md"
WORDS = ("The ", "answer ", "to ", "it ", "all ", "is ", "forty-two.")
SSE = (("content-type", "text/event-stream"),)
EVENTS: dict[str, tuple[str, str, list[Any]]] = {
    "openai": ("api.openai.com", "/v1/chat/completions", wire.chat_chunks(WORDS)),
    "anthropic": ("api.anthropic.com", "/v1/messages", wire.message_events()),
    "responses": (
        "api.openai.com",
        "/v1/responses",
        [
            {"type": "response.created", "response": {"id": wire.RESPONSE_ID, "model": "gpt-test-2026"}},
            *({"type": "response.output_text.delta", "delta": word} for word in WORDS),
            {"type": "response.output_text.done", "text": "".join(WORDS)},
        ],
    ),
    "gemini": (
        "generativelanguage.googleapis.com",
        "/v1beta/models/gemini-9:streamGenerateContent",
        [{"candidates": [{"content": {"parts": [{"text": word}]}}]} for word in WORDS],
    ),
}


def read(
    host: str, path: str, request: Any, body: bytes, *, cut: bool, headers: Any = SSE, gap: int = 0
) -> Recognised:
    exchange = Exchange(RequestHead("POST", path, (("host", host),)), wire.RULES, "f", 0)
    exchange.request_body(wire.dump(request), 0)
    exchange.request_end(0)
    exchange.response_head(ResponseHead(200, headers), 0)
    if gap:
        exchange.response_body(body[:gap], 0)
        exchange.gap(0)
    else:
        exchange.response_body(body, 0)
    outcome = exchange.abort("client_disconnected", 0) if cut else exchange.end(0)
    assert isinstance(outcome, Recognised)
    return outcome


@pytest.mark.parametrize("name", EVENTS)
def test_a_stream_cut_off_anywhere_is_neither_free_nor_exact(name: str) -> None:
    host, path, events = EVENTS[name]
    # Anthropic's last events have the final numbers: cut before those.
    events = events[:-2] if name == "anthropic" else events
    last = 0
    for kept in range(len(events) + 1):
        call = read(
            host, path, wire.chat_request(), wire.sse(events[:kept], names=name == "anthropic"), cut=True
        ).call
        tokens = call.usage.tokens
        assert call.usage.quality == Quality.QUALITY_ESTIMATED
        assert tokens["input"] > 0
        assert tokens["output"] >= max(1, last)
        assert "output" in call.usage.estimated
        assert call.billable
        last = tokens["output"]


def test_the_input_that_was_told_stays() -> None:
    events = wire.message_events()[:4]
    body = wire.sse(events, names=True)
    call = read("api.anthropic.com", "/v1/messages", wire.chat_request(), body, cut=True).call
    assert (call.usage.tokens["input"], list(call.usage.estimated)) == (21, ["output"])


def test_a_stream_that_brings_no_usage_is_counted_by_the_tokenizer() -> None:
    prompt, words = "Tell me what the answer is, in English: 123456?", [f"{word}" for word in WORDS]
    request = {
        "model": "gpt-4o",
        "stream": True,
        "messages": [{"role": "user", "content": prompt}],
    }
    body = wire.sse(wire.chat_chunks(words), done=True)
    call = read("api.openai.com", "/v1/chat/completions", request, body, cut=False).call
    encoding = tokenizer.load()
    assert encoding is not None
    assert dict(call.usage.tokens) == {
        "input": len(encoding.encode_ordinary(prompt)) + 4 + 3,
        "output": len(encoding.encode_ordinary("".join(words))),
    }
    assert call.usage.quality == Quality.QUALITY_ESTIMATED
    assert set(call.usage.estimated) == {"input", "output"}


def test_told_numbers_are_left_alone() -> None:
    body = wire.dump(wire.chat_completion())
    call = read(
        "api.openai.com", "/v1/chat/completions", wire.chat_request(), body, cut=False, headers=()
    ).call
    assert (call.usage.quality, list(call.usage.estimated)) == (Quality.QUALITY_EXACT, [])


@pytest.mark.parametrize(
    ("part", "anomaly"),
    [
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}, "estimate_without_media"),
        ({"type": "web_search_20250305", "text": "t"}, "estimate_without_context"),
    ],
)
def test_what_an_estimate_cannot_see_is_named(part: dict[str, Any], anomaly: str) -> None:
    request = {"model": "gpt-9", "messages": [{"role": "user", "content": [{"text": "a text"}, part]}]}
    body = wire.sse(wire.chat_chunks(WORDS))
    assert anomaly in read("api.openai.com", "/v1/chat/completions", request, body, cut=True).anomalies


def test_a_gap_of_known_length_is_estimated_by_its_share() -> None:
    text = "words of an answer " * 100
    choices = [{"message": {"content": text}, "finish_reason": "stop"}]
    body = wire.dump({**wire.chat_completion(), "choices": choices, "usage": None})
    whole = read("api.openai.com", "/v1/chat/completions", wire.chat_request(), body, cut=False, headers=())
    known = (("content-length", str(len(body))),)
    for headers, quality in ((known, Quality.QUALITY_ESTIMATED), ((), Quality.QUALITY_PARTIAL)):
        outcome = read(
            "api.openai.com",
            "/v1/chat/completions",
            wire.chat_request(),
            body,
            cut=False,
            headers=headers,
            gap=len(body) // 2,
        )
        ratio = outcome.call.usage.tokens["output"] / whole.call.usage.tokens["output"]
        assert outcome.call.usage.quality == quality
        assert ratio == pytest.approx(1.0 if headers else 0.5, rel=0.25)
        assert ("estimate_without_missing_bytes" in outcome.anomalies) is (not headers)


def test_the_document_has_the_table_that_the_script_writes() -> None:
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    start = lines.index(HEADER[0])
    row = re.compile(r"\| [^|]+ \| (?:input|output) \| \d+ \| \d+\.\d% \| \d+\.\d% \| [+-]\d+\.\d% \|")
    assert lines[start + 1] == HEADER[1]
    rows = lines[start + 2 :]
    assert rows
    assert all(row.fullmatch(line) for line in rows)


@pytest.mark.corpus
@pytest.mark.skipif(not FOLDER.is_dir(), reason="the recordings are not here")
def test_the_table_can_be_written() -> None:
    assert len(table(FOLDER)) > len(HEADER) + 4
