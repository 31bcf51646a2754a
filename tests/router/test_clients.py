"""Real clients through the router: they notice nothing, and every call is recorded with its numbers."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from tests.router.answers import INPUT_TOKENS, OUTPUT_TOKENS
from tests.router.conftest import KEY, PROVIDER_KEY, RouterProcess, body_of, wait_for
from tests.router.pipeline import FakePipeline
from tests.router.upstream import Upstream

from mmproto.v1.call_pb2 import OBSERVER_ROUTER, Call
from mmproto.v1.routing_pb2 import RoutingDecision
from mmproto.v1.usage_pb2 import QUALITY_EXACT

MESSAGES: Any = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def openai_client(running: RouterProcess) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{running.url}/v1", api_key=KEY) as client:
        yield client


@pytest.fixture
def anthropic_client(running: RouterProcess) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=running.url, api_key=KEY) as client:
        yield client


def recorded(pipeline: FakePipeline, count: int) -> list[Call]:
    wait_for(f"{count} calls", lambda: len(pipeline.calls) >= count)
    return list(pipeline.calls.values())


def test_a_call_carries_the_keys_owner_and_the_providers_numbers(
    openai_client: openai.OpenAI, pipeline: FakePipeline, upstream: Upstream
) -> None:
    answer = openai_client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert answer.choices[0].message.content == "Hello"
    (call,) = recorded(pipeline, 1)
    assert (call.provider, call.operation, call.request_model) == ("openai", "chat", "gpt-4o-mini")
    assert (call.tenant, call.team, call.application, call.user) == ("default", "red", "app", "ada")
    assert (call.observer, call.virtual_key_id, call.node) == (OBSERVER_ROUTER, "red", "test-node")
    assert dict(call.usage.tokens) == {"input": INPUT_TOKENS, "output": OUTPUT_TOKENS}
    assert call.usage.quality == QUALITY_EXACT
    assert call.http_status == 200
    assert call.billable
    assert not call.origin.api_key_hash
    (decision,) = pipeline.decisions
    assert decision.outcome == RoutingDecision.OUTCOME_FORWARDED
    assert (decision.call_id, decision.virtual_key_id) == (call.id, "red")
    (seen,) = upstream.seen
    assert seen.headers["authorization"] == f"Bearer {PROVIDER_KEY}"
    assert seen.headers["host"] == f"localhost:{upstream.port}"
    assert KEY not in seen.head.decode()


def test_openai_streams(openai_client: openai.OpenAI, pipeline: FakePipeline) -> None:
    with openai_client.chat.completions.create(
        model="gpt-4o-mini",
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        text = "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
    assert text == "Hello"
    (call,) = recorded(pipeline, 1)
    assert call.streaming
    assert dict(call.usage.tokens) == {"input": INPUT_TOKENS, "output": OUTPUT_TOKENS}


def test_anthropic_and_its_streams(anthropic_client: anthropic.Anthropic, pipeline: FakePipeline) -> None:
    model = "claude-test-1"
    answer = anthropic_client.messages.create(model=model, max_tokens=64, messages=MESSAGES)
    assert answer.usage.output_tokens == OUTPUT_TOKENS
    with anthropic_client.messages.stream(model=model, max_tokens=64, messages=MESSAGES) as stream:
        assert stream.get_final_text() == "Hello"
    calls = recorded(pipeline, 2)
    assert {call.provider for call in calls} == {"anthropic"}
    assert [dict(call.usage.tokens) for call in calls] == [
        {"input": INPUT_TOKENS, "output": OUTPUT_TOKENS}
    ] * 2


def test_async_clients_at_the_same_time(running: RouterProcess, pipeline: FakePipeline) -> None:
    async def many() -> None:
        async with (
            openai.AsyncOpenAI(base_url=f"{running.url}/v1", api_key=KEY) as one,
            anthropic.AsyncAnthropic(base_url=running.url, api_key=KEY) as other,
        ):
            chats = [
                one.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES, max_tokens=9)
                for _ in range(20)
            ]
            notes = [
                other.messages.create(model="claude-test-1", max_tokens=9, messages=MESSAGES)
                for _ in range(20)
            ]
            await asyncio.gather(*chats, *notes)

    asyncio.run(many())
    calls = recorded(pipeline, 40)
    assert len(calls) == 40
    assert running.status()["counts"]["calls"] == 40


def test_embeddings_models_and_token_counting(
    openai_client: openai.OpenAI,
    anthropic_client: anthropic.Anthropic,
    pipeline: FakePipeline,
    upstream: Upstream,
) -> None:
    openai_client.embeddings.create(model="text-embedding-3-small", input="text", encoding_format="float")
    assert [model.id for model in openai_client.models.list()] == ["gpt-4o-mini"]
    counted = anthropic_client.messages.count_tokens(model="claude-test-1", messages=MESSAGES)
    assert counted.input_tokens == 12
    (call,) = recorded(pipeline, 1)
    assert call.operation == "embeddings"
    assert upstream.seen[-1].headers["x-api-key"] == PROVIDER_KEY


def test_curl_with_expect_continue_and_a_kept_connection(running: RouterProcess, upstream: Upstream) -> None:
    body = json.dumps({"model": "gpt-4o-mini", "messages": MESSAGES})
    one = ["-s", "-S", "-H", f"Authorization: Bearer {KEY}", "-H", "Expect: 100-continue", "-d", body]
    url = f"{running.url}/v1/chat/completions"
    done = subprocess.run(
        ["curl", *one, url, "--next", *one, url], capture_output=True, text=True, check=True
    )
    assert done.stdout.count('"Hello"') == 2
    assert len(upstream.seen) == 2
    assert running.status()["counts"]["connections"] == 2  # one of them is this status request
    assert "expect" not in upstream.seen[0].headers


@pytest.mark.parametrize("key", ["", "mmk-wrong", PROVIDER_KEY])
def test_an_unknown_key_reaches_nobody(running: RouterProcess, upstream: Upstream, key: str) -> None:
    with (
        openai.OpenAI(base_url=f"{running.url}/v1", api_key=key or "x") as client,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        client.chat.completions.create(model="gpt-4o-mini", messages=MESSAGES)
    assert caught.value.code == "invalid_api_key"
    with (
        anthropic.Anthropic(base_url=running.url, api_key=key or "x") as other,
        pytest.raises(anthropic.AuthenticationError) as refused,
    ):
        other.messages.create(model="claude-test-1", max_tokens=9, messages=MESSAGES)
    assert body_of(refused.value)["error"]["type"] == "authentication_error"
    assert upstream.seen == []
