"""Whether the pipeline answers, or Kafka, and takes what we would send."""

from __future__ import annotations

from mmproto.delivery import IngestClient, Rejected, Retry
from mmproto.kafka.connection import kafka_needed
from mmproto.kafka.settings import KafkaSettings
from mmproto.kafka.topics import CALLS
from mmproto.settings import ConfigurationError
from mmsensor.doctor.findings import Finding, fail, ok, skipped, warn
from mmsensor.doctor.surroundings import Surroundings

#: Long enough for a pipeline on the other side of the world, short enough for a person who waits.
_TIMEOUT_S = 4.0


def check_pipeline(place: Surroundings) -> Finding:
    """Sends a batch without a call in it, as the sensor sends its own: address, TLS and token in one."""
    settings = place.settings
    if settings.jsonl:
        return ok(f"not asked: calls go to {settings.sink}")
    if settings.to_kafka is not None:
        return _check_kafka(settings.to_kafka, settings.node_name)
    url = settings.ingest_url()
    client = IngestClient(
        url, settings.node_name, settings.token_file, timeout_s=min(_TIMEOUT_S, settings.ingest.timeout_s)
    )
    try:
        client.post([])
    except Retry as problem:
        return _no_receipt(problem, url)
    except Rejected as problem:
        return fail(f"{url}: {problem}", "run the same version of sensor and pipeline")
    finally:
        client.close()
    return ok(f"{url} takes our calls")


def _check_kafka(kafka: KafkaSettings, node: str) -> Finding:
    """Asks the brokers for the topic, as the sensor's user: address, TLS, credentials and topic in one."""
    try:
        with kafka_needed():
            from mmproto.kafka.producer import KafkaClient  # noqa: PLC0415
        client = KafkaClient(kafka, node)
    except ConfigurationError as error:
        return fail(error.problems[0].message, error.problems[0].hint or "correct the section `kafka`")
    try:
        partitions = client.partitions(_TIMEOUT_S)
    except Retry as problem:
        fact, _, fix = str(problem).rpartition("; ")
        return warn(fact or str(problem), fix if fact else "until then calls wait on disk")
    finally:
        client.close()
    return ok(f"{kafka.brokers} has {CALLS} with {partitions} partitions")


def _no_receipt(problem: Retry, url: str) -> Finding:
    """The sensor goes on measuring without it: calls wait in the spool."""
    if problem.reason == "no_token":
        return skipped(f"not asked: {problem}", "run `mmsensor doctor` with sudo or as the sensor's user")
    fixes = {
        "bad_url": "correct ingest.url in the sensor's configuration",
        "unauthorized": "copy the pipeline's ingest.token to the file that ingest.token_file names",
        "not_a_receipt": "set ingest.url to the address that `mmpipeline serve` prints",
    }
    fix = fixes.get(
        problem.reason, "start mmpipeline, or set ingest.url to where it is; until then calls wait on disk"
    )
    return warn(f"{url}: {problem}", fix)
