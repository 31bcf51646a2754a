"""The workers as a person meets them: pages, exit codes, dead letters, status, and a store that goes away."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewPartitions

from mmlocal.services.kafka import Kafka
from mmlocal.services.postgresql import PostgreSQL
from mmpipeline.workers.metrics import METRICS
from mmproto.delivery.records import call_record
from mmproto.kafka.topics import CALLS, RATED
from tests.distributed import wait_for
from tests.pipeline.workers.ground import HEADERS, Ground, expected, letters_of, renew_topics, some_calls


def settled(name: str, text: str) -> float:
    """The value of a metric without labels of its own."""
    (line,) = [line for line in text.splitlines() if line.startswith(f"modelmeter_worker_{name}{{")]
    return float(line.rpartition(" ")[2])


@pytest.mark.timeout(300)
def test_dead_letters_stop_a_worker_and_are_sent_back(kafka: Kafka, tmp_path: Path) -> None:
    renew_topics(kafka.address, 1)
    rng, now = random.Random(1), time.time_ns()
    with Ground(tmp_path, kafka.address, f"sqlite:///{tmp_path / 'control.sqlite'}") as ground:
        ground.settings["MODELMETER_WORKER_DEAD_LETTERS"] = "2"
        ground.send(some_calls(rng, 10, now))
        # What a newer sender means only a newer worker knows.
        newer = [(name, b"2" if name == "schema-version" else value) for name, value in HEADERS]
        record = call_record(some_calls(rng, 1, now)[0])
        ground.send_raw([(record, b"key", newer), (b"\xff", None, HEADERS), (b"\xfe", None, HEADERS)])
        ground.send(some_calls(rng, 10, now))
        worker = ground.worker()
        worker.command.start()
        assert worker.command.process is not None
        assert worker.command.process.wait(90) == 1
        said = worker.command.last_words().splitlines()[-1]
        assert f"{CALLS}/0/12 cannot be worked (undecodable)" in said
        assert "mmpipeline deadletter list" in said
        assert ground.totals() == expected(10)

        forms = letters_of(ground, "--show-size")
        assert [(form["offset"], form["reason"]) for form in forms] == [
            (10, "schema_version"),
            (11, "undecodable"),
        ]
        assert [form["size"] for form in forms] == [len(record), 1]
        shown = ground.run("deadletter", "list")
        assert "schema_version" in shown.stdout
        assert ground.run("deadletter", "replay").returncode == 2
        assert "no such dead letter" in ground.run("deadletter", "replay", f"{CALLS}/0/3").stderr
        done = ground.run("deadletter", "replay", "--reason", "schema_version")
        assert (done.returncode, done.stdout) == (0, "1 sent back\n"), done.stderr
        again = ground.run("deadletter", "replay", "--all")
        assert again.stdout.splitlines()[0] == "1 sent back"
        assert "1 left alone" in again.stdout
        # What was sent back came to nothing again: three new letters, and two are allowed.
        ground.settings["MODELMETER_WORKER_DEAD_LETTERS"] = "3"
        worker = ground.worker("again").start()
        ground.wait_until_worked()
        assert ground.totals() == expected(20)
        assert [(form["offset"], form["replays"]) for form in letters_of(ground)] == [
            (12, 0),
            (23, 1),
            (24, 1),
        ]
        code, page = worker.page("/metrics")
        assert code == 200
        assert 'dead_letters_total{process="work",reason="undecodable"} 2' in page
        assert settled("messages_total", page) == 13
        status = ground.run("status", "-o", "json")
        assert "as many as worker.dead_letters allows" in status.stdout
        assert ground.run("deadletter", "acknowledge").stdout == "3 dead letters acknowledged\n"
        form = json.loads(ground.run("status", "-o", "json").stdout)
        assert form["dead_letters"] == {"waiting": 0, "limit": 3}
        assert form["kafka"]["calls"]["members"] == 1
        assert form["kafka"]["calls"]["lag"] == 0
        assert form["verdict"] == "unhealthy"
        assert any("nobody runs `mmpipeline sink`" in reason for reason in form["reasons"])
        assert worker.stop() == 0


@pytest.mark.timeout(300)
def test_a_store_that_goes_away_and_comes_back(
    kafka: Kafka, own_postgresql: PostgreSQL, tmp_path: Path
) -> None:
    renew_topics(kafka.address, 2)
    rng, now = random.Random(2), time.time_ns()
    with Ground(tmp_path, kafka.address, own_postgresql.url("worker")) as ground:
        worker = ground.worker().start()
        ground.send(some_calls(rng, 100, now))
        ground.wait_until_worked()
        own_postgresql.kill()
        ground.send(some_calls(rng, 100, now))
        wait_for("it says so", lambda: worker.page("/readyz")[0] == 503)
        assert worker.page("/readyz")[1].startswith("store: ")
        assert worker.page("/livez")[0] == 200
        snapshot = worker.snapshot()
        assert snapshot["counts"]["error:store"] >= 1
        assert max(place["oldest_s"] for place in snapshot["partitions"].values()) > 0
        # A worker that starts now waits for it as well.
        second = ground.worker("second")
        second.command.start()
        own_postgresql.start()
        ground.wait_until_worked()
        wait_for("ready again", lambda: worker.page("/readyz") == (200, "ok\n"))
        wait_for("the second works", lambda: "listening" in second.command.last_words())
        assert ground.totals() == expected(200)
        assert worker.stop() == 0
        assert second.command.end() == 0


@pytest.mark.timeout(120)
def test_what_is_set_up_wrongly_is_said_at_the_start(kafka: Kafka, tmp_path: Path) -> None:
    renew_topics(kafka.address, 2)
    with Ground(tmp_path, kafka.address, f"sqlite:///{tmp_path / 'control.sqlite'}") as ground:
        ground.settings["MODELMETER_KAFKA_BROKERS"] = ""
        ground.settings["MODELMETER_WORKER_METRICS_LISTEN"] = ""
        assert ground.run("work").returncode == 78
        assert "kafka.brokers is empty" in ground.run("sink").stderr
        ground.settings["MODELMETER_KAFKA_BROKERS"] = kafka.address
        _grow(kafka.address, RATED)
        done = ground.run("work")
        assert done.returncode == 1
        assert f"{CALLS} has 2 partitions and {RATED} 3" in done.stderr
        ground.settings["MODELMETER_WORKER_METRICS_LISTEN"] = "nowhere"
        assert "worker.metrics_listen 'nowhere' is not host:port" in ground.run("work").stderr


def _grow(brokers: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": brokers})
    for grown in admin.create_partitions([NewPartitions(name, 3)]).values():
        grown.result()


def test_every_metric_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "reference" / "workers.md").read_text(encoding="utf-8")
    assert [metric.name for metric in METRICS if f"`{metric.name}`" not in text] == []
