"""The JSON form of a `Call`: one object a line, the same in `jsonl:` sinks, `replay` and the API.

Absent means not reported: a key whose value is not known is left out, never written as null, 0 or "".
Times are RFC 3339 in UTC with as many digits as are known, durations are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from mmproto import usage as totals
from mmproto.rating import usd
from mmproto.v1.call_pb2 import Call, HostSource, Observer, Origin, Process
from mmproto.v1.usage_pb2 import Quality, Usage

_NS = 1_000_000_000
_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")
# The keys of the form in their order.
_FIELDS = (
    "id",
    "provider",
    "operation",
    "request_model",
    "response_model",
    "response_id",
    "host",
    "host_source",
    "peer_address",
    "peer_port",
    "streaming",
    "http_status",
    "error_type",
    "billable",
    "started_at",
    "duration_s",
    "time_to_first_token_s",
    "finish_reasons",
    "service_tier",
    "process",
    "tenant",
    "team",
    "application",
    "user",
    "usage",
    "reported_cost_usd",
    "origin",
    "observer",
    "node",
    "virtual_key_id",
)
# Fields whose 0 is a value: they are left out only where they were never set.
_WITH_PRESENCE = frozenset({"http_status", "duration_s", "time_to_first_token_s"})
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
    form: dict[str, Any] = {}
    for name in _FIELDS:
        if name in _MADE:
            value = _MADE[name](call)
        elif name in _WITH_PRESENCE:
            value = getattr(call, name) if call.HasField(name) else None
        else:
            value = getattr(call, name) or None
        if value is not None:
            form[name] = value
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
    form["quality"] = _name(Quality, usage.quality).removeprefix("QUALITY_") or "UNKNOWN"
    if usage.estimated:
        form["estimated"] = list(usage.estimated)
    return form


def _name(kinds: Any, number: int) -> str:
    """Name of an enum's value; empty for a number that a newer writer knows and this reader does not."""
    return str(kinds.Name(number)) if number in kinds.values() else ""


def _process_to_json(process: Process) -> dict[str, Any]:
    form: dict[str, Any] = {"pid": process.pid}
    if process.started_at_unix_ns:
        form["started_at"] = format_time(process.started_at_unix_ns)
    form.update({name: value for name in _PROCESS_FIELDS if (value := getattr(process, name))})
    return form


def _origin_to_json(origin: Origin) -> dict[str, str]:
    return {name: value for name in _ORIGIN_FIELDS if (value := getattr(origin, name))}


# Keys that are not the message's own fields as they stand.
_MADE: Mapping[str, Callable[[Call], Any]] = {
    "streaming": lambda call: call.streaming,
    "billable": lambda call: call.billable,
    "started_at": lambda call: format_time(call.started_at_unix_ns) if call.started_at_unix_ns else None,
    "finish_reasons": lambda call: list(call.finish_reasons) or None,
    "process": lambda call: _process_to_json(call.process) if call.HasField("process") else None,
    "usage": lambda call: usage_to_json(call.usage),
    "reported_cost_usd": lambda call: (
        usd(call.reported_cost_nano_usd) if call.HasField("reported_cost_nano_usd") else None
    ),
    "origin": lambda call: _origin_to_json(call.origin) if call.HasField("origin") else None,
    "host_source": lambda call: (
        _name(HostSource, call.host_source).removeprefix("HOST_SOURCE_").lower() or None
        if call.host_source
        else None
    ),
    "observer": lambda call: (
        _name(Observer, call.observer).removeprefix("OBSERVER_").lower() or None if call.observer else None
    ),
}
