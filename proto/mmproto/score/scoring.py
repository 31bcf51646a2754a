"""The verdict on one record: sent in every way there is, and compared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from mmproto.score.compare import TOKEN_FIELDS, Difference, differences, names_beyond
from mmproto.score.observed import Observed, observe
from mmproto.score.record import Record
from mmproto.score.replay import read
from mmproto.score.variants import Variant, variants_of


class Verdict(StrEnum):
    """What a record came to."""

    EXACT = "exact"
    WRONG = "wrong"
    MISSED = "missed"  # it cost money, and no call came out
    FALSE = "falsely found"  # a call that costs money came out where none is
    UNSTABLE = "unstable"  # it depends on the framing, the coding or the cuts


@dataclass(frozen=True, slots=True)
class Score:
    """A record's verdict with its grounds."""

    record: Record
    verdict: Verdict
    observed: Observed  # of the plainest way
    differences: tuple[Difference, ...]
    variants: int
    unstable: tuple[tuple[Variant, Difference], ...] = ()
    beyond: tuple[str, ...] = ()  # models that we name and the record does not, as the exchange says
    wrong_as_exact: bool = False  # a token count is wrong though its quality says EXACT

    @property
    def counts(self) -> bool:
        """Whether the record is part of the rate."""
        return not self.record.expected.ambiguous


def score(record: Record, framings: frozenset[str], codings: frozenset[str], seed: int) -> Score | None:
    """Scores a record; None where none of `framings` and `codings` can carry it."""
    ways = variants_of(record, framings, codings)
    if not ways:
        return None
    results = [(way, _sent(record, way, seed)) for way in ways]
    first = results[0][1]
    found = tuple(differences(first, record))
    unstable = tuple((way, change) for way, other in results[1:] for change in _changes(first, other))
    return Score(
        record=record,
        verdict=Verdict.UNSTABLE if unstable else _verdict(first, found, record),
        observed=first,
        differences=found,
        variants=len(ways),
        unstable=unstable,
        beyond=names_beyond(first, record),
        wrong_as_exact=any(
            result.exact and any(one.field in TOKEN_FIELDS for one in differences(result, record))
            for result in {id(first): first, **{id(r): r for _, r in results if r != first}}.values()
        ),
    )


def _sent(record: Record, variant: Variant, seed: int) -> Observed:
    turns, rng = variant.write(record, seed)
    return observe(read(turns, variant.cut, rng), record)


def _verdict(observed: Observed, found: Iterable[Difference], record: Record) -> Verdict:
    expected = record.expected
    if expected.billable and not observed.is_call:
        return Verdict.MISSED
    if observed.billable and not expected.billable:
        return Verdict.FALSE
    return Verdict.WRONG if any(True for _ in found) else Verdict.EXACT


def _changes(first: Observed, other: Observed) -> list[Difference]:
    """In which fields another way of sending came to another result."""
    if first == other:
        return []
    changed = [
        Difference(name, getattr(other, name), getattr(first, name))
        for name in Observed.__dataclass_fields__
        if name != "tokens" and getattr(first, name) != getattr(other, name)
    ]
    tokens = [
        Difference(name, other.tokens[name], count)
        for name, count in first.tokens.items()
        if other.tokens[name] != count
    ]
    return changed + tokens
