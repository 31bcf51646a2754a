"""Byte for byte: what the provider sends is what the client gets, however it is cut, packed and framed."""

from __future__ import annotations

import gzip
import json
import random
import socket
import urllib.request
from collections.abc import Iterator

import pytest
from tests.router.answers import INPUT_TOKENS, OUTPUT_TOKENS, chat_events
from tests.router.conftest import BLUE_KEY, KEY, RouterProcess, wait_for
from tests.router.pipeline import FakePipeline
from tests.router.upstream import Pause, Seen, Step, Upstream, whole

REQUEST = {"model": "gpt-4o-mini", "max_tokens": 50, "messages": [{"role": "user", "content": "Grüße"}]}
STREAMED = REQUEST | {"stream": True, "stream_options": {"include_usage": True}}


def exchange(router: RouterProcess, request: bytes, until: bytes | None = None) -> bytes:
    """Everything the router sends, up to `until` or the end of the connection."""
    with socket.create_connection(("127.0.0.1", router.port), timeout=20) as connection:
        connection.sendall(request)
        got = b""
        while piece := connection.recv(65536):
            got += piece
            if until is not None and got.endswith(until):
                break
        return got


def head(body: bytes, key: str = KEY, extra: str = "", version: str = "1.1") -> bytes:
    return (
        f"POST /v1/chat/completions HTTP/{version}\r\nHost: r\r\nAuthorization: Bearer {key}\r\n{extra}"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("packed", [False, True])
def test_a_stream_arrives_byte_for_byte(
    running: RouterProcess, upstream: Upstream, pipeline: FakePipeline, seed: int, packed: bool
) -> None:
    """The events are cut into random chunks, and the chunked bytes into random writes."""
    dice = random.Random(seed)
    content = b"".join(chat_events(STREAMED))
    if packed:
        content = gzip.compress(content)
    framed = b""
    at = 0
    while at < len(content):
        size = dice.randint(1, 200)
        extension = dice.choice([b"", b"", b";x=1"])
        framed += b"%x%s\r\n%s\r\n" % (len(content[at : at + size]), extension, content[at : at + size])
        at += size
    framed += b"0\r\n" + dice.choice([b"", b"X-Trailer: 1\r\n"]) + b"\r\n"
    lines = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    lines += "Content-Encoding: gzip\r\n" if packed else ""
    sent = (lines + "transfer-encoding: chunked\r\n\r\n").encode() + framed

    def respond(seen: Seen) -> Iterator[Step]:
        rest = sent
        while rest:
            size = dice.randint(1, 400)
            yield rest[:size]
            rest = rest[size:]
            if dice.random() < 0.2:
                yield Pause(0.001)

    upstream.respond = respond
    body = json.dumps(STREAMED).encode()
    assert exchange(running, head(body), until=framed[-20:]) == sent
    assert upstream.seen[0].body == body
    wait_for("the call", lambda: pipeline.calls)
    (call,) = pipeline.calls.values()
    assert dict(call.usage.tokens) == {"input": INPUT_TOKENS, "output": OUTPUT_TOKENS}


@pytest.mark.parametrize("key", [KEY, BLUE_KEY])
def test_a_chunked_request_keeps_its_bytes_and_loses_extensions_and_trailers(
    running: RouterProcess, upstream: Upstream, key: str
) -> None:
    body = json.dumps(REQUEST).encode()
    chunks = b"".join(
        b"%x;drop=me\r\n%s\r\n" % (len(body[i : i + 7]), body[i : i + 7]) for i in range(0, len(body), 7)
    )
    request = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {key}\r\n"
        "Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()
    answer = exchange(running, request + chunks + b"0\r\nX-Evil: 1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    (seen,) = upstream.seen
    assert seen.body == body
    assert b"drop" not in seen.framed
    assert b"Evil" not in seen.framed


def test_pipelined_requests_are_answered_in_order(running: RouterProcess, upstream: Upstream) -> None:
    def respond(seen: Seen) -> Iterator[Step]:
        number = json.loads(seen.body)["user"]
        yield Pause(0.02 * (3 - int(number)))
        yield whole(json.dumps({"number": number}).encode())

    upstream.respond = respond
    requests = b"".join(head(json.dumps(REQUEST | {"user": str(n)}).encode()) for n in range(3))
    got = exchange(running, requests + b"GET /-/livez HTTP/1.1\r\nHost: r\r\n\r\n", until=b"ok\n")
    places = [got.index(f'{{"number": "{n}"}}'.encode()) for n in range(3)]
    assert places == sorted(places)


def test_an_http_1_0_client_gets_no_chunks(running: RouterProcess) -> None:
    answer = exchange(running, head(json.dumps(STREAMED).encode(), version="1.0"))
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"chunked" not in answer
    assert answer.endswith(b"\n\ndata: [DONE]\n\n")


def test_a_response_that_ends_with_its_connection(running: RouterProcess, upstream: Upstream) -> None:
    text = json.dumps({"object": "chat.completion", "model": "gpt-4o-mini"}).encode()

    def respond(seen: Seen) -> Iterator[Step]:
        from tests.router.upstream import CUT

        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + text
        yield Pause(0.05)
        yield CUT

    upstream.respond = respond
    answer = exchange(running, head(json.dumps(REQUEST).encode()))
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nconnection: close\r\n\r\n" + text


def test_an_error_of_the_provider_is_passed_on_untouched(running: RouterProcess, upstream: Upstream) -> None:
    error = b'{"error": {"message": "Slow down", "type": "tokens", "code": "rate_limit_exceeded"}}'
    sent = whole(error, status="429 Too Many Requests", extra="retry-after: 7\r\nx-request-id: req_1\r\n")
    upstream.respond = lambda seen: iter([sent])
    assert exchange(running, head(json.dumps(REQUEST).encode()), until=error) == sent


def test_the_head_of_a_stream_does_not_wait_for_its_first_event(
    running: RouterProcess, upstream: Upstream
) -> None:
    lines = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    def respond(seen: Seen) -> Iterator[Step]:
        yield lines
        yield Pause(30)

    upstream.respond = respond
    assert exchange(running, head(json.dumps(STREAMED).encode()), until=lines) == lines


@pytest.mark.parametrize("key", [KEY, BLUE_KEY])
def test_a_hundred_megabytes_pass_in_bounded_memory(
    router: RouterProcess, upstream: Upstream, pipeline: FakePipeline, key: str
) -> None:
    pipeline.limit_nano_usd = 10**15
    router.start()
    assert router.process is not None

    def peak_kib() -> int:
        assert router.process is not None
        with open(f"/proc/{router.process.pid}/status") as lines:  # noqa: PTH123
            return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

    upstream.keep_bodies = False
    usage = {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6}
    upstream.respond = lambda seen: iter(
        [whole(json.dumps({"model": "gpt-4o-mini", "usage": usage}).encode())]
    )
    before = peak_kib()
    size = 100 << 20
    body = b'{"model": "gpt-4o-mini", "max_tokens": 5, "messages": [{"role": "user", "content": "'
    body += b"x" * (size - len(body) - 4) + b'"}]}'
    request = urllib.request.Request(
        f"{router.url}/v1/chat/completions", data=body, headers={"authorization": f"Bearer {key}"}
    )
    with urllib.request.urlopen(request, timeout=120) as answer:
        assert answer.status == 200
    assert upstream.body_bytes == size
    assert peak_kib() - before < 32 * 1024
