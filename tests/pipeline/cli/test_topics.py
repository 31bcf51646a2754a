"""`mmpipeline topics` against a real broker: creates, says every difference, never makes anything smaller."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from confluent_kafka.admin import AdminClient

from mmlocal.services.kafka import Kafka
from mmlocal.services.ports import LoopbackPort
from mmpipeline.cli import cli
from mmproto.exits import Exit
from mmproto.kafka.topics import ACTIONS, CALLS, RATED, RATES, TOPICS
from tests.services.kafka import create_topic, running

Run = Callable[..., Result]
PARTITIONED = {topic.name for topic in TOPICS if topic.partitioned}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """One of our own: others use topics of these names on the shared one."""
    with running(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.fixture
def empty(broker: Kafka) -> Iterator[Kafka]:
    yield broker
    admin = AdminClient({"bootstrap.servers": broker.address})
    present = [name for name in admin.list_topics(timeout=30).topics if name.startswith("modelmeter.")]
    for gone in admin.delete_topics(present, operation_timeout=30).values() if present else ():
        gone.result()


@pytest.fixture
def run(broker: Kafka) -> Run:
    def run(*arguments: str, brokers: str = "") -> Result:
        return CliRunner().invoke(
            cli, ["topics", *arguments, "--config", "/dev/null", "--brokers", brokers or broker.address]
        )

    return run


def document(result: Result, code: int) -> Any:
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def partitions(kafka: Kafka) -> dict[str, int]:
    listed = AdminClient({"bootstrap.servers": kafka.address}).list_topics(timeout=30).topics
    return {topic.name: len(listed[topic.name].partitions) for topic in TOPICS if topic.name in listed}


def test_from_nothing_to_a_changed_cluster_and_back(empty: Kafka, run: Run) -> None:
    missing = document(run("check", "-o", "json"), Exit.UNHEALTHY)
    assert {each["topic"] for each in missing["differences"]} == {topic.name for topic in TOPICS}
    assert {each["remedy"] for each in missing["differences"]} == {"create"}

    made = document(run("apply", "--partitions", "3", "-o", "json"), Exit.OK)
    assert len(made["changed"]) == len(TOPICS)
    assert (made["brokers"], made["differences"]) == (1, [])
    assert partitions(empty) == {topic.name: 3 if topic.partitioned else 1 for topic in TOPICS}
    assert document(run("check", "--partitions", "3", "-o", "json"), Exit.OK)["differences"] == []

    # Fewer than wanted: kept until somebody says so, and what it means is said.
    said = run("apply", "--partitions", "5")
    assert said.exit_code == Exit.UNHEALTHY
    assert "keys are then placed anew" in said.stdout
    assert set(partitions(empty).values()) == {3, 1}
    more = document(run("apply", "--partitions", "5", "--add-partitions", "-o", "json"), Exit.OK)
    assert {each["topic"] for each in more["changed"]} == PARTITIONED
    # More than wanted: nobody can take them away.
    assert "by hand" in run("apply", "--partitions", "4", "--add-partitions").stdout
    assert set(partitions(empty).values()) == {5, 1}


def test_every_setting_that_differs_is_said_and_corrected(empty: Kafka, run: Run) -> None:
    create_topic(empty.address, CALLS, 2, {"retention.ms": "1000", "min.insync.replicas": "2"})
    create_topic(empty.address, RATED, 2, {"cleanup.policy": "compact"})
    create_topic(empty.address, ACTIONS, 2)
    create_topic(empty.address, RATES, 1, {"cleanup.policy": "compact"})
    sizes = ("--partitions", "2", "--replication-factor", "2", "-o", "json")
    found = document(run("check", *sizes), Exit.UNHEALTHY)["differences"]
    said = {(each["topic"], each["what"]): (each["found"], each["wanted"], each["remedy"]) for each in found}
    assert said[CALLS, "retention.ms"] == ("1000", "604800000", "set")
    assert said[CALLS, "min.insync.replicas"] == ("2", "1", "set")
    assert said[CALLS, "replicas"] == ("1", "2", "by hand")
    assert said[RATED, "cleanup.policy"] == ("compact", "delete", "set")
    assert said[RATED, "max.message.bytes"] == ("1048588", "8388608", "set")
    assert said[ACTIONS, "partitions"] == ("2", "1", "by hand")
    assert (CALLS, "partitions") not in said

    # One broker cannot hold two replicas: what fails is said, with what to do where there is something.
    refused = run("apply", *sizes)
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (Exit.UNHEALTHY, 1)
    changed = document(run("apply", "--partitions", "2", "-o", "json"), Exit.UNHEALTHY)
    assert [(each["topic"], each["what"]) for each in changed["differences"]] == [(ACTIONS, "partitions")]


def test_who_cannot_be_asked_is_said(run: Run) -> None:
    port = LoopbackPort()
    nobody = run("check", brokers=f"127.0.0.1:{port.number}")
    port.close()
    assert nobody.exit_code == Exit.UNREACHABLE
    assert nobody.stderr.startswith("mmpipeline: no broker answers at 127.0.0.1:")
    assert len(nobody.stderr.splitlines()) == 1
    wrong = run("check", brokers="kafka.example")
    assert (wrong.exit_code, "host:port is expected" in wrong.stderr) == (Exit.CONFIGURATION, True)
    none = CliRunner().invoke(cli, ["topics", "check", "--config", "/dev/null"])
    assert (none.exit_code, "set kafka.brokers" in none.stderr) == (Exit.CONFIGURATION, True)
