"""Real exchanges, field by field: every one in scope is right, and none out of scope becomes a wrong call.

Each recording is read twice: as an archive, and as bytes of a connection, framed and compressed anew.
"""

from __future__ import annotations

import gzip
from typing import Any

import pytest
from tests.proto import wire
from tests.proto.corpus.recordings import Recording, load

from mmproto import har
from mmproto.callform import call_to_json
from mmproto.exchange import Dropped, Failed, Outcome, ReadingRules, Recognised

pytestmark = pytest.mark.corpus

RECORDINGS = load()
IN_SCOPE = [r for r in RECORDINGS if r.in_scope and not r.expected["ambiguous"]]
OUT_OF_SCOPE = [r for r in RECORDINGS if not r.in_scope]
FRAMINGS = [("length", ""), ("chunked", ""), ("chunked", "gzip"), ("close", "")]
_OWN_FRAMING = ("content-length", "transfer-encoding", "content-encoding", "host", "connection")


def read_archive(recording: Recording) -> Outcome:
    [outcome] = har.read(recording.as_archive(), ReadingRules())
    return outcome


def read_connection(recording: Recording, framing: str, coding: str, step: int) -> Outcome:
    def lines(headers: dict[str, str]) -> dict[str, str]:
        return {name: value for name, value in headers.items() if name not in _OWN_FRAMING}

    headers = lines(recording.response_headers)
    body = recording.response_body
    if coding:
        headers["content-encoding"], body = coding, gzip.compress(body)
    content_type = headers.pop("content-type", "application/json")
    sent = wire.request(
        recording.host,
        recording.target.replace(" ", "%20"),
        recording.request_body or None,
        headers=lines(recording.request_headers),
        method=recording.method,
    )
    received = wire.response(
        body, status=recording.status, content_type=content_type, headers=headers, framing=framing, chunk=1371
    )
    outcomes = wire.read(sent, received, rules=ReadingRules(), close=True, step=step)
    assert len(outcomes) == 1
    return outcomes[0]


def differences(recording: Recording, outcome: Outcome) -> dict[str, Any]:
    """Fields in which an outcome departs from what is expected: (ours, accepted)."""
    if recording.is_pending:
        return {} if outcome == Dropped("response_pending") else {"outcome": outcome}
    if not isinstance(outcome, Recognised):
        return {"outcome": outcome}
    call = call_to_json(outcome.call)
    usage = call["usage"]
    # An embedding generates nothing, and we say nothing about it where the recordings say 0.
    absent_output = 0 if call["operation"] == "embeddings" else None
    ours = {
        "model_requested": call.get("request_model"),
        "model_response": call.get("response_model"),
        "streaming": call["streaming"],
        "billable": call["billable"],
        "usage_reported": bool(usage["buckets"]),
        "input_tokens": usage.get("input_tokens"),
        "output_tokens": usage.get("output_tokens", absent_output),
        "cached_read_tokens": usage.get("cache_read_input_tokens"),
        "cache_write_tokens": usage.get("cache_write_input_tokens"),
        "reasoning_tokens": usage.get("reasoning_output_tokens"),
    }
    found: dict[str, Any] = {}
    if call["provider"] not in recording.providers:
        found["provider"] = (call["provider"], recording.providers)
    for name, value in ours.items():
        accepted = recording.accepted(name)
        if name == "output_tokens" and call["operation"] == "embeddings" and not usage["buckets"]:
            value = None  # noqa: PLW2901
        if name in ("cached_read_tokens", "cache_write_tokens", "reasoning_tokens"):
            accepted = [count or 0 for count in accepted]
            value = value or 0  # noqa: PLW2901
            if name == "reasoning_tokens":
                # Reported above the output that contains it: disjoint buckets can only hold what fits.
                accepted.append(min(accepted[0], ours["output_tokens"] or 0))
        if value not in accepted:
            found[name] = (value, accepted)
    tier = recording.expected["extra"].get("service_tier")
    if tier and call.get("service_tier") != tier:
        found["service_tier"] = (call.get("service_tier"), tier)
    return found


@pytest.mark.parametrize("recording", IN_SCOPE, ids=lambda recording: recording.name)
def test_archive(recording: Recording) -> None:
    assert differences(recording, read_archive(recording)) == {}


@pytest.mark.parametrize("recording", IN_SCOPE, ids=lambda recording: recording.name)
def test_connection(recording: Recording) -> None:
    for index, (framing, coding) in enumerate(FRAMINGS):
        outcome = read_connection(recording, framing, coding, step=(1 << 30, 997, 4096, 61)[index])
        assert differences(recording, outcome) == {}, (framing, coding)


@pytest.mark.parametrize("recording", OUT_OF_SCOPE, ids=lambda recording: recording.name)
def test_out_of_scope_is_never_a_wrong_call(recording: Recording) -> None:
    outcome = read_archive(recording)
    if isinstance(outcome, Recognised):
        assert differences(recording, outcome) == {}
        return
    assert outcome.reason
    if (
        recording.expected["billable"]
        and recording.method == "POST"
        and recording.providers != {"gateway_proxy"}
    ):
        named = outcome.reason.startswith("dialect_not_supported:")
        # Storage of a cache and a guardrail's check are billed, but they are no operation of a model.
        assert named or any(word in recording.target for word in ("cachedContents", "/apply")), outcome
    assert isinstance(outcome, Failed | Dropped)
