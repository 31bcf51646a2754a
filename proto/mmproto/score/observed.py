"""What the reading of one connection came to: its calls summed up, in the fields of a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from mmproto import usage
from mmproto.outcome import Dropped, Failed, Outcome, Recognised
from mmproto.providers import hosts
from mmproto.score.record import Record
from mmproto.v1.call_pb2 import Call
from mmproto.v1.usage_pb2 import QUALITY_EXACT, Quality

T = TypeVar("T")

NOTHING: Final = "no outcome"

_BUCKETS: Final = {
    "input_tokens": usage.INPUT_BUCKETS,
    "output_tokens": usage.OUTPUT_BUCKETS,
    "cached_read_tokens": usage.CACHE_READ_BUCKETS,
    "cache_write_tokens": usage.CACHE_WRITE_BUCKETS,
    "reasoning_tokens": usage.REASONING_BUCKETS,
}
# What these make is no text: there are no tokens to report.
_NO_OUTPUT: Final = frozenset({"embeddings", "rerank"})


@dataclass(frozen=True, slots=True)
class Observed:
    """The outcome of a record. Several calls (lines of a batch, answers of a session) are summed.

    Names are tuples: of calls that differ in a name, each has its say.
    """

    outcome: str  # "call", or why there is none
    calls: int = 0
    failed: bool = False  # something was lost, or cannot be known
    providers: tuple[str, ...] = ()
    model_requested: tuple[str | None, ...] = (None,)
    model_response: tuple[str | None, ...] = (None,)
    streaming: bool = False
    billable: bool = False
    usage_reported: bool = False
    tokens: dict[str, int | None] = field(default_factory=lambda: dict.fromkeys(_BUCKETS))
    estimated: frozenset[str] = frozenset()  # fields whose tokens are, in part at least, our estimate
    exact: bool = False  # at least one call says that its numbers are final
    qualities: tuple[str, ...] = ()
    service_tier: str = ""

    @property
    def is_call(self) -> bool:
        """Whether at least one call came out."""
        return bool(self.calls)


def observe(outcomes: Sequence[Outcome], record: Record) -> Observed:
    """Sums up the outcomes of the connection that carried `record` alone."""
    calls = [outcome.call for outcome in outcomes if isinstance(outcome, Recognised)]
    if calls:
        return _of_calls(calls)
    if not outcomes:
        return Observed(NOTHING, failed=True)
    outcome = outcomes[0]
    if isinstance(outcome, Dropped):
        return _of_dropped(outcome, record)
    assert isinstance(outcome, Failed)  # noqa: S101 - what is left of the union
    return Observed(f"failed: {outcome.reason}", failed=True, providers=(provider_at(record),))


def provider_at(record: Record) -> str:
    """The provider at the host of a record, "" where no table knows it."""
    known = hosts.find(hosts.without_port(record.host))
    path = record.target.partition("?")[0]
    return hosts.provider_at(known, path) if known else hosts.provider_by_port(record.host)


def _of_calls(calls: Sequence[Call]) -> Observed:
    first = calls[0]
    reported = [_reported(call) for call in calls]
    tokens = {
        name: _sum([usage.total(call.usage.tokens, buckets) for call in calls])
        for name, buckets in _BUCKETS.items()
    }
    if tokens["output_tokens"] is None and any(reported) and first.operation in _NO_OUTPUT:
        tokens["output_tokens"] = 0
    guessed = {bucket for call in calls for bucket in call.usage.estimated}
    return Observed(
        outcome="call",
        calls=len(calls),
        providers=_distinct([call.provider for call in calls]),
        model_requested=_distinct([call.request_model or None for call in calls]),
        model_response=_distinct([call.response_model or None for call in calls]),
        streaming=first.streaming,
        billable=any(call.billable for call in calls),
        usage_reported=any(reported),
        tokens=tokens,
        estimated=frozenset(name for name, buckets in _BUCKETS.items() if guessed.intersection(buckets)),
        exact=any(call.usage.quality == QUALITY_EXACT for call in calls),
        qualities=_distinct([Quality.Name(call.usage.quality).removeprefix("QUALITY_") for call in calls]),
        service_tier=first.service_tier,
    )


def _of_dropped(dropped: Dropped, record: Record) -> Observed:
    """An exchange that costs nothing: no bill holds its numbers, whatever they are."""
    call = dropped.call or Call()
    return Observed(
        outcome=f"dropped: {dropped.reason}",
        providers=(call.provider or provider_at(record),),
        model_requested=(call.request_model or None,),
        model_response=(call.response_model or None,),
        streaming=call.streaming,
    )


def _reported(call: Call) -> bool:
    """Whether the provider itself gave a count of tokens."""
    return bool(set(call.usage.tokens) - set(call.usage.estimated))


def _sum(counts: Sequence[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def _distinct(values: Sequence[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))
