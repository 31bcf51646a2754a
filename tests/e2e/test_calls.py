"""Unmodified clients call a provider; every call is recorded exactly once with the provider's numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from tests.e2e import clients
from tests.e2e.provider.journal import Served
from tests.e2e.provider.process import ProviderProcess
from tests.e2e.stack import NotReady, Stack, wait_for

pytestmark = pytest.mark.capture

CLIENTS: dict[str, Callable[[str], list[str]]] = {
    "curl": lambda url: clients.curl(url, repeat=3),
    "urllib": lambda url: clients.python("plain_http.py", url, "urllib", "3"),
    "requests": lambda url: clients.python("plain_http.py", url, "requests", "3"),
    "openai": lambda url: clients.python("openai_sdk.py", url, "sync", "3"),
    "openai streaming": lambda url: clients.python("openai_sdk.py", url, "sync-stream", "3"),
    "openai async": lambda url: clients.python("openai_sdk.py", url, "async", "5"),
    "openai async streaming": lambda url: clients.python("openai_sdk.py", url, "async-stream", "3"),
    "anthropic": lambda url: clients.python("anthropic_sdk.py", url, "sync", "3"),
    "anthropic streaming": lambda url: clients.python("anthropic_sdk.py", url, "sync-stream", "3"),
    "anthropic async": lambda url: clients.python("anthropic_sdk.py", url, "async", "5"),
    "anthropic async streaming": lambda url: clients.python("anthropic_sdk.py", url, "async-stream", "3"),
    "node fetch": lambda url: clients.node(url, 3),
}


def test_every_client_is_recorded_once_with_the_providers_numbers(
    watching: Stack, provider: ProviderProcess
) -> None:
    for start in CLIENTS.values():
        clients.run(provider, start(provider.url))
    assert_recorded_exactly(watching, provider)


def test_a_prime_number_of_calls_from_eight_clients_at_once(
    watching: Stack, provider: ProviderProcess
) -> None:
    counts = [127, 126, 126, 126, 126, 126, 126, 126]
    assert sum(counts) == 1009
    scripts = [
        clients.python("plain_http.py", provider.url, "urllib" if n % 2 else "requests", str(count))
        for n, count in enumerate(counts)
    ]
    clients.run(provider, *scripts)
    assert len(provider.journal()) == 1009
    assert_recorded_exactly(watching, provider)


def test_dollars_on_the_report_are_rate_times_tokens(watching: Stack, provider: ProviderProcess) -> None:
    clients.run(provider, CLIENTS["openai"](provider.url), CLIENTS["anthropic streaming"](provider.url))
    calls = assert_recorded_exactly(watching, provider)
    for call in calls:
        question = {
            "provider": call["provider"],
            "model": call["response_model"],
            "at": call["started_at"],
            "service_tier": "standard",
            "usage": call["usage"]["buckets"],
        }
        charge = json.loads(watching.command("mmpipeline", "price", stdin=json.dumps(question)).stdout)
        assert charge["cost_usd"] is not None, charge
        assert Decimal(call["cost_usd"]) == Decimal(charge["cost_usd"])
        amounts = sum((Decimal(line["amount"]) for line in charge["lines"]), Decimal(0))
        assert amounts == Decimal(charge["cost_usd"])
    wait_for(
        "the roll-ups to hold the same money as the calls",
        lambda: _reported_usd(watching) == sum(Decimal(call["cost_usd"]) for call in calls),
        within_s=15,
    )


def _reported_usd(stack: Stack) -> Decimal:
    return reported_usd(stack).get("e2e", Decimal(0))


def reported_usd(stack: Stack) -> dict[str, Decimal]:
    """What `mmpipeline report` says every team has spent this month."""
    report = json.loads(stack.command("mmpipeline", "report", "--by", "team", "-o", "json").stdout)
    return {row["group"]["team"]: Decimal(row["cost_usd"] or 0) for row in report["rows"]}


def operations(provider: ProviderProcess) -> list[Served]:
    """What the provider served that is an LLM operation."""
    return [served for served in provider.journal() if served.operation]


def assert_recorded_exactly(stack: Stack, provider: ProviderProcess) -> list[dict[str, Any]]:
    """The calls of team `e2e`, once they are all there; each must equal the provider's own record."""
    served = operations(provider)

    def recorded() -> list[dict[str, Any]] | None:
        calls = [call for call in stack.calls() if call.get("team") == "e2e"]
        return calls if len(calls) >= len(served) else None

    try:
        calls: list[dict[str, Any]] = wait_for(f"{len(served)} calls recorded", recorded)
    except NotReady as late:
        raise NotReady(f"{late}\n{_account(stack, served)}") from late
    assert len(calls) == len(served)
    by_request = {call["id"]: call for call in calls}
    assert len(by_request) == len(served), "two calls share an id"
    assert sorted(map(_facts_recorded, calls)) == sorted(map(_facts_served, served))
    return calls


def _account(stack: Stack, served: list[Served]) -> str:
    """What is missing, and what the sensor says became of it."""
    known = {call.get("response_id") for call in stack.calls()}
    missing = [f"{s.path} {s.user_agent}" for s in served if s.response_id not in known and s.response_id]
    status = stack.sensor_status()
    account = {name: status[name] for name in ("events", "connections", "kernel", "in_flight", "sink")}
    return f"missing: {missing}\n{json.dumps(account, indent=1)}"


def _facts_recorded(call: dict[str, Any]) -> tuple[str, ...]:
    usage = call["usage"]
    return (
        call["provider"],
        call["operation"],
        call["request_model"],
        call.get("response_id", ""),
        str(call["http_status"]),
        str(call["streaming"]),
        str(usage.get("input_tokens")),
        str(usage.get("output_tokens")),
        json.dumps({name: n for name, n in usage["buckets"].items() if n}, sort_keys=True),
        usage["quality"],
    )


def _facts_served(served: Served) -> tuple[str, ...]:
    return (
        served.provider,
        served.operation,
        served.model,
        served.response_id,
        str(served.status),
        str(served.streaming),
        str(served.input_tokens),
        str(served.output_tokens) if served.operation != "embeddings" else "None",
        json.dumps(served.buckets or {}, sort_keys=True),
        "EXACT" if served.buckets else "UNKNOWN",
    )
