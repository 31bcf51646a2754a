"""When one side fails or means harm: the other side is told, the books are closed, nothing else suffers."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from tests.router.answers import INPUT_TOKENS, event_stream, message_events
from tests.router.conftest import BLUE_KEY, KEY, RouterProcess, wait_for
from tests.router.pipeline import FakePipeline
from tests.router.upstream import CUT, Pause, Seen, Step, Upstream, whole

from mmproto.v1.routing_pb2 import RoutingDecision
from mmproto.v1.usage_pb2 import QUALITY_EXACT

POST = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\n"
CHAT: Any = {"model": "gpt-4o-mini", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
MESSAGE: Any = {"model": "claude-test-1", "max_tokens": 100, "stream": True, "messages": CHAT["messages"]}


def post(router: RouterProcess, key: str = KEY) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{router.url}/v1/chat/completions", json=CHAT, headers=headers, timeout=20)


def talk(router: RouterProcess, data: bytes, timeout: float = 20) -> bytes:
    """Send `data`, return all that comes until the router closes."""
    with socket.create_connection(("127.0.0.1", router.port), timeout=timeout) as connection:
        connection.sendall(data)
        got = b""
        try:
            while piece := connection.recv(65536):
                got += piece
        except ConnectionResetError:
            pass
        return got


def cut_off_stream(seen: Seen) -> Iterator[Step]:
    """A stream of Anthropic's that stops in the middle without an end."""
    steps = list(event_stream(message_events(json.loads(seen.body))))
    yield from steps[:4]
    yield Pause(0.05)
    yield CUT


def endless_stream(seen: Seen) -> Iterator[Step]:
    steps = list(event_stream(message_events(json.loads(seen.body))))
    yield from steps[:3]
    for _ in range(10_000):
        yield steps[3]
        yield Pause(0.01)


class TestUpstream:
    def test_a_stream_that_breaks_off_is_seen_as_broken_and_recorded(
        self, running: RouterProcess, upstream: Upstream, pipeline: FakePipeline
    ) -> None:
        upstream.respond = cut_off_stream
        with (
            pytest.raises(httpx.RemoteProtocolError),
            httpx.stream(
                "POST", f"{running.url}/v1/messages", json=MESSAGE, headers={"x-api-key": KEY}
            ) as answer,
        ):
            for _ in answer.iter_raw():
                pass
        wait_for("the call", lambda: pipeline.calls)
        (call,) = pipeline.calls.values()
        assert call.error_type == "upstream_closed"
        assert call.usage.quality != QUALITY_EXACT
        assert call.usage.tokens["input"] == INPUT_TOKENS
        assert running.status()["counts"]["ended"] == {"upstream_closed": 1}

    @pytest.mark.parametrize(
        ("steps", "code"),
        [
            ([CUT], "upstream_closed"),
            ([b"HTTP/1.1 200 OK\r\nContent-Le", CUT], "upstream_closed"),
            ([b"SSH-2.0-OpenSSH_9\r\n\r\n"], "malformed_response"),
            (
                [b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"],
                "malformed_response",
            ),
            ([b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n"], "malformed_response"),
            ([b"HTTP/1.1 200 OK\r\nX: " + b"x" * 70_000], "malformed_response"),
        ],
    )
    def test_no_answer_is_a_502_in_the_dialects_shape(
        self, running: RouterProcess, upstream: Upstream, steps: list[Step], code: str
    ) -> None:
        upstream.respond = lambda seen: iter(steps)
        answer = post(running)
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_failed")
        assert code in answer.json()["error"]["message"]
        other = httpx.post(f"{running.url}/v1/messages", json=MESSAGE, headers={"x-api-key": KEY})
        assert (other.status_code, other.json()["error"]["type"]) == (502, "api_error")
        upstream.respond = lambda seen: iter([whole(b"{}")])
        assert post(running).status_code == 200

    def test_an_upstream_that_is_away(self, router: RouterProcess, pipeline: FakePipeline) -> None:
        for provider in router.settings["upstreams"]:
            provider["base_url"] = "https://localhost:1"
        router.start()
        assert post(router).status_code == 502
        status = router.status()
        assert (status["verdict"], status["upstreams"]["openai"]["failing"]) == ("degraded", True)
        wait_for("the decision", lambda: pipeline.decisions)
        assert pipeline.decisions[0].outcome == RoutingDecision.OUTCOME_UPSTREAM_FAILED
        assert pipeline.calls == {}

    def test_a_certificate_that_is_not_trusted(self, router: RouterProcess, upstream: Upstream) -> None:
        for provider in router.settings["upstreams"]:
            del provider["ca_file"]
        router.start()
        answer = post(router)
        assert answer.status_code == 502
        assert "certificate is not trusted" in answer.json()["error"]["message"]
        assert upstream.seen == []

    def test_silence_is_a_504(
        self, router: RouterProcess, upstream: Upstream, pipeline: FakePipeline
    ) -> None:
        router.settings["limits"] = {"upstream_silence_s": 0.5}
        router.start()
        upstream.respond = lambda seen: iter([Pause(30)])
        answer = post(router)
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "upstream_timeout")
        wait_for("the call", lambda: pipeline.calls)

    def test_bytes_after_a_response_do_not_reach_the_next_call(
        self, running: RouterProcess, upstream: Upstream
    ) -> None:
        evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        upstream.respond = lambda seen: iter([whole(b'{"good": 1}') + evil])
        assert [post(running).content for _ in range(3)] == [b'{"good": 1}'] * 3
        assert upstream.connections == 3

    def test_connections_are_reused(self, running: RouterProcess, upstream: Upstream) -> None:
        assert [post(running).status_code for _ in range(10)] == [200] * 10
        assert upstream.connections == 1


class TestClient:
    def test_a_client_that_leaves_a_stream_closes_it_upstream_and_is_recorded(
        self, running: RouterProcess, upstream: Upstream, pipeline: FakePipeline
    ) -> None:
        upstream.respond = endless_stream
        headers = {"x-api-key": KEY}
        with httpx.stream("POST", f"{running.url}/v1/messages", json=MESSAGE, headers=headers) as answer:
            next(answer.iter_raw())
        wait_for("the upstream's connection to close", lambda: upstream.disconnects == 1)
        wait_for("the call", lambda: pipeline.calls)
        (call,) = pipeline.calls.values()
        assert call.error_type == "client_disconnected"
        assert call.usage.tokens["input"] == INPUT_TOKENS
        assert running.status()["counts"]["ended"] == {"client_disconnected": 1}

    def test_a_client_that_leaves_before_the_answer_is_held_to_its_bound(
        self, router: RouterProcess, upstream: Upstream, pipeline: FakePipeline
    ) -> None:
        pipeline.limit_nano_usd = 1000
        router.start()
        upstream.respond = lambda seen: iter([Pause(5)])
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{router.url}/v1/chat/completions",
                json=CHAT,
                headers={"authorization": f"Bearer {KEY}"},
                timeout=1,
            )
        wait_for("the call", lambda: pipeline.calls)
        answer = post(router)
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "budget_exceeded")

    def test_a_client_that_leaves_before_its_request_is_whole_costs_nothing(
        self, running: RouterProcess, upstream: Upstream, pipeline: FakePipeline
    ) -> None:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {BLUE_KEY}\r\n"
        with socket.create_connection(("127.0.0.1", running.port)) as connection:
            connection.sendall(head.encode() + b'Content-Length: 1000\r\n\r\n{"model"')
            wait_for("the upstream", lambda: upstream.connections == 1)
        wait_for("the decision", lambda: pipeline.decisions)
        assert pipeline.calls == {}

    def test_a_slow_reader_slows_its_upstream_down_and_nobody_else(
        self, router: RouterProcess, upstream: Upstream
    ) -> None:
        router.settings["limits"] = {"stalled_s": 1.0}
        router.start()
        sent = 0

        def respond(seen: Seen) -> Iterator[Step]:
            nonlocal sent
            if b"slow" not in seen.body:
                yield whole(b"{}")
                return
            yield b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 200000000\r\n\r\n"
            for _ in range(200):
                yield b"x" * 1_000_000
                sent += 1

        upstream.respond = respond
        body = json.dumps(CHAT | {"user": "slow"}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {KEY}\r\n"
        with socket.create_connection(("127.0.0.1", router.port)) as connection:
            connection.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
            assert post(router).status_code == 200
            wait_for("the end", lambda: router.status()["counts"]["ended"].get("client_too_slow") == 1)
        assert sent < 50

    def test_two_hundred_clients_that_vanish_leave_nothing_behind(
        self, running: RouterProcess, upstream: Upstream
    ) -> None:
        upstream.respond = lambda seen: iter([Pause(0.5), whole(b"{}")])
        body = json.dumps(CHAT).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {BLUE_KEY}\r\n"
        request = head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body
        sockets = []
        for index in range(200):
            connection = socket.create_connection(("127.0.0.1", running.port))
            connection.sendall(request[: len(request) * (index % 4 + 1) // 4])
            sockets.append(connection)
        for connection in sockets:
            connection.close()
        upstream.respond = lambda seen: iter([whole(b"{}")])
        wait_for("quiet", lambda: running.status()["upstreams"]["openai"]["open"] <= 1)
        assert post(running).status_code == 200
        assert running.status()["counts"]["reader_errors"] == {}


class TestHostile:
    @pytest.mark.parametrize(
        ("request_bytes", "status", "reason"),
        [
            (
                POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                400,
                "malformed_request",
            ),
            (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400, "malformed_request"),
            (POST + b"X: " + b"x" * 40_000, 431, "head_too_large"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "not_http"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999\r\n\r\n", 413, "body_too_large"),
        ],
    )
    def test_bad_heads_are_refused_and_counted(
        self, running: RouterProcess, upstream: Upstream, request_bytes: bytes, status: int, reason: str
    ) -> None:
        answer = talk(running, request_bytes)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert running.status()["counts"]["rejected"] == {reason: 1}
        assert upstream.seen == []

    @pytest.mark.parametrize("key", [KEY, BLUE_KEY])
    def test_bad_chunks_end_the_request_and_nothing_more_is_sent(
        self, running: RouterProcess, upstream: Upstream, key: str
    ) -> None:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {key}\r\n"
        answer = talk(running, head.encode() + b"Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert upstream.seen == []
        assert running.status()["counts"]["rejected"] == {"malformed_body": 1}

    def test_a_request_hidden_in_a_body_is_a_body(self, running: RouterProcess, upstream: Upstream) -> None:
        hidden = b"POST /v1/messages HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        body = json.dumps(CHAT | {"user": hidden.decode()}).encode()
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nConnection: close\r\n"
            f"Authorization: Bearer {KEY}\r\n"
        )
        talk(running, head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert [seen.line for seen in upstream.seen] == ["POST /v1/chat/completions HTTP/1.1"]

    def test_clients_that_drip_are_cut_off(self, router: RouterProcess, upstream: Upstream) -> None:
        router.settings["limits"] = {"head_s": 0.6, "body_idle_s": 0.6, "idle_s": 0.6}
        router.start()
        assert talk(router, b"") == b""
        assert talk(router, b"POST /v1/mess").startswith(b"HTTP/1.1 408 ")
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: r\r\nAuthorization: Bearer {KEY}\r\n"
        assert talk(router, head.encode() + b"Content-Length: 50\r\n\r\n{") == b""
        assert upstream.seen == []
        assert router.status()["counts"]["rejected"] == {"slow_head": 1, "request_too_slow": 1}

    def test_more_connections_than_allowed(self, router: RouterProcess) -> None:
        router.settings["limits"] = {"connections": 5}
        router.start()
        idle = [socket.create_connection(("127.0.0.1", router.port)) for _ in range(5)]
        assert talk(router, b"GET /-/livez HTTP/1.1\r\nHost: r\r\n\r\n").startswith(b"HTTP/1.1 503 ")
        for connection in idle:
            connection.close()
        wait_for("room", lambda: httpx.get(f"{router.url}/-/livez").status_code == 200)

    @pytest.mark.parametrize("limit", ["-5", '"many"', "1e300", "9" * 400, "true", "null", "[]", "{}"])
    def test_absurd_limits_in_a_request_do_not_get_around_the_budget(
        self, router: RouterProcess, upstream: Upstream, pipeline: FakePipeline, limit: str
    ) -> None:
        pipeline.limit_nano_usd = 10**6
        router.settings["budgets"] = {"admission": "must_fit"}
        router.start()
        body = f'{{"model": "gpt-4o-mini", "messages": [], "max_tokens": {limit}}}'
        headers = {"authorization": f"Bearer {KEY}"}
        answer = httpx.post(f"{router.url}/v1/chat/completions", content=body, headers=headers)
        assert answer.status_code in (400, 429)
        assert upstream.seen == []


class TestRestart:
    def test_kill_9_under_load_loses_nothing_the_spool_took_and_doubles_nothing(
        self, router: RouterProcess, upstream: Upstream, pipeline: FakePipeline
    ) -> None:
        pipeline.limit_nano_usd = 10**15
        router.start()
        stop = threading.Event()
        answered = 0
        lock = threading.Lock()

        def client() -> None:
            nonlocal answered
            while not stop.is_set():
                try:
                    if post(router).status_code == 200:
                        with lock:
                            answered += 1
                except httpx.HTTPError:
                    pass

        threads = [threading.Thread(target=client) for _ in range(4)]
        for thread in threads:
            thread.start()
        kept: list[int] = []
        for _ in range(2):
            goal = answered + 25
            wait_for("some calls", lambda goal=goal: answered >= goal)  # type: ignore[misc]
            pipeline.away = True
            goal = answered + 25
            wait_for("some more", lambda goal=goal: answered >= goal)  # type: ignore[misc]
            router.end(signal.SIGKILL)
            router.start()
            kept.append(router.status()["spool"]["records"])
            pipeline.away = False
        stop.set()
        for thread in threads:
            thread.join()
        wait_for("all delivered", router.settled)
        assert min(kept) > 0
        # What was in memory only, for 20 ms and a sync, is what a kill may cost: four clients, two kills.
        assert answered - 100 <= len(pipeline.calls) <= len(upstream.seen)

    def test_sigterm_finishes_what_is_in_flight(
        self, running: RouterProcess, upstream: Upstream, pipeline: FakePipeline
    ) -> None:
        arrived = threading.Event()

        def respond(seen: Seen) -> Iterator[Step]:
            arrived.set()
            yield Pause(0.5)
            yield whole(
                json.dumps(
                    {"model": "gpt-4o-mini", "usage": {"prompt_tokens": 1, "completion_tokens": 1}}
                ).encode()
            )

        upstream.respond = respond
        got: list[int] = []
        thread = threading.Thread(target=lambda: got.append(post(running).status_code))
        thread.start()
        assert arrived.wait(20)
        assert running.end(signal.SIGTERM) == 0
        thread.join()
        assert got == [200]
        assert len(pipeline.calls) == 1
        assert not (running.folder / "router/address").exists()


def test_the_sdk_sees_a_provider_that_is_away_as_its_own_error(router: RouterProcess) -> None:
    for provider in router.settings["upstreams"]:
        provider["base_url"] = "https://localhost:1"
    router.start()
    with (
        openai.OpenAI(base_url=f"{router.url}/v1", api_key=KEY, max_retries=0) as client,
        pytest.raises(openai.InternalServerError) as caught,
    ):
        client.chat.completions.create(**CHAT)
    assert caught.value.code == "upstream_failed"
