"""Budgets hold: in both dialects, under concurrency, over restarts, with and without the pipeline."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

import anthropic
import httpx
import openai
import pytest
from tests.router.answers import CHAT_NANO_USD, MESSAGES_NANO_USD
from tests.router.conftest import BLUE_KEY, KEY, NARROW_KEY, RouterProcess, body_of, wait_for
from tests.router.pipeline import FakePipeline
from tests.router.upstream import Upstream

from mmproto.v1.routing_pb2 import RoutingDecision

BODY: Any = {"model": "gpt-4o-mini", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}


def post(router: RouterProcess, body: object = BODY, key: str = KEY) -> httpx.Response:
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(f"{router.url}/v1/chat/completions", json=body, headers=headers, timeout=20)


def test_a_used_up_budget_refuses_in_openais_shape(
    router: RouterProcess, pipeline: FakePipeline, upstream: Upstream
) -> None:
    pipeline.limit_nano_usd = 2 * CHAT_NANO_USD
    router.start()
    assert [post(router).status_code for _ in range(2)] == [200, 200]
    refused = post(router)
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("insufficient_quota", "budget_exceeded", None)
    for part in ("'Team budget'", "team red", "$0.004 spent of $0.004", "this month", "resets at 20"):
        assert part in error["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert 86_000 < int(refused.headers["retry-after"]) <= 86_401
    assert len(upstream.seen) == 2
    wait_for("the decision", lambda: len(pipeline.decisions) == 3)
    decision = pipeline.decisions[-1]
    assert (decision.outcome, decision.budget_id) == (RoutingDecision.OUTCOME_BUDGET_BLOCKED, "budget-1")
    assert post(router, key=BLUE_KEY).status_code == 200


def test_sdks_raise_their_own_error_and_do_not_retry(
    router: RouterProcess, pipeline: FakePipeline, upstream: Upstream
) -> None:
    pipeline.spent_nano_usd = pipeline.limit_nano_usd
    router.start()
    messages = BODY["messages"]
    with (
        openai.OpenAI(base_url=f"{router.url}/v1", api_key=KEY) as client,
        pytest.raises(openai.RateLimitError) as one,
    ):
        client.chat.completions.create(model="gpt-4o-mini", messages=messages)
    assert one.value.code == "budget_exceeded"
    with (
        anthropic.Anthropic(base_url=router.url, api_key=KEY) as other,
        pytest.raises(anthropic.RateLimitError) as two,
    ):
        other.messages.create(model="claude-test-1", max_tokens=9, messages=messages)
    assert body_of(two.value)["type"] == "error"
    assert body_of(two.value)["error"]["type"] == "rate_limit_error"
    assert "'Team budget'" in body_of(two.value)["error"]["message"]
    assert upstream.seen == []
    assert router.status()["counts"]["refused"] == {"budget_exceeded": 2}


def test_spending_reported_by_others_blocks(
    router: RouterProcess, pipeline: FakePipeline, upstream: Upstream
) -> None:
    router.start()
    assert post(router).status_code == 200
    pipeline.spent_nano_usd = pipeline.limit_nano_usd
    wait_for("the block", lambda: post(router).status_code == 429)
    pipeline.limit_nano_usd *= 2
    wait_for("the release", lambda: post(router).status_code == 200)


@pytest.mark.parametrize("admission", ["until_spent", "must_fit"])
def test_concurrent_calls_do_not_overspend(
    router: RouterProcess, pipeline: FakePipeline, upstream: Upstream, admission: str
) -> None:
    """Each call costs 2 m$ and reserves a little more; 10 m$ are left, 60 calls come at once, and again."""
    pipeline.limit_nano_usd = 1_000 * CHAT_NANO_USD
    pipeline.spent_nano_usd = 995 * CHAT_NANO_USD
    router.settings["budgets"] = {"admission": admission}
    router.start()

    async def burst() -> list[int]:
        limits = httpx.Limits(max_connections=60)
        async with httpx.AsyncClient(limits=limits, timeout=30) as client:
            url, headers = f"{router.url}/v1/chat/completions", {"authorization": f"Bearer {KEY}"}
            answers = await asyncio.gather(*(client.post(url, json=BODY, headers=headers) for _ in range(60)))
            return [answer.status_code for answer in answers]

    statuses = [status for _ in range(3) for status in asyncio.run(burst())]
    assert set(statuses) == {200, 429}
    # Never more than the budget, but for the one call that until_spent lets cross the limit.
    assert 1 <= statuses.count(200) <= (5 if admission == "must_fit" else 6)
    assert len(upstream.seen) == statuses.count(200)
    wait_for("all settled", router.settled)
    assert pipeline.spent_nano_usd <= pipeline.limit_nano_usd + (
        0 if admission == "must_fit" else CHAT_NANO_USD
    )


def test_a_call_that_waits_for_others_in_flight_says_so(
    router: RouterProcess, pipeline: FakePipeline, upstream: Upstream
) -> None:
    pipeline.limit_nano_usd = CHAT_NANO_USD
    router.start()
    arrived, go_on = threading.Event(), threading.Event()
    answer = upstream.respond
    assert answer is not None

    def slow(seen):  # type: ignore[no-untyped-def]
        arrived.set()
        assert go_on.wait(20)
        yield from answer(seen)

    upstream.respond = slow
    first: list[int] = []
    thread = threading.Thread(target=lambda: first.append(post(router).status_code))
    thread.start()
    assert arrived.wait(20)
    second = post(router)
    assert (second.status_code, second.json()["error"]["code"]) == (429, "budget_reserved")
    assert (second.headers["x-should-retry"], second.headers["retry-after"]) == ("true", "1")
    go_on.set()
    thread.join()
    assert first == [200]


def test_a_model_without_a_price_is_refused_under_a_hard_limit(
    router: RouterProcess, upstream: Upstream, pipeline: FakePipeline
) -> None:
    router.start()
    refused = post(router, BODY | {"model": "no-such-model"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "unpriced_model")
    assert "no price is known for the model 'no-such-model'" in refused.json()["error"]["message"]
    assert upstream.seen == []
    assert post(router, BODY | {"model": "no-such-model"}, BLUE_KEY).status_code == 200
    router.end()
    router.settings["budgets"] = {"unpriced_models": "allow"}
    router.start()
    assert post(router, BODY | {"model": "no-such-model"}).status_code == 200


def test_a_key_may_be_limited_to_models(running: RouterProcess, upstream: Upstream) -> None:
    assert post(running, BODY | {"model": "gpt-4o-mini-2024"}, NARROW_KEY).status_code == 200
    refused = post(running, BODY | {"model": "gpt-5"}, NARROW_KEY)
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "model_not_allowed")
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"model": 1}', b"\xff\xfe", b""])
def test_a_body_that_cannot_be_read_is_refused_where_a_budget_applies(
    running: RouterProcess, upstream: Upstream, body: bytes
) -> None:
    headers = {"authorization": f"Bearer {KEY}"}
    refused = httpx.post(f"{running.url}/v1/chat/completions", content=body, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "unreadable_request")
    assert upstream.seen == []


def test_a_stream_without_usage_is_held_at_its_bound(
    router: RouterProcess, pipeline: FakePipeline, upstream: Upstream
) -> None:
    pipeline.limit_nano_usd = 2 * CHAT_NANO_USD
    router.start()
    streamed = BODY | {"stream": True, "max_tokens": 400}
    assert post(router, streamed).status_code == 200
    wait_for("the record", lambda: pipeline.calls)
    assert 0 < pipeline.spent_nano_usd < CHAT_NANO_USD  # by its estimate; the rest of its bound is held
    refused = post(router)
    assert refused.status_code == 429
    assert "held for calls that reported no usage" in refused.json()["error"]["message"]
    wait_for("the copy on disk", lambda: b'"amount"' in (router.folder / "router/budgets.json").read_bytes())
    router.end(signal.SIGKILL)
    router.start()
    assert post(router).status_code == 429


class TestWithoutThePipeline:
    def test_fail_open_goes_on_with_the_last_state_and_its_own_spending(
        self, router: RouterProcess, pipeline: FakePipeline
    ) -> None:
        pipeline.limit_nano_usd = 3 * CHAT_NANO_USD
        router.settings["pipeline"]["state_max_age_s"] = 0.5
        router.start()
        assert post(router).status_code == 200
        wait_for("settled", router.settled)
        pipeline.away = True
        wait_for("the loss", lambda: router.status()["pipeline"]["away"])
        assert [post(router).status_code for _ in range(4)] == [200, 200, 429, 429]
        assert router.status()["verdict"] == "degraded"

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
    def test_a_restart_forgets_neither_state_nor_spending(
        self, router: RouterProcess, pipeline: FakePipeline, upstream: Upstream, number: signal.Signals
    ) -> None:
        pipeline.limit_nano_usd = 3 * CHAT_NANO_USD
        router.start()
        assert post(router).status_code == 200
        wait_for("settled", router.settled)
        pipeline.away = True
        assert [post(router).status_code for _ in range(3)] == [200, 200, 429]
        wait_for("the spool", lambda: router.status()["spool"]["records"] == 5)
        router.end(number)
        router.start()
        assert post(router).status_code == 429
        pipeline.away = False
        wait_for("all delivered", router.settled)
        assert len(pipeline.calls) == 3
        assert pipeline.spent_nano_usd == 3 * CHAT_NANO_USD
        assert post(router).status_code == 429

    def test_fail_open_without_any_state_lets_calls_pass_and_records_them(
        self, router: RouterProcess, pipeline: FakePipeline
    ) -> None:
        pipeline.away = True
        router.start()
        assert [post(router).status_code for _ in range(3)] == [200] * 3
        pipeline.away = False
        wait_for("all delivered", lambda: len(pipeline.calls) == 3)

    def test_fail_closed_refuses_every_call_until_the_pipeline_is_back(
        self, router: RouterProcess, pipeline: FakePipeline, upstream: Upstream
    ) -> None:
        pipeline.away = True
        router.settings["budgets"] = {"on_pipeline_loss": "fail_closed"}
        router.settings["pipeline"]["state_max_age_s"] = 1.0
        router.start()
        refused = post(router, key=BLUE_KEY)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "budgets_unknown")
        assert httpx.get(f"{router.url}/-/readyz").status_code == 503
        assert upstream.seen == []
        pipeline.away = False
        wait_for("it passes", lambda: post(router, key=BLUE_KEY).status_code == 200)
        pipeline.away = True
        wait_for("it is closed again", lambda: post(router, key=BLUE_KEY).status_code == 503)


def test_anthropic_costs_are_its_own(router: RouterProcess, pipeline: FakePipeline) -> None:
    pipeline.limit_nano_usd = MESSAGES_NANO_USD
    router.start()
    body = {"model": "claude-test-1", "max_tokens": 10, "stream": True, "messages": BODY["messages"]}
    headers = {"x-api-key": KEY, "anthropic-version": "2023-06-01"}
    statuses = [
        httpx.post(f"{router.url}/v1/messages", json=body, headers=headers).status_code for _ in range(3)
    ]
    assert statuses == [200, 429, 429]
    wait_for("settled", router.settled)
    assert pipeline.spent_nano_usd == MESSAGES_NANO_USD
