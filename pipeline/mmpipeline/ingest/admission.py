"""Holds one call against what a call can be, before anything is charged by it.

Three outcomes: it is taken as it is; it is taken with a correction that is counted by name (a clock that
cannot be right, a text beyond all bounds); or it is rejected with a reason, because no honest row can be
made of it:

    bad_id                 the id is not a UUID
    negative_count         a token or unit count below 0
    absurd_count           a count beyond any real call
    not_a_number           a unit count or duration that is NaN or infinite
    too_many_buckets       more distinct buckets than there are kinds of tokens
    too_late               it started before the ids of its day were dropped: it may be a duplicate of a call
                           that nobody knows any more
    malformed              a call that this code failed on: a defect of ours, never of its neighbours

Corrections:

    adjusted:clock         started before 2020 or more than an hour ahead of this machine's clock: the
                           time of arrival stands in, or the call would be charged to a period that is
                           over or never comes
    adjusted:text          a text longer than MAX_TEXT was cut, or held NUL characters, which PostgreSQL has
                           no place for
    adjusted:duration      a duration or time to first token that is negative or not finite was dropped
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mmproto.usage import MAX_TOKENS
from mmproto.v1.call_pb2 import Call

MAX_TEXT = 1024
_MAX_BUCKETS = 64
_MAX_UNITS = 1e10

_YEAR_2020_NS = 1_577_836_800_000_000_000
_HOUR_NS = 3_600_000_000_000

_is_uuid = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}").fullmatch

_TEXT_FIELDS = (
    "provider",
    "operation",
    "request_model",
    "response_model",
    "response_id",
    "host",
    "error_type",
    "service_tier",
    "tenant",
    "team",
    "application",
    "user",
    "node",
    "virtual_key_id",
)
_PROCESS_FIELDS = ("exe", "command", "user", "cgroup", "systemd_unit")
_ORIGIN_FIELDS = ("api_key_hash", "organization", "project", "end_user", "session")
_MAX_FINISH_REASONS = 64


class Rejected(Exception):
    """The call is not taken; str() is the reason's name."""


def key_of(call: Call) -> bytes:
    """The call's id as 16 bytes. Raises Rejected."""
    if _is_uuid(call.id) is None:
        raise Rejected("bad_id")
    return bytes.fromhex(call.id.replace("-", ""))


def is_credible_time(started_at_unix_ns: int, now_unix_ns: int) -> bool:
    """Whether a call can have started then."""
    return _YEAR_2020_NS <= started_at_unix_ns <= now_unix_ns + _HOUR_NS


@dataclass(slots=True)
class Admitted:
    """A call that may be charged: `tokens` are its counts, `data` its serialized form."""

    call: Call
    tokens: dict[str, int]
    data: bytes
    adjusted: tuple[str, ...]


def admit(call: Call, now_unix_ns: int) -> Admitted:
    """Correct `call` in place where it can be corrected. Raises Rejected."""
    adjusted: tuple[str, ...] = ()
    usage = call.usage
    reported = usage.tokens
    tokens = {bucket: reported[bucket] for bucket in reported}
    if tokens:
        counts = tokens.values()
        if min(counts) < 0:
            raise Rejected("negative_count")
        if max(counts) > MAX_TOKENS:
            raise Rejected("absurd_count")
    units = usage.units
    if units:
        _check_units(units)
    if len(tokens) + len(units) > _MAX_BUCKETS:
        raise Rejected("too_many_buckets")
    if not is_credible_time(call.started_at_unix_ns, now_unix_ns):
        call.started_at_unix_ns = now_unix_ns
        adjusted += ("adjusted:clock",)
    if not 0.0 <= call.duration_s < math.inf:
        call.ClearField("duration_s")
        adjusted += ("adjusted:duration",)
    if not 0.0 <= call.time_to_first_token_s < math.inf:
        call.ClearField("time_to_first_token_s")
        adjusted += ("adjusted:duration",)
    if not call.tenant:
        call.tenant = "default"
    if _has_nul(call):
        for name in _TEXT_FIELDS:
            setattr(call, name, getattr(call, name).replace("\0", "\ufffd"))
        adjusted += ("adjusted:text",)
    data = call.SerializeToString()
    # A call that is small as a whole has no text that is too long.
    if len(data) > MAX_TEXT and _cut(call):
        adjusted += ("adjusted:text",)
        data = call.SerializeToString()
    return Admitted(call, tokens, data, adjusted)


def _has_nul(call: Call) -> bool:
    """Whether a text that becomes a column holds one."""
    return "\0" in (
        f"{call.tenant}{call.team}{call.application}{call.user}{call.provider}"
        f"{call.request_model}{call.response_model}{call.virtual_key_id}"
    )


def _check_units(units: Mapping[str, float]) -> None:
    for count in units.values():
        if not math.isfinite(count):
            raise Rejected("not_a_number")
        if not 0 <= count <= _MAX_UNITS:
            raise Rejected("negative_count" if count < 0 else "absurd_count")


def _cut(call: Call) -> bool:
    found = _cut_fields(call, _TEXT_FIELDS)
    if call.HasField("process"):
        found |= _cut_fields(call.process, _PROCESS_FIELDS)
    if call.HasField("origin"):
        found |= _cut_fields(call.origin, _ORIGIN_FIELDS)
    reasons = call.finish_reasons
    if len(reasons) > _MAX_FINISH_REASONS or any(len(text) > MAX_TEXT for text in reasons):
        kept = [text[:MAX_TEXT] for text in reasons[:_MAX_FINISH_REASONS]]
        del reasons[:]
        reasons.extend(kept)
        found = True
    estimated = call.usage.estimated
    if len(estimated) > _MAX_BUCKETS or any(len(text) > MAX_TEXT for text in estimated):
        del estimated[:]
        found = True
    if any(len(name) > MAX_TEXT for name in (*call.usage.tokens, *call.usage.units)):
        raise Rejected("too_many_buckets")
    return found


def _cut_fields(message: object, names: tuple[str, ...]) -> bool:
    found = False
    for name in names:
        text: str = getattr(message, name)
        if len(text) > MAX_TEXT:
            setattr(message, name, text[:MAX_TEXT])
            found = True
    return found
