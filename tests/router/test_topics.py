"""Budgets from Kafka: known before the first call, lifted at once, and no call counted nowhere."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from tests.router.answers import CHAT_NANO_USD
from tests.router.conftest import KEY, RouterProcess, wait_for
from tests.router.saying import Workers, make_topics
from tests.router.test_budgets import post
from tests.router.upstream import Upstream

from mmlocal.services.kafka import Kafka
from mmlocal.services.ports import LoopbackPort

STARTS = 3
LIMIT = 100 * CHAT_NANO_USD


def on_kafka(router: RouterProcess, workers: Workers) -> None:
    """Calls and budgets over Kafka; tenant and provider are the test's own."""
    settings = router.settings
    settings["kafka"] = {"brokers": workers.address}
    settings["pipeline"] = {}
    settings["keys"] = [key | {"tenant": workers.tenant} for key in settings["keys"]]
    settings["upstreams"][0]["provider"] = workers.provider


@pytest.fixture
def workers(kafka: Kafka, router: RouterProcess) -> Workers:
    make_topics(kafka.address)
    made = Workers(kafka.address)
    made.say_prices()
    on_kafka(router, made)
    return made


@pytest.fixture
def port() -> Iterator[int]:
    held = LoopbackPort()
    yield held.number
    held.close()


def test_a_blocked_budget_refuses_the_very_first_request(
    router: RouterProcess, workers: Workers, upstream: Upstream, port: int
) -> None:
    """A client that tries all the time while the router starts: the first answer of all is a refusal."""
    workers.say(workers.budget(LIMIT, spent=LIMIT))
    router.settings["listen"]["port"] = port
    body = {"model": "gpt-4o-mini", "max_tokens": 10, "messages": [{"role": "user", "content": "Hello"}]}

    def first_answer(answers: list[int]) -> None:
        headers = {"authorization": f"Bearer {KEY}"}
        until = time.monotonic() + 60
        while not answers and time.monotonic() < until:
            try:
                answers.append(
                    httpx.post(
                        f"http://127.0.0.1:{port}/v1/chat/completions", json=body, headers=headers
                    ).status_code
                )
            except httpx.TransportError:
                time.sleep(0.001)

    for _ in range(STARTS):
        answers: list[int] = []
        client = threading.Thread(target=first_answer, args=(answers,))
        client.start()
        router.start()
        client.join()
        assert answers == [429]
        # Nothing is left that the next start could know the block from.
        router.end(signal.SIGKILL)
        (router.folder / "router" / "budgets.json").unlink(missing_ok=True)
    assert upstream.seen == []


def test_a_block_is_lifted_by_an_amount_a_deletion_and_the_period_s_end(
    router: RouterProcess, workers: Workers, upstream: Upstream
) -> None:
    workers.say(workers.budget(LIMIT, spent=LIMIT))
    router.start()
    assert post(router).status_code == 429
    workers.say(workers.budget(2 * LIMIT, spent=LIMIT))
    wait_for("the raise", lambda: post(router).status_code == 200)
    workers.say(workers.budget(LIMIT, spent=LIMIT))
    wait_for("the block", lambda: post(router).status_code == 429)
    workers.say_gone()
    wait_for("the deletion", lambda: post(router).status_code == 200)
    workers.say(workers.budget(LIMIT, spent=LIMIT, ends_in_s=2.0))
    wait_for("the block", lambda: post(router).status_code == 429)
    wait_for("the period's end, which nobody says", lambda: post(router).status_code == 200)
    workers.say(workers.budget(LIMIT, spent=LIMIT))
    wait_for("the block", lambda: post(router).status_code == 429)
    only_alerts = workers.budget(LIMIT, spent=LIMIT)
    only_alerts.ClearField("block_at_percent")
    workers.say(only_alerts)
    wait_for("the revocation", lambda: post(router).status_code == 200)


def test_what_was_overtaken_changes_nothing(router: RouterProcess, workers: Workers) -> None:
    workers.say(workers.budget(LIMIT, spent=LIMIT))
    router.start()
    workers.say(workers.budget(LIMIT), age_s=5)
    workers.say_gone(age_s=4)
    bystander = Workers(workers.address, tenant=workers.tenant)
    bystander.put(b"\xff\xff not a state", time.time_ns())
    wait_for("all read", lambda: router.status()["pipeline"]["unreadable"] == 1)
    assert post(router).status_code == 429
    assert router.status()["blocking_budgets"] == 1
    # A deletion holds against a state that was read before it, too.
    workers.say_gone()
    wait_for("the deletion", lambda: post(router).status_code == 200)
    workers.say(workers.budget(LIMIT, spent=LIMIT), age_s=5)
    bystander.put(b"\xff\xff not a state", time.time_ns())
    wait_for("all read", lambda: router.status()["pipeline"]["unreadable"] == 2)
    assert post(router).status_code == 200
    assert f"what it says of '{workers.tenant}'" in router.status()["pipeline"]["last_error"]
    # The store's clock was set back, or the store is another one.
    workers.say(workers.budget(LIMIT, spent=LIMIT), age_s=7200)
    wait_for("the block", lambda: post(router).status_code == 429)
    assert router.status()["pipeline"]["last_error"] == ""


def test_a_finished_call_counts_here_until_a_state_has_it(
    router: RouterProcess, workers: Workers, upstream: Upstream
) -> None:
    limit = 4 * CHAT_NANO_USD
    workers.say(workers.budget(limit))
    router.start()
    assert [post(router).status_code for _ in range(2)] == [200, 200]
    places = {(partition, offset) for _, partition, offset in workers.calls(2)}
    partition = min(places)[0]
    first, second = sorted(offset for _, offset in places)
    wait_for("the reports", lambda: router.status()["spool"]["records"] == 0)
    # A state that has neither: both still count here.
    workers.say(workers.budget(limit, spent=2 * CHAT_NANO_USD), positions={partition: first})
    wait_for("the state", lambda: post(router).status_code == 429)
    assert router.status()["calls_not_yet_in_state"] == 2
    # One that has the first; then both.
    workers.say(workers.budget(limit, spent=CHAT_NANO_USD), positions={partition: second})
    wait_for("the first", lambda: router.status()["calls_not_yet_in_state"] == 1)
    workers.say(workers.budget(limit, spent=2 * CHAT_NANO_USD), positions={partition: second + 1})
    wait_for("both", lambda: router.status()["calls_not_yet_in_state"] == 0)
    assert [post(router).status_code for _ in range(3)] == [200, 200, 429]
    # What was left is counted from the state alone, once it is there.
    _, partition, last = max(workers.calls(4), key=lambda found: found[2])
    workers.say(workers.budget(limit, spent=limit), positions={partition: last + 1})
    wait_for("all", lambda: router.status()["calls_not_yet_in_state"] == 0)
    assert post(router).status_code == 429


def test_a_router_that_died_knows_what_it_spent_that_no_state_has(
    router: RouterProcess, workers: Workers, upstream: Upstream
) -> None:
    """Its spool is empty and its delivery reports are gone: what it spent is in the topic alone."""
    limit = 3 * CHAT_NANO_USD
    workers.say(workers.budget(limit))
    router.start()
    assert [post(router).status_code for _ in range(3)] == [200, 200, 200]
    calls = workers.calls(3)
    wait_for("the reports", lambda: router.status()["spool"]["records"] == 0)
    router.end(signal.SIGKILL)
    router.start()
    assert router.status()["calls_not_yet_in_state"] == 3
    assert post(router).status_code == 429
    ends = {partition: offset + 1 for _, partition, offset in sorted(calls, key=lambda found: found[2])}
    workers.say(workers.budget(limit + CHAT_NANO_USD, spent=limit), positions=ends)
    wait_for("the state", lambda: router.status()["calls_not_yet_in_state"] == 0)
    assert [post(router).status_code for _ in range(2)] == [200, 429]


def test_without_a_broker_the_rule_holds_and_after_it_the_truth(
    router: RouterProcess, own_kafka: Kafka, upstream: Upstream
) -> None:
    make_topics(own_kafka.address)
    workers = Workers(own_kafka.address)
    workers.say_prices()
    on_kafka(router, workers)
    router.settings["pipeline"] = {"timeout_s": 2.0, "state_max_age_s": 3.0}
    limit = 3 * CHAT_NANO_USD
    workers.say(workers.budget(limit))
    router.start()
    assert post(router).status_code == 200
    [(_, partition, offset)] = workers.calls(1)
    wait_for("the state is too old", lambda: router.status()["pipeline"]["away"])
    workers.say(workers.budget(limit, spent=CHAT_NANO_USD), positions={partition: offset + 1})
    wait_for("the state", lambda: router.status()["calls_not_yet_in_state"] == 0)
    wait_for("the state is too old", lambda: router.status()["pipeline"]["away"])
    workers.beat()
    wait_for("the heartbeat", lambda: not router.status()["pipeline"]["away"])
    wait_for("the reports", lambda: router.status()["spool"]["records"] == 0)
    own_kafka.kill()
    wait_for("the loss", lambda: router.status()["pipeline"]["away"])
    assert [post(router).status_code for _ in range(3)] == [200, 200, 429]
    wait_for("the spool", lambda: router.status()["spool"]["records"] >= 4)
    router.end(signal.SIGKILL)
    router.start()
    # The copy of the state has the first call, the spool the others.
    assert post(router).status_code == 429
    router.end(signal.SIGKILL)  # in order it would wait for the broker once more
    router.settings["budgets"] = {"on_pipeline_loss": "fail_closed"}
    router.start()
    assert post(router).status_code == 503
    own_kafka.start()

    def refused_by_a_fresh_state() -> bool:
        workers.say(workers.budget(limit, spent=limit))
        return post(router).status_code == 429

    wait_for("the broker", refused_by_a_fresh_state, 60)
    workers.say_gone()
    wait_for("the deletion", lambda: post(router).status_code == 200)


def test_topics_that_nobody_has_written_to_leave_the_rule_in_force(
    router: RouterProcess, own_kafka: Kafka
) -> None:
    workers = Workers(own_kafka.address)
    on_kafka(router, workers)
    router.settings["pipeline"] = {"timeout_s": 1.0}
    router.settings["budgets"] = {"on_pipeline_loss": "fail_closed"}
    router.start()
    assert "`mmpipeline topics apply` creates it" in router.status()["pipeline"]["last_error"]
    assert post(router).status_code == 503
    make_topics(own_kafka.address)
    wait_for(
        "the topics", lambda: "no worker of the pipeline" in router.status()["pipeline"]["last_error"], 60
    )
    assert post(router).status_code == 503
    # A worker without any budget to tell of: nothing limits anybody.
    workers.beat()
    wait_for("the heartbeat", lambda: post(router).status_code == 200)
