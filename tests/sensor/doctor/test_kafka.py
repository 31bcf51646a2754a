"""Kafka as the doctor meets it: with the topic, away, or with settings that nobody takes."""

from __future__ import annotations

from contextlib import closing

from mmlocal.services.kafka import Kafka
from mmlocal.services.ports import LoopbackPort
from mmproto.kafka.topics import CALLS
from mmsensor.doctor.findings import Outcome
from mmsensor.doctor.local import check_spool, check_token
from mmsensor.doctor.pipeline import check_pipeline
from tests.sensor.doctor.machines import Machine
from tests.services.kafka import topic_of_calls


def test_the_doctor_asks_kafka_for_the_topic(kafka: Kafka, computer: Machine) -> None:
    topic_of_calls(kafka.address)
    computer.configure(f"sink: 'kafka://{kafka.address}'")
    finding = check_pipeline(computer.look())
    assert finding.outcome is Outcome.OK
    assert finding.fact.startswith(f"{kafka.address} has {CALLS} with ")
    assert check_token(computer.look()).fact == f"no token: calls go to kafka://{kafka.address}"
    assert check_spool(computer.look()).fact == "none yet: the sensor makes it"
    with closing(LoopbackPort()) as port:
        computer.configure(f"sink: 'kafka://127.0.0.1:{port.number}'")
        away = check_pipeline(computer.look())
    assert away.outcome is Outcome.WARN
    assert "no broker answers" in away.fact
    assert away.fix.startswith("is Kafka running there")
    computer.configure(f"sink: 'kafka://{kafka.address}'\nkafka: {{properties: {{no.such: x}}}}")
    wrong = check_pipeline(computer.look())
    assert (wrong.outcome, "No such configuration property" in wrong.fact) == (Outcome.FAIL, True)
