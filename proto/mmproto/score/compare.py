"""Holds what was observed against what is expected, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from mmproto.score import names
from mmproto.score.expected import SUBSETS, TOKENS, TOTALS
from mmproto.score.observed import Observed
from mmproto.score.record import Record

TOKEN_FIELDS: Final = frozenset(TOKENS)
_MODELS: Final = ("model_requested", "model_response")
_WHOLE: Final = {
    "cached_read_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
}


class Difference(NamedTuple):
    """A field, our value and the values that would have been right."""

    field: str
    ours: Any
    expected: Any


def differences(observed: Observed, record: Record) -> list[Difference]:
    """The fields in which the observed differs from every value that is right."""
    return [
        *_outcome(observed),
        *_names(observed, record),
        *_plain(observed, record),
        *_totals(observed, record),
        *_subsets(observed, record),
    ]


def _outcome(observed: Observed) -> Iterator[Difference]:
    if observed.failed:
        yield Difference("outcome", observed.outcome, "a call, or a reason why there is none")


def _names(observed: Observed, record: Record) -> Iterator[Difference]:
    right = names.accepted(record)
    unknowable = not observed.is_call and names.is_anywhere(record) and observed.providers == ("",)
    if not unknowable and not right.intersection(observed.providers):
        yield Difference("provider", _shown(observed.providers), " or ".join(sorted(right)))
    for name in _MODELS:
        if name in record.expected.values:
            ours: tuple[str | None, ...] = getattr(observed, name)
            accepted = _accepted(record, name)
            if not any(value in accepted for value in ours) and name not in names_beyond(observed, record):
                yield Difference(name, _shown(ours), _shown(accepted))


def names_beyond(observed: Observed, record: Record) -> tuple[str, ...]:
    """Model fields of which the record names none, though the exchange itself says what we name.

    The extractor of the records looks into documents: a model in a query or a header it does not see. Such a
    name is right where it literally stands in the exchange, and is counted apart.
    """
    found = []
    for name in _MODELS:
        ours: tuple[str | None, ...] = getattr(observed, name)
        unnamed = name in record.expected.values and set(_accepted(record, name)) == {None}
        if unnamed and all(value is not None and record.says(value) for value in ours):
            found.append(name)
    return tuple(found)


def _plain(observed: Observed, record: Record) -> Iterator[Difference]:
    for name in ("streaming", "usage_reported", "billable"):
        if record.expected.values.get(name) is not None:
            ours, accepted = getattr(observed, name), _accepted(record, name)
            if ours not in accepted:
                yield Difference(name, ours, _shown(accepted))
    tier = record.expected.service_tier
    if tier and observed.is_call and observed.service_tier != tier:
        yield Difference("service_tier", observed.service_tier or None, tier)


def _totals(observed: Observed, record: Record) -> Iterator[Difference]:
    """Input and output, which are right or wrong together: the nearest accepted pair is the one shown."""
    wrong = [
        [
            Difference(name, observed.tokens[name], value)
            for name, value in zip(TOTALS, pair, strict=True)
            if name in record.expected.values and not _is_right(observed, record, name, value)
        ]
        for pair in record.expected.totals
    ]
    yield from min(wrong, key=len)


def _is_right(observed: Observed, record: Record, name: str, value: int | None) -> bool:
    ours = observed.tokens[name]
    if name not in observed.estimated or ours is None:
        return ours == value
    # An estimate is no report: it stands where nothing was reported, or where a cut-off stream had shown no
    # more than a beginning.
    return value is None or (record.aborted and ours >= value)


def _subsets(observed: Observed, record: Record) -> Iterator[Difference]:
    """Cached and reasoning tokens, where not reported and none are the same."""
    for name in SUBSETS:
        if name not in record.expected.values:
            continue
        if observed.calls > 1 and record.expected.values[name] is None:
            continue  # of several calls the records sum the totals only
        accepted = [count or 0 for count in _accepted(record, name)]
        if not observed.exact:
            # Some providers report more of a part than of the whole: disjoint buckets hold what fits, and
            # then no longer say that they are exact.
            accepted.append(min(accepted[0], observed.tokens[_WHOLE[name]] or 0))
        ours = observed.tokens[name]
        if (ours or 0) not in accepted and name not in observed.estimated:
            yield Difference(name, ours, record.expected.values[name])


def _accepted(record: Record, name: str) -> tuple[Any, ...]:
    return (record.expected.values[name], *record.expected.accepted.get(name, ()))


def _shown(values: tuple[Any, ...]) -> Any:
    """One value as it is, several as a text."""
    return values[0] if len(values) == 1 else " or ".join(str(value) for value in values)
