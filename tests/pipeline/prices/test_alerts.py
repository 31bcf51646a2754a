"""What has no price raises one alert a tenant, which says what it would take."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import yaml

from mmpipeline.ingest.ledgering import Ledgering
from mmpipeline.ingest.posts import Post
from mmpipeline.rating.service import RatingService
from mmpipeline.store.control import budgets
from mmproto.callform import parse_time
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import QUALITY_EXACT, Usage
from tests.pipeline.calls import NOW, batch, call_id, make_call
from tests.pipeline.stores import Stores

RATING = RatingService.open()
MAY = parse_time("2026-05-01T00:00:00Z")


def call(provider: str, model: str, tier: str = "", at: int = NOW, units: int = 0, **tokens: int) -> Call:
    usage = Usage(tokens=tokens or {"input": 10, "output": 2}, quality=QUALITY_EXACT)
    if units:
        usage.units["images"] = units
    return Call(
        provider=provider,
        request_model=model,
        service_tier=tier,
        started_at_unix_ns=at,
        billable=True,
        usage=usage,
    )


def why(asked: Call) -> str:
    cost, reason, _ = RATING.charge(asked, dict(asked.usage.tokens))
    assert cost is None
    return RATING.why_unpriced(asked, reason)


@pytest.mark.parametrize(
    ("asked", "parts"),
    [
        (call("ollama", "llama3"), ["ollama llama3", "no prices of this provider", 'models: ["llama3"]']),
        (
            call("openai", "gpt-99"),
            ["openai gpt-99", "does not know the model", "usd_per_million: {input: ..."],
        ),
        (
            call("openai", "gpt-5", "flex", MAY),
            ["tier 'flex' has no card before 2026-10-12", "service_tier: flex", '"2026-05-01"'],
        ),
        (call("openai", "gpt-4o", "scale"), ["tier 'scale' that has no price", "standard, batch, flex"]),
        (call("openai", "gpt-4o", units=1), ["no rate for 'images'", "usd_each: {images: ...}"]),
        (call("", "gpt-4o"), ["they name no provider"]),
        (call("openai", ""), ["they name no model"]),
    ],
)
def test_the_summary_names_what_is_missing(asked: Call, parts: list[str]) -> None:
    text = why(asked)
    assert [part for part in parts if part not in text] == []
    assert "\n" not in text


def test_no_usage_is_not_a_matter_of_prices() -> None:
    asked = call("openai", "gpt-4o")
    asked.usage.Clear()
    assert "no price would help" in why(asked)
    assert "rating.overrides" not in why(asked)


@pytest.mark.parametrize("model", ["gpt-99", 'we"ird', "a: b", "*", "1.5", "true"])
def test_the_line_that_it_gives_prices_the_call(model: str, tmp_path: Path) -> None:
    asked = call("ollama", model, output_reasoning=3, input=5)
    line = why(asked).split("before that: ")[1]
    assert yaml.safe_load(line)["models"] == [model]
    file = tmp_path / "rates.yaml"
    file.write_text(f"rates:\n  - {line.replace('...', '2')}\n".replace("source: 2", "source: us"), "utf-8")
    assert RatingService.open(file).charge(asked, dict(asked.usage.tokens))[0] == 16_000


def test_one_alert_for_each_tenant_and_thing(stores: Stores) -> None:
    rng = random.Random(3)
    ledgering = Ledgering(stores.worker, RATING)
    for tenant in ("default", "acme", "default"):
        calls = [
            make_call(call_id(rng), request_model=model, tenant=tenant) for model in ("x-1", "x-1", "x-2")
        ]
        ledgering.write([Post(batch(calls))], NOW)
    for tenant in ("default", "acme"):
        with stores.app.read(tenant) as connection:
            alerts = budgets.newest_alerts(connection, tenant, 10)
        assert sorted(alert.dedup_key for alert in alerts) == [
            "unpriced/openai/x-1/unknown_model",
            "unpriced/openai/x-2/unknown_model",
        ]
        assert {alert.kind for alert in alerts} == {"unpriced_model"}
