"""kill -9 of any daemon at any moment loses no call that a spool accepted, and doubles none."""

from __future__ import annotations

import json
import random
import signal
import threading
import time
from decimal import Decimal

import pytest
from tests.e2e import clients
from tests.e2e.conftest import pipeline_settings, sensor_settings
from tests.e2e.provider.process import ProviderProcess
from tests.e2e.stack import Stack, wait_for
from tests.e2e.test_budget import VIRTUAL_KEY, router_settings
from tests.e2e.test_calls import assert_recorded_exactly, operations, reported_usd

pytestmark = pytest.mark.capture


def test_the_pipeline_killed_again_and_again_while_calls_arrive(
    stack: Stack, provider: ProviderProcess
) -> None:
    """The sensor keeps what the pipeline has not acknowledged: at the end every call is there once."""
    pipeline = stack.start("pipeline", pipeline_settings())
    port = int(pipeline.url.rpartition(":")[2])
    stack.start("sensor", sensor_settings(stack, provider))
    pipeline.end(signal.SIGKILL)
    stack.configs["pipeline"].write_text(json.dumps({"listen": {"port": port}}))
    pipeline.start()

    dice = random.Random(11)
    load = threading.Thread(
        target=clients.run,
        args=(
            provider,
            *(clients.python("plain_http.py", provider.url, "requests", "150") for _ in range(2)),
        ),
    )
    load.start()
    for _ in range(4):
        time.sleep(dice.uniform(0.2, 1.5))
        pipeline.end(signal.SIGKILL)
        pipeline.start()
    load.join()
    assert len(operations(provider)) == 300
    calls = assert_recorded_exactly(stack, provider)
    raw = sum((Decimal(call["cost_usd"]) for call in calls), Decimal(0))
    wait_for("roll-ups equal the calls", lambda: reported_usd(stack)["e2e"] == raw, within_s=20)


def test_the_sensor_killed_after_its_spool_accepted(stack: Stack, provider: ProviderProcess) -> None:
    """With the pipeline away the spool holds the calls; a new sensor delivers them, each once."""
    pipeline = stack.start("pipeline", pipeline_settings())
    sensor = stack.start("sensor", sensor_settings(stack, provider))
    port = int(pipeline.url.rpartition(":")[2])
    pipeline.end(signal.SIGKILL)
    clients.run(provider, clients.python("plain_http.py", provider.url, "urllib", "101"))
    wait_for("101 calls spooled", lambda: stack.sensor_status()["events"]["emitted"] >= 101)
    sensor.end(signal.SIGKILL)
    stack.configs["pipeline"].write_text(json.dumps({"listen": {"port": port}}))
    pipeline.start()
    sensor.start()
    assert_recorded_exactly(stack, provider)


def test_the_router_killed_after_its_calls_were_answered(stack: Stack, provider: ProviderProcess) -> None:
    pipeline = stack.start("pipeline", pipeline_settings())
    router = stack.start("router", router_settings(stack, provider))
    port = int(pipeline.url.rpartition(":")[2])
    pipeline.end(signal.SIGKILL)
    clients.run(provider, clients.python("plain_http.py", router.url, "urllib", "53"), key=VIRTUAL_KEY)
    wait_for("53 calls spooled", lambda: spooled_calls(stack) >= 53)
    router.end(signal.SIGKILL)
    stack.configs["pipeline"].write_text(json.dumps({"listen": {"port": port}}))
    pipeline.start()
    router.start()
    wait_for("53 calls recorded", lambda: len(stack.calls()) >= 53, within_s=30)
    calls = stack.calls()
    assert len(calls) == 53
    assert {call["response_id"] for call in calls} == {served.response_id for served in operations(provider)}


def spooled_calls(stack: Stack) -> int:
    status = json.loads(stack.command("mmrouter", "status", "-o", "json", check=False).stdout)
    return int(status["spool"]["records"])
