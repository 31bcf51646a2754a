"""All Prometheus metrics of the sensor in one table, and the text they are shown as.

The values come from the same snapshot as `mmsensor status`, so that the two never disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mmproto import prometheus
from mmproto.prometheus import Metric, Samples, Snapshot


# The status document of mmsensor.status.
def _one(*path: str) -> Callable[[Snapshot], Samples]:
    """A single number at `path` of the snapshot; no sample where there is none."""

    def samples(snapshot: Snapshot) -> Samples:
        value = _at(snapshot, path)
        return [] if value is None else [({}, float(value))]

    return samples


def _each(label: str, *path: str) -> Callable[[Snapshot], Samples]:
    """One sample for each entry of the mapping at `path`, its key as `label`."""

    def samples(snapshot: Snapshot) -> Samples:
        return [({label: key}, float(value)) for key, value in sorted((_at(snapshot, path) or {}).items())]

    return samples


def _at(snapshot: Snapshot, path: tuple[str, ...]) -> Any:
    value: Any = snapshot
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _targets(snapshot: Snapshot) -> Samples:
    attached = sum(1 for target in snapshot["targets"] if target["attached"])
    silent = sum(1 for target in snapshot["targets"] if target["doubt"])
    return [
        ({"state": "attached"}, attached - silent),
        ({"state": "used_never_fired"}, silent),
        ({"state": "not_attached"}, len(snapshot["targets"]) - attached),
    ]


def _build(snapshot: Snapshot) -> Samples:
    identity = snapshot["identity"]
    return [({"version": identity["version"], "node": identity["node"]}, 1)]


def _healthy(snapshot: Snapshot) -> Samples:
    return [
        ({"verdict": word}, float(snapshot["verdict"] == word))
        for word in ("healthy", "degraded", "unhealthy")
    ]


METRICS: tuple[Metric, ...] = (
    Metric("modelmeter_sensor_build_info", "gauge", "Version and node; always 1.", _build),
    Metric(
        "modelmeter_sensor_verdict",
        "gauge",
        "1 for the verdict that holds, as in `mmsensor status`.",
        _healthy,
    ),
    Metric(
        "modelmeter_sensor_exchanges_captured_total",
        "counter",
        "HTTP exchanges that ended: emitted, dropped and failed add up to this.",
        _one("events", "captured"),
    ),
    Metric(
        "modelmeter_sensor_calls_emitted_total",
        "counter",
        "LLM calls that the sink accepted.",
        _one("events", "emitted"),
    ),
    Metric(
        "modelmeter_sensor_exchanges_dropped_total",
        "counter",
        "Exchanges that are not calls of this node, and calls that the sink refused, by reason.",
        _each("reason", "events", "dropped"),
    ),
    Metric(
        "modelmeter_sensor_exchanges_failed_total",
        "counter",
        "Exchanges that could not be read, by reason.",
        _each("reason", "events", "failed"),
    ),
    Metric(
        "modelmeter_sensor_call_anomalies_total",
        "counter",
        "Odd things in calls that were read all the same, by name.",
        _each("anomaly", "anomalies"),
    ),
    Metric(
        "modelmeter_sensor_exchanges_open", "gauge", "Exchanges that have begun.", _one("in_flight", "open")
    ),
    Metric(
        "modelmeter_sensor_calls_queued",
        "gauge",
        "Calls that wait for the sink.",
        _one("in_flight", "queued"),
    ),
    Metric(
        "modelmeter_sensor_connections", "gauge", "Connections followed.", _one("connections", "followed")
    ),
    Metric(
        "modelmeter_sensor_connections_total",
        "counter",
        "Connections by what became of them: opened, late (open before we were), ignored, evicted.",
        _each("event", "connections", "total"),
    ),
    Metric(
        "modelmeter_sensor_gaps_total",
        "counter",
        "Places where bytes are missing.",
        _one("connections", "gaps"),
    ),
    Metric(
        "modelmeter_sensor_gap_bytes_total",
        "counter",
        "Bytes missing there.",
        _one("connections", "gap_bytes"),
    ),
    Metric("modelmeter_sensor_kernel_records_total", "counter", "Records read.", _one("kernel", "records")),
    Metric(
        "modelmeter_sensor_kernel_bytes_total", "counter", "Plaintext bytes read.", _one("kernel", "bytes")
    ),
    Metric(
        "modelmeter_sensor_kernel_calls_total",
        "counter",
        "TLS reads and writes probed.",
        _one("kernel", "calls"),
    ),
    Metric(
        "modelmeter_sensor_kernel_lost_total",
        "counter",
        "Events that the kernel could not hand over, by reason.",
        _each("reason", "kernel", "lost"),
    ),
    Metric(
        "modelmeter_sensor_kernel_lost_bytes_total",
        "counter",
        "Bytes that the kernel could not hand over, by reason.",
        _each("reason", "kernel", "lost_bytes"),
    ),
    Metric(
        "modelmeter_sensor_held_total",
        "counter",
        "Processes held until a new file was examined.",
        _one("kernel", "holds", "held"),
    ),
    Metric(
        "modelmeter_sensor_held_too_long_total",
        "counter",
        "Those of them that were held for as long as allowed.",
        _one("kernel", "holds", "too_long"),
    ),
    Metric(
        "modelmeter_sensor_held_seconds_total",
        "counter",
        "Time for which processes were held.",
        _one("kernel", "holds", "total_s"),
    ),
    Metric(
        "modelmeter_sensor_not_held_total",
        "counter",
        "Processes that were not held, by reason.",
        _each("reason", "kernel", "holds", "not_held"),
    ),
    Metric("modelmeter_sensor_targets", "gauge", "Files with TLS functions, by state.", _targets),
    Metric("modelmeter_sensor_sink_ok", "gauge", "1 while the sink takes calls.", _one("sink", "ok")),
    Metric(
        "modelmeter_sensor_spool_records",
        "gauge",
        "Calls that wait for delivery.",
        _one("sink", "spool", "records"),
    ),
    Metric(
        "modelmeter_sensor_spool_bytes", "gauge", "Size of these.", _one("sink", "spool", "payload_bytes")
    ),
    Metric(
        "modelmeter_sensor_spool_limit_bytes", "gauge", "Room for them.", _one("sink", "spool", "max_bytes")
    ),
    Metric(
        "modelmeter_sensor_spool_damaged_files",
        "gauge",
        "Damaged spool files set aside since start.",
        _one("sink", "spool", "damaged_files"),
    ),
    Metric(
        "modelmeter_sensor_delivered_total",
        "counter",
        "Calls that the pipeline or Kafka acknowledged.",
        _one("sink", "delivery", "delivered"),
    ),
    Metric(
        "modelmeter_sensor_delivery_retries_total",
        "counter",
        "Posts that have to be repeated, by reason.",
        _each("reason", "sink", "delivery", "retries"),
    ),
    Metric(
        "modelmeter_sensor_delivery_rejected_total",
        "counter",
        "Calls that the pipeline or Kafka refused for their content, by reason.",
        _each("reason", "sink", "delivery", "rejected"),
    ),
    Metric(
        "process_cpu_seconds_total", "counter", "CPU time of the sensor.", _one("overhead", "cpu_seconds")
    ),
    Metric(
        "process_resident_memory_bytes",
        "gauge",
        "Resident memory of the sensor.",
        _one("overhead", "resident_bytes"),
    ),
    Metric(
        "process_start_time_seconds",
        "gauge",
        "Start of the sensor, unix time.",
        _one("identity", "started_unix_s"),
    ),
)


def exposition(snapshot: Snapshot) -> str:
    """The snapshot in Prometheus' text format."""
    return prometheus.exposition(METRICS, snapshot, {})
