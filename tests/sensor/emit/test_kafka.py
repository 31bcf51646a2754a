"""The sink `kafka`: calls reach a real broker, and what does not get through is bounded, counted and said."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from pathlib import Path

from mmlocal.services.kafka import Kafka
from mmlocal.services.ports import LoopbackPort
from mmproto.delivery import Spool
from mmproto.kafka.topics import CALLS
from mmproto.v1.call_pb2 import Call
from mmproto.v1.ingest_pb2 import IngestBatch
from mmsensor.config import SensorSettings, load_settings
from mmsensor.emit.spooled import SpooledSink
from mmsensor.service import _sink
from tests.services.kafka import read_topic, topic_of_calls


def settings(folder: Path, sink: str, **flags: object) -> SensorSettings:
    given = {"state_dir": str(folder), "node": "node-1", "sink": sink, **flags}
    return load_settings(Path("/dev/null"), given, env={}).settings


def calls(*ids: str) -> Sequence[Call]:
    return [Call(id=each, provider="openai", tenant="acme") for each in ids]


def test_calls_are_on_the_broker_when_the_sink_is_closed(kafka: Kafka, tmp_path: Path) -> None:
    before = topic_of_calls(kafka.address)
    sink = _sink(settings(tmp_path, f"kafka://{kafka.address}"))
    names = [f"{tmp_path.name}/{number}" for number in range(30)]
    assert sink.emit(calls(*names)).accepted == 30
    sink.close()
    status = sink.status()
    assert (status["kind"], status["target"], status["ok"], status["problem"]) == (
        "kafka",
        kafka.address,
        True,
        "",
    )
    assert (status["delivery"]["delivered"], status["spool"]["records"]) == (30, 0)
    found = [
        call.id
        for message in read_topic(kafka.address, CALLS, before + 30)
        for call in IngestBatch.FromString(message.value() or b"").calls
    ]
    assert [found.count(name) for name in names] == [1] * 30
    assert not (tmp_path / "ingest.token").exists(), "no token is needed"


def test_without_a_broker_the_spool_fills_refuses_and_says_so(tmp_path: Path) -> None:
    with contextlib.closing(LoopbackPort()) as port:
        configured = settings(
            tmp_path,
            f"kafka://127.0.0.1:{port.number}",
            **{
                "spool.max_bytes": 64 << 10,
                "ingest.flush_s": 0,
                "kafka.properties": {"message.timeout.ms": "500"},
            },
        )
        sink = _sink(configured)
        assert isinstance(sink, SpooledSink)
        taken = sink.emit(calls(*(f"call-{number:060}" for number in range(2000))))
        assert 0 < taken.accepted < 2000
        assert taken.reason == "spool_full"
        status = sink.status()
        assert status["ok"] is False
        assert f"{2000 - taken.accepted} records were refused" in status["problem"]
        until = time.monotonic() + 60
        while not sink.status()["delivery"]["retries"]:
            assert time.monotonic() < until
            time.sleep(0.05)
        sink.close()
        assert set(sink.status()["delivery"]["retries"]) == {"broker_away"}
        assert "is Kafka running there" in sink.status()["delivery"]["last_error"]
    spool = Spool(configured.spool_file, 1 << 20)
    assert len(spool) == taken.accepted
    spool.close()
