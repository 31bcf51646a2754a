"""All Prometheus metrics of `mmpipeline work` and `mmpipeline sink` in one table, and their text.

Every sample carries `process`, "work" or "sink". The values come from `Progress.snapshot`, which is also
what `/status` shows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mmproto import prometheus
from mmproto.prometheus import Metric, Samples, Snapshot


def _count(name: str) -> Callable[[Snapshot], Samples]:
    return lambda snapshot: [({}, snapshot["counts"].get(name, 0))]


def _counts(label: str, prefix: str) -> Callable[[Snapshot], Samples]:
    return lambda snapshot: [
        ({label: name.removeprefix(prefix)}, number)
        for name, number in sorted(snapshot["counts"].items())
        if name.startswith(prefix)
    ]


def _by_partition(name: str) -> Callable[[Snapshot], Samples]:
    return lambda snapshot: [
        ({"partition": partition}, place[name])
        for partition, place in snapshot["partitions"].items()
        if place[name] is not None
    ]


def _at(*path: str) -> Callable[[Snapshot], Samples]:
    def samples(snapshot: Snapshot) -> Samples:
        value: Any = snapshot
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return [] if value is None else [({}, float(value))]

    return samples


METRICS: tuple[Metric, ...] = (
    Metric("modelmeter_worker_ready", "gauge", "1 while work goes on.", _at("ready")),
    Metric(
        "modelmeter_worker_obstacle",
        "gauge",
        "1 for each thing that is in the way: store, kafka, warehouse, positions, relay.",
        lambda snapshot: [({"what": what}, 1) for what in sorted(snapshot["obstacles"])],
    ),
    Metric(
        "modelmeter_worker_lag_messages",
        "gauge",
        "Messages of a partition that are not committed yet.",
        _by_partition("lag"),
    ),
    Metric(
        "modelmeter_worker_oldest_seconds",
        "gauge",
        "Age of the oldest message of a partition that is not committed.",
        _by_partition("oldest_s"),
    ),
    Metric("modelmeter_worker_batches_total", "counter", "Batches committed.", _count("batches")),
    Metric("modelmeter_worker_messages_total", "counter", "Messages in them.", _count("messages")),
    Metric(
        "modelmeter_worker_calls_total",
        "counter",
        "Calls in them, by what became of them.",
        _counts("outcome", "calls:"),
    ),
    Metric("modelmeter_worker_rows_total", "counter", "Rows the warehouse took.", _count("rows")),
    Metric(
        "modelmeter_worker_dead_letters_total",
        "counter",
        "Messages put aside, by reason.",
        _counts("reason", "dead:"),
    ),
    Metric(
        "modelmeter_worker_rebalances_total",
        "counter",
        "Times that partitions came or went.",
        _count("rebalances"),
    ),
    Metric(
        "modelmeter_worker_missed_messages_total",
        "counter",
        "Messages that retention deleted before they were read.",
        _count("missed"),
    ),
    Metric(
        "modelmeter_worker_moved_total",
        "counter",
        "Batches dropped because another worker had their partition.",
        _count("moved"),
    ),
    Metric(
        "modelmeter_worker_errors_total",
        "counter",
        "Failed attempts, by what failed; each is tried again.",
        _counts("what", "error:"),
    ),
    Metric(
        "modelmeter_worker_published_total",
        "counter",
        "Sealed batches that the rated topic took.",
        _at("relay", "published"),
    ),
    Metric("modelmeter_worker_outbox_rows", "gauge", "Rows of our lanes that wait.", _at("outbox", "rows")),
    Metric(
        "modelmeter_worker_outbox_seconds",
        "gauge",
        "How long the oldest of them waits.",
        _at("outbox", "oldest_s"),
    ),
)


def exposition(snapshot: Snapshot) -> str:
    """The snapshot in Prometheus' text format."""
    return prometheus.exposition(METRICS, snapshot, {"process": str(snapshot["process"])})
