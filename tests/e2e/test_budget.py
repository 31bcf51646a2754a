"""A team's spend fills its budget; once it is used up the router refuses the next call, in the caller's own
dialect, and the provider sees nothing."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from decimal import Decimal
from typing import Any

import anthropic
import openai
import pytest
from tests.e2e import clients
from tests.e2e.conftest import pipeline_settings, sensor_settings
from tests.e2e.provider.process import ProviderProcess
from tests.e2e.stack import Stack, wait_for
from tests.e2e.test_calls import reported_usd

pytestmark = pytest.mark.capture

VIRTUAL_KEY = "mmk-e2e-payments-0123456789abcdef0123456789"
# One call of gpt-4o with these tokens costs 2.5 $/M x 400,000 = 1 $; a budget of 10 $ takes ten of them.
ORDER = {"x-local-provider": "input=400000; output=0"}


def router_settings(stack: Stack, provider: ProviderProcess) -> dict[str, Any]:
    upstream = {
        "base_url": provider.url,
        "ca_file": str(provider.ca),
        "api_key_file": str(stack.state / "key"),
    }
    (stack.state / "key").write_text("sk-the-real-key")
    return {
        "listen": {"port": 0},
        "pipeline": {"url": stack.daemons["pipeline"].url, "poll_s": 0.2},
        "upstreams": [
            {"name": "openai", "dialect": "openai", **upstream},
            {"name": "anthropic", "dialect": "anthropic", **upstream},
        ],
        "keys": [
            {
                "id": "payments",
                "sha256": hashlib.sha256(VIRTUAL_KEY.encode()).hexdigest(),
                "team": "payments",
                "application": "checkout",
            }
        ],
    }


@pytest.fixture
def routed(stack: Stack, provider: ProviderProcess) -> Stack:
    """All three daemons, and a budget of 10 $ a month for team payments that blocks at 100 %."""
    stack.start("pipeline", pipeline_settings())
    stack.command(
        "mmpipeline", "budgets", "set", "payments", "--team", "payments",
        "--amount", "10", "--period", "month", "--block-at", "100",
    )  # fmt: skip
    stack.start("sensor", sensor_settings(stack, provider))
    stack.start("router", router_settings(stack, provider))
    return stack


def test_spend_crosses_the_thresholds_and_the_next_call_is_refused(
    routed: Stack, provider: ProviderProcess
) -> None:
    base = routed.daemons["router"].url
    for _ in range(10):
        ask(base)
    spent = wait_for("ten dollars spent", lambda: spent_usd(routed) == 10 and spent_usd(routed), within_s=20)
    assert spent == Decimal(10)
    crossed = [crossing["percent"] for crossing in budget(routed)["crossed"]]
    assert crossed == [50, 80, 100]

    served = len(provider.journal())
    chat = openai.OpenAI(base_url=f"{base}/v1", api_key=VIRTUAL_KEY)
    with chat, pytest.raises(openai.RateLimitError) as refused:
        chat.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "one more"}])
    error = refused.value.body
    assert isinstance(error, dict)
    assert error["code"] == "budget_exceeded"
    for part in ("payments", "10.00", "resets"):
        assert part in error["message"], error
    messages = anthropic.Anthropic(base_url=base, api_key=VIRTUAL_KEY)
    with messages, pytest.raises(anthropic.APIStatusError) as refused2:
        messages.messages.create(
            model="claude-sonnet-4-6", max_tokens=16, messages=[{"role": "user", "content": "one more"}]
        )
    body = refused2.value.body
    assert isinstance(body, dict)
    assert body["type"] == "error"
    for part in ("payments", "10.00", "resets"):
        assert part in body["error"]["message"], body
    assert len(provider.journal()) == served, "the provider saw a refused call"


def test_a_call_seen_by_router_and_sensor_is_charged_once_to_the_routers_team(
    routed: Stack, provider: ProviderProcess
) -> None:
    """The sensor watches the router's own socket: same id, and what the router knows of the caller wins."""
    for _ in range(3):
        ask(routed.daemons["router"].url)
    clients.run(provider, clients.curl(provider.url, repeat=2))

    def own() -> list[dict[str, Any]]:
        """The sensor sees the calls of everything on this machine: these are this test's."""
        return [call for call in routed.calls() if call.get("team") in ("payments", "e2e")]

    wait_for("five calls seen by the sensor", lambda: routed.sensor_status()["events"]["emitted"] >= 5)
    wait_for("the router's calls", lambda: spent_usd(routed) == 3 and len(own()) >= 5, within_s=20)
    calls = own()
    assert len(calls) == 5
    assert sorted(call["observer"] for call in calls) == ["router"] * 3 + ["sensor"] * 2
    by_team = reported_usd(routed)
    assert by_team["payments"] == 3
    assert by_team["payments"] + by_team["e2e"] == sum(
        (Decimal(call["cost_usd"]) for call in calls), Decimal(0)
    )


def ask(base: str) -> None:
    """One call of one dollar through the router."""
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "ask"}], "max_tokens": 1}
    headers = {"Authorization": f"Bearer {VIRTUAL_KEY}", "Content-Type": "application/json", **ORDER}
    request = urllib.request.Request(f"{base}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            json.load(answer)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"refused: {error.read().decode()}") from None


def budget(stack: Stack) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(
        stack.command("mmpipeline", "budgets", "show", "payments", "-o", "json").stdout
    )
    return answer


def spent_usd(stack: Stack) -> Decimal:
    return Decimal(budget(stack)["spent_usd"])
