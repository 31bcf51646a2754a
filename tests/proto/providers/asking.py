"""One exchange with a provider, read whole and in small pieces: both must come to the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tests.proto import wire

from mmproto.callform import call_to_json
from mmproto.outcome import Dropped, Failed, Outcome, Recognised
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import QUALITY_PARTIAL, QUALITY_UNKNOWN

STEP: Final = 13
NDJSON: Final = "application/x-ndjson"
SSE: Final = "text/event-stream"


def lines(documents: list[Any]) -> bytes:
    """JSON lines."""
    return b"".join(wire.dump(document) + b"\n" for document in documents)


def outcomes(
    host: str,
    path: str,
    request: Any,
    answer: Any,
    *,
    method: str = "POST",
    status: int = 200,
    kind: str = "application/json",
    headers: Mapping[str, str] | None = None,
    asked: Mapping[str, str] | None = None,
    cut: bool = False,
) -> list[Outcome]:
    """What comes of a request and its answer; `cut`: the connection closes where the answer's bytes end."""
    sent = wire.request(host, path, request, method=method, headers=asked)
    received = wire.response(
        answer, status=status, content_type=kind, headers=headers, framing="close" if cut else "chunked"
    )
    whole = wire.read(sent, received, close=True)
    pieces = wire.read(sent, received, close=True, step=STEP)
    assert [plain(outcome) for outcome in pieces] == [plain(outcome) for outcome in whole]
    return whole


def plain(outcome: Outcome) -> Any:
    """An outcome without what is only a matter of time."""
    if isinstance(outcome, Recognised):
        form = call_to_json(outcome.call)
        return {
            name: value for name, value in form.items() if not name.endswith(("_s", "_at"))
        }, outcome.anomalies
    return outcome


def calls(*args: Any, **options: Any) -> list[Call]:
    """The calls of an exchange that was nothing else, with what was reported."""
    found = outcomes(*args, **options)
    assert all(isinstance(outcome, Recognised) for outcome in found), found
    return [without_estimates(outcome.call) for outcome in found if isinstance(outcome, Recognised)]


def without_estimates(call: Call) -> Call:
    """The call with the usage that its provider reported, without what was estimated in its place."""
    made = Call()
    made.CopyFrom(call)
    usage = made.usage
    for bucket in usage.estimated:
        usage.tokens.pop(bucket, None)
        usage.units.pop(bucket, None)
    if usage.estimated:
        usage.quality = QUALITY_PARTIAL if usage.tokens or usage.units else QUALITY_UNKNOWN
    usage.ClearField("estimated")
    return made


def call(*args: Any, **options: Any) -> Call:
    """The one call of an exchange."""
    found = calls(*args, **options)
    assert len(found) == 1, found
    return found[0]


def reason(*args: Any, **options: Any) -> str:
    """Why an exchange is no call."""
    [outcome] = outcomes(*args, **options)
    assert isinstance(outcome, Dropped | Failed), outcome
    return outcome.reason


def counted(call: Call) -> tuple[dict[str, int], dict[str, float]]:
    """Tokens and units of a call."""
    return dict(call.usage.tokens), dict(call.usage.units)
