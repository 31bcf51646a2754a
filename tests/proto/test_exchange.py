"""One exchange to one outcome: origins, times, damage, cut-offs, and what never leaves the parser."""

from __future__ import annotations

import gzip
import hashlib
import tracemalloc
from typing import Any

import pytest
from tests.proto import wire
from tests.proto.providers.reported import reported

from mmproto.exchange import (
    Dropped,
    Exchange,
    Failed,
    Outcome,
    ReadingRules,
    Recognised,
    RequestHead,
    ResponseHead,
)
from mmproto.v1.usage_pb2 import Quality

T0 = wire.START_NS
MS = 1_000_000
SSE = (("content-type", "text/event-stream"),)


def begin(
    document: Any = None,
    *,
    host: str = "api.openai.com",
    path: str = "/v1/chat/completions",
    rules: ReadingRules = wire.RULES,
    headers: tuple[tuple[str, str], ...] = (),
    method: str = "POST",
) -> Exchange:
    """An exchange whose request has been read."""
    head = RequestHead(method, path, (("host", host), *headers))
    exchange = Exchange(head, rules, "fallback-1", T0)
    if method == "POST":
        exchange.request_body(wire.dump(wire.chat_request() if document is None else document), T0)
    exchange.request_end(T0)
    return exchange


def answer(
    exchange: Exchange, body: Any, *, status: int = 200, headers: tuple[tuple[str, str], ...] = ()
) -> None:
    exchange.response_head(ResponseHead(status, headers), T0 + 100 * MS)
    exchange.response_body(body if isinstance(body, bytes) else wire.dump(body), T0 + 200 * MS)


def recognised(outcome: Outcome) -> Recognised:
    assert isinstance(outcome, Recognised), outcome
    return outcome


def test_what_is_known_before_the_end() -> None:
    head = RequestHead("POST", "/v1/chat/completions", (("host", "api.groq.com"),))
    exchange = Exchange(head, wire.RULES, "f", T0)
    assert (exchange.recognised, exchange.provider, exchange.operation) == (True, "groq", "chat")
    assert (exchange.request_model, exchange.streaming) == (None, None)
    exchange.request_body(wire.dump(wire.chat_request(stream=True)), T0)
    exchange.request_end(T0)
    assert (exchange.request_model, exchange.streaming) == ("gpt-test", True)
    answer(exchange, {"error": {}}, status=500)
    exchange.end(T0)


def test_times() -> None:
    exchange = begin(wire.chat_request(stream=True))
    exchange.response_head(ResponseHead(200, SSE), T0 + 100 * MS)
    exchange.response_body(b": OPENROUTER PROCESSING\n\n", T0 + 150 * MS)
    exchange.response_body(wire.sse(wire.chat_chunks()), T0 + 250 * MS)
    call = recognised(exchange.end(T0 + 900 * MS)).call
    assert (call.started_at_unix_ns, call.duration_s, call.time_to_first_token_s) == (T0, 0.9, 0.25)


def test_a_clock_that_jumps_back_gives_no_negative_times() -> None:
    exchange = begin(wire.chat_request(stream=True))
    exchange.response_head(ResponseHead(200, SSE), T0 - 5)
    exchange.response_body(wire.sse(wire.chat_chunks()), T0 - 5)
    call = recognised(exchange.end(T0 - 9)).call
    assert (call.duration_s, call.time_to_first_token_s) == (0, 0)


CREDENTIALS = [
    ("authorization", "Bearer sk-SECRET-KEY", "sk-SECRET-KEY"),
    ("authorization", "sk-SECRET-KEY", "sk-SECRET-KEY"),
    ("x-api-key", "sk-SECRET-KEY", "sk-SECRET-KEY"),
    ("api-key", "sk-SECRET-KEY", "sk-SECRET-KEY"),
]


@pytest.mark.parametrize(("name", "value", "key"), CREDENTIALS)
def test_origin_and_headers(name: str, value: str, key: str) -> None:
    rules = ReadingRules(
        keep_headers=frozenset({"x-team", "authorization", "x-api-key", "api-key", "cookie"}),
        hash_key=lambda secret: hashlib.sha256(secret.encode()).hexdigest()[:16],
    )
    headers = (
        (name, value),
        ("openai-organization", "org-1"),
        ("openai-project", "proj-1"),
        ("x-team", "search"),
        ("x-session-id", "s-1"),
        ("cookie", "SECRET"),
        ("x-other", "o"),
    )
    document = wire.chat_request(user="u", safety_identifier="safe-1", metadata={"user_id": "m"})
    exchange = begin(document, rules=rules, headers=headers)
    answer(exchange, wire.chat_completion())
    outcome = recognised(exchange.end(T0))
    origin = outcome.call.origin
    assert origin.api_key_hash == hashlib.sha256(key.encode()).hexdigest()[:16]
    assert (origin.organization, origin.project) == ("org-1", "proj-1")
    assert (origin.end_user, origin.session) == ("safe-1", "s-1")
    assert outcome.headers == {"x-team": "search"}
    assert b"SECRET" not in outcome.call.SerializeToString()


def test_unknown_hosts_have_to_look_like_the_dialect() -> None:
    # There are other APIs with this path.
    exchange = begin({"from": "447700900000", "text": "hi"}, host="api.sms.example", path="/v1/messages")
    answer(exchange, {"message_uuid": "x"}, status=202)
    assert exchange.end(T0) == Dropped("not_llm")

    exchange = begin({"from": "x"}, host="gateway.example", path="/v1/messages")
    answer(exchange, wire.message())
    assert recognised(exchange.end(T0)).call.provider == "anthropic"


def test_not_ours() -> None:
    for method, path, reason in (
        ("GET", "/v1/models", "not_an_operation"),
        ("POST", "/v1/files", "not_an_operation"),
    ):
        exchange = begin(path=path, method=method)
        answer(exchange, {"usage": {"prompt_tokens": 5}})
        assert exchange.end(T0) == Dropped(reason)
    exchange = begin(path="/v1/chat")
    answer(exchange, {"usage": {"input_tokens": 5, "output_tokens": 5}})
    assert exchange.end(T0) == Failed("dialect_not_supported:openai")


def test_damaged_documents_are_failures_with_a_name() -> None:
    for body, headers, reason in (
        (b'{"id": "x", "usage": {', (), "malformed_json"),
        (b"", (), "response_body_missing"),
        (
            gzip.compress(b"{}")[:10] + b"\xff" * 20,
            (("content-encoding", "gzip"),),
            "malformed_content_encoding",
        ),
    ):
        exchange = begin()
        answer(exchange, body, headers=headers)
        assert exchange.end(T0) == Failed(reason)


def test_a_damaged_request_does_not_lose_the_answer() -> None:
    head = RequestHead("POST", "/v1/chat/completions", (("host", "api.openai.com"),))
    exchange = Exchange(head, wire.RULES, "f", T0)
    exchange.request_body(b'{"model":"gpt-test","messages":[}', T0)
    exchange.request_end(T0)
    answer(exchange, wire.chat_completion())
    outcome = recognised(exchange.end(T0))
    assert outcome.anomalies == ("malformed_request",)
    assert (outcome.call.request_model, dict(outcome.call.usage.tokens)) == (
        "gpt-test",
        {"input": 30, "output": 12},
    )


def test_an_unreadable_content_coding_is_a_call_without_counts() -> None:
    exchange = begin()
    answer(exchange, b"\x1b\x33\x00", headers=(("content-encoding", "compress"),))
    outcome = recognised(exchange.end(T0))
    assert outcome.anomalies == ("content_encoding_unsupported",)
    assert (outcome.call.usage.quality, outcome.call.billable) == (Quality.QUALITY_UNKNOWN, True)


@pytest.mark.parametrize("seen", [False, True])
def test_no_end(seen: bool) -> None:
    exchange = begin()
    if seen:
        answer(exchange, b'{"id": "' + wire.CHAT_ID.encode() + b'", "model": "gpt-test-2026", "cho')
    call = recognised(exchange.abort("upstream_failed", T0 + MS)).call
    assert (call.error_type, call.billable) == ("upstream_failed", True)
    assert call.HasField("http_status") is seen
    assert call.response_model == ("gpt-test-2026" if seen else "")
    assert reported(call) == ({}, Quality.QUALITY_UNKNOWN)


def test_what_certainly_was_not_served_is_not_charged() -> None:
    assert not recognised(begin().abort("upstream_unreachable", T0)).call.billable
    head = RequestHead("POST", "/v1/chat/completions", (("host", "api.openai.com"),))
    half = Exchange(head, wire.RULES, "fallback-1", T0)
    half.request_body(wire.dump(wire.chat_request())[:9], T0)
    assert not recognised(half.abort("client_disconnected", T0)).call.billable


def test_a_client_that_closes_after_the_last_event_has_its_answer() -> None:
    exchange = begin(wire.chat_request(stream=True))
    answer(exchange, wire.sse(wire.chat_chunks(usage=wire.chat_usage()), done=True))
    call = recognised(exchange.abort("client_disconnected", T0)).call
    assert (call.error_type, call.usage.quality) == ("", Quality.QUALITY_EXACT)


def test_a_client_that_leaves_in_the_middle() -> None:
    exchange = begin(wire.chat_request(stream=True))
    running = [{**chunk, "usage": wire.chat_usage(30, 2)} for chunk in wire.chat_chunks()[:2]]
    answer(exchange, wire.sse(running))
    call = recognised(exchange.abort("client_disconnected", T0)).call
    assert (call.error_type, call.billable) == ("client_disconnected", True)
    assert reported(call) == ({"input": 30}, Quality.QUALITY_PARTIAL)


def test_gap_before_the_final_usage_leaves_it_exact() -> None:
    exchange = begin(wire.chat_request(stream=True))
    data = wire.sse(wire.chat_chunks("abcdef", usage=wire.chat_usage()), done=True)
    exchange.response_head(ResponseHead(200, SSE), T0)
    exchange.response_body(data[:300], T0)
    exchange.gap(T0)
    exchange.response_body(data[450:], T0)
    call = recognised(exchange.end(T0)).call
    assert (dict(call.usage.tokens), call.usage.quality) == (
        {"input": 30, "output": 12},
        Quality.QUALITY_EXACT,
    )


def test_gap_over_the_final_usage_is_never_exact() -> None:
    chunks = [
        {**chunk, "usage": wire.chat_usage(30, i)} for i, chunk in enumerate(wire.chat_chunks("abcdef"))
    ]
    data = wire.sse(chunks, done=True)
    exchange = begin(wire.chat_request(stream=True))
    exchange.response_head(ResponseHead(200, SSE), T0)
    cut = data.rindex(b"data: {")
    exchange.response_body(data[:cut], T0)
    exchange.gap(T0)
    exchange.response_body(b"\n\n" + data[data.rindex(b"data: [DONE]") :], T0)
    call = recognised(exchange.end(T0)).call
    assert reported(call) == ({"input": 30}, Quality.QUALITY_PARTIAL)


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_gap_in_a_document_leaves_no_counts(coding: str) -> None:
    data = wire.dump(wire.chat_completion(padding="x" * 200))
    data = gzip.compress(data) if coding else data
    exchange = begin()
    exchange.response_head(ResponseHead(200, (("content-encoding", coding),)), T0)
    exchange.response_body(data[:60], T0)
    exchange.gap(T0)
    exchange.response_body(data[90:], T0)
    call = recognised(exchange.end(T0)).call
    assert reported(call) == ({}, Quality.QUALITY_UNKNOWN)
    assert call.billable


def test_gap_in_the_request_leaves_the_answer_exact() -> None:
    head = RequestHead("POST", "/v1/chat/completions", (("host", "api.openai.com"),))
    exchange = Exchange(head, wire.RULES, "f", T0)
    exchange.request_body(b'{"model":"gpt-test","messages":[{"content":"', T0)
    exchange.gap(T0)
    exchange.request_end(T0)
    answer(exchange, wire.chat_completion())
    outcome = recognised(exchange.end(T0))
    assert (outcome.call.request_model, outcome.call.usage.quality) == ("gpt-test", Quality.QUALITY_EXACT)


def test_names_that_no_utf8_can_hold() -> None:
    exchange = begin()
    answer(
        exchange,
        b'{"id":"\\ud800abc","model":"m\\udfff","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2}}',
    )
    call = recognised(exchange.end(T0)).call
    call.SerializeToString()
    assert dict(call.usage.tokens) == {"input": 1, "output": 2}


def test_a_request_of_100_mb_is_not_held() -> None:
    head = RequestHead("POST", "/v1/chat/completions", (("host", "api.openai.com"),))
    exchange = Exchange(head, wire.RULES, "f", T0)
    exchange.request_body(b'{"messages":[{"role":"user","content":"', T0)
    piece = b"QUJD" * 65_536
    tracemalloc.start()
    for _ in range(400):
        exchange.request_body(piece, T0)
    exchange.request_body(b'"}],"model":"gpt-test"}', T0)
    exchange.request_end(T0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    assert exchange.request_model == "gpt-test"
