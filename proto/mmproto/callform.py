"""The JSON form of a `Call`: one object a line, the same in `jsonl:` sinks, `replay` and the API.

Absent means not reported: a key whose value is not known is left out, never written as null, 0 or "".
Times are RFC 3339 in UTC with as many digits as are known, durations are seconds.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

from mmproto import usage as totals
from mmproto.v1.call_pb2 import Call, Observer, Process
from mmproto.v1.usage_pb2 import Quality, Usage

_NS = 1_000_000_000
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")
_TEXT_FIELDS = (
    "id",
    "provider",
    "operation",
    "request_model",
    "response_model",
    "response_id",
    "host",
)
_ORIGIN_FIELDS = ("api_key_hash", "organization", "project", "end_user", "session")
_PROCESS_FIELDS = ("exe", "command", "user", "cgroup", "systemd_unit")


def format_time(unix_ns: int) -> str:
    """Nanoseconds since the epoch as RFC 3339 in UTC, e.g. `2026-11-23T10:00:00.25Z`."""
    seconds, ns = divmod(unix_ns, _NS)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    fraction = f".{ns:09d}".rstrip("0") if ns else ""
    return f"{text}{fraction}Z"


def parse_time(text: str) -> int:
    """RFC 3339 as nanoseconds since the epoch. Raises ValueError where `text` is not one."""
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    day, clock, fraction, zone = match.groups()
    moment = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if zone in 'Zz' else zone}")
    return int(moment.timestamp()) * _NS + int((fraction or "0").ljust(9, "0"))


def call_to_json(call: Call) -> dict[str, Any]:
    """The JSON form of `call` as a dict, keys in the order of the contract."""
    form: dict[str, Any] = {name: value for name in _TEXT_FIELDS if (value := getattr(call, name))}
    form["streaming"] = call.streaming
    if call.HasField("http_status"):
        form["http_status"] = call.http_status
    if call.error_type:
        form["error_type"] = call.error_type
    form["billable"] = call.billable
    if call.started_at_unix_ns:
        form["started_at"] = format_time(call.started_at_unix_ns)
    if call.HasField("duration_s"):
        form["duration_s"] = call.duration_s
    if call.HasField("time_to_first_token_s"):
        form["time_to_first_token_s"] = call.time_to_first_token_s
    if call.finish_reasons:
        form["finish_reasons"] = list(call.finish_reasons)
    if call.service_tier:
        form["service_tier"] = call.service_tier
    if call.HasField("process"):
        form["process"] = _process_to_json(call.process)
    for name in ("tenant", "team", "application", "user"):
        if value := getattr(call, name):
            form[name] = value
    form["usage"] = usage_to_json(call.usage)
    if call.HasField("origin"):
        form["origin"] = {name: v for name in _ORIGIN_FIELDS if (v := getattr(call.origin, name))}
    if call.observer:
        form["observer"] = Observer.Name(call.observer).removeprefix("OBSERVER_").lower()
    if call.node:
        form["node"] = call.node
    if call.virtual_key_id:
        form["virtual_key_id"] = call.virtual_key_id
    return form


def usage_to_json(usage: Usage) -> dict[str, Any]:
    """Totals, subsets, buckets and quality of a usage; what was not reported is left out."""
    tokens = usage.tokens
    derived = {
        "input_tokens": totals.input_tokens(tokens),
        "output_tokens": totals.output_tokens(tokens),
        "cache_read_input_tokens": totals.cache_read_tokens(tokens),
        "cache_write_input_tokens": totals.cache_write_tokens(tokens),
        "reasoning_output_tokens": totals.reasoning_tokens(tokens),
    }
    form: dict[str, Any] = {name: count for name, count in derived.items() if count is not None}
    form["buckets"] = dict(sorted(tokens.items())) | dict(sorted(usage.units.items()))
    form["quality"] = Quality.Name(usage.quality).removeprefix("QUALITY_")
    if usage.estimated:
        form["estimated"] = list(usage.estimated)
    return form


def _process_to_json(process: Process) -> dict[str, Any]:
    form: dict[str, Any] = {"pid": process.pid}
    if process.started_at_unix_ns:
        form["started_at"] = format_time(process.started_at_unix_ns)
    form.update({name: value for name in _PROCESS_FIELDS if (value := getattr(process, name))})
    return form
