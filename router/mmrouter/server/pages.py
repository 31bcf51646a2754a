"""The router's own pages, under a prefix that no provider uses: livez, readyz, status, metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import orjson

from mmrouter.dialects import response

PREFIX = "/-/"

# Every metric: its name, its type and its meaning.
_METRICS = {
    "mmrouter_connections_total": ("counter", "Connections from applications."),
    "mmrouter_connections_open": ("gauge", "Connections from applications now."),
    "mmrouter_calls_recorded_total": ("counter", "Forwarded calls of which a record was made."),
    "mmrouter_forwarded_total": ("counter", "Forwarded requests by how they ended."),
    "mmrouter_refused_total": ("counter", "Requests the router answered with an error of its own, by code."),
    "mmrouter_rejected_total": ("counter", "Connections and bytes that never became a request, by reason."),
    "mmrouter_unread_total": ("counter", "Forwarded calls of which no record could be made, by reason."),
    "mmrouter_reader_errors_total": ("counter", "Defects of the reader of usage, by exception."),
    "mmrouter_records_dropped_total": ("counter", "Records the spool could not take, by reason."),
    "mmrouter_refusals_unrecorded_total": ("counter", "Refusals beyond the share of a key that is recorded."),
    "mmrouter_unmeasured_calls_total": ("counter", "Calls whose cost is held at their upper bound."),
    "mmrouter_spool_records": ("gauge", "Records that wait for the pipeline."),
    "mmrouter_state_age_seconds": ("gauge", "Age of the pipeline's last word on budgets; absent before it."),
    "mmrouter_state_unreadable_total": ("counter", "Words of the pipeline that were not understood."),
    "mmrouter_upstream_connections_opened_total": ("counter", "Connections made to a provider."),
    "mmrouter_upstream_connections_reused_total": ("counter", "Requests sent over a kept connection."),
    "mmrouter_upstream_connect_failures_total": ("counter", "Connections to a provider that failed."),
    "mmrouter_upstream_connections_open": ("gauge", "Connections to a provider now."),
}


class Pages:
    """Answers from the status document, which is made anew for each request."""

    def __init__(self, status: Callable[[], Mapping[str, Any]], open_connections: Callable[[], int]) -> None:
        self._status = status
        self._open = open_connections

    def answer(self, method: str, path: str) -> Callable[[bool], bytes]:
        """What to answer, told whether the connection closes."""
        if method != "GET":
            return lambda close: response(
                405, b"only GET\n", "text/plain", close=close, extra=[("allow", "GET")]
            )
        match path.removeprefix(PREFIX):
            case "livez":
                return lambda close: response(200, b"ok\n", "text/plain", close=close)
            case "readyz":
                return self._ready
            case "status":
                return lambda close: response(
                    200, orjson.dumps(self._status()), "application/json", close=close
                )
            case "metrics":
                text = "".join(self._metrics()).encode()
                kind = "text/plain; version=0.0.4; charset=utf-8"
                return lambda close: response(200, text, kind, close=close)
        return lambda close: response(404, b"not a page of the router\n", "text/plain", close=close)

    def _ready(self, close: bool) -> bytes:
        status = self._status()
        ready = status["verdict"] != "unhealthy"
        text = "ok\n" if ready else "\n".join(status["reasons"]) + "\n"
        return response(200 if ready else 503, text.encode(), "text/plain", close=close)

    def _metrics(self) -> Iterator[str]:
        for name, samples in self._samples(self._status()):
            if not samples:
                continue
            kind, meaning = _METRICS[name]
            yield f"# HELP {name} {meaning}\n# TYPE {name} {kind}\n"
            for label, value in samples.items():
                yield f"{name}{label} {value}\n"

    def _samples(self, status: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
        counts = status["counts"]
        age = status["pipeline"]["state_age_s"]
        yield "mmrouter_connections_total", {"": counts["connections"]}
        yield "mmrouter_connections_open", {"": self._open()}
        yield "mmrouter_calls_recorded_total", {"": counts["calls"]}
        yield "mmrouter_forwarded_total", _labelled("end", counts["ended"])
        yield "mmrouter_refused_total", _labelled("code", counts["refused"])
        yield "mmrouter_rejected_total", _labelled("reason", counts["rejected"])
        yield "mmrouter_unread_total", _labelled("reason", counts["unread"])
        yield "mmrouter_reader_errors_total", _labelled("exception", counts["reader_errors"])
        yield "mmrouter_records_dropped_total", _labelled("reason", counts["dropped"])
        yield "mmrouter_refusals_unrecorded_total", {"": counts["refusals_unrecorded"]}
        yield "mmrouter_unmeasured_calls_total", {"": status["unmeasured_calls"]}
        yield "mmrouter_spool_records", {"": status["spool"]["records"]}
        yield "mmrouter_state_age_seconds", {} if age is None else {"": age}
        yield "mmrouter_state_unreadable_total", {"": status["pipeline"]["unreadable"]}
        upstreams = status["upstreams"]
        for metric, field in (
            ("mmrouter_upstream_connections_opened_total", "opened"),
            ("mmrouter_upstream_connections_reused_total", "reused"),
            ("mmrouter_upstream_connect_failures_total", "failed"),
            ("mmrouter_upstream_connections_open", "open"),
        ):
            yield metric, _labelled("upstream", {name: up[field] for name, up in upstreams.items()})


def _labelled(label: str, samples: Mapping[str, float]) -> dict[str, float]:
    return {f'{{{label}="{_escaped(name)}"}}': value for name, value in samples.items()}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
