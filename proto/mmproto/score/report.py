"""What the scores of a folder come to: tallies by provider, totals, reasons; as a table or as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from mmproto.score.scoring import Score, Verdict

_COLUMNS: Final = ("provider", "records", "exact", "wrong", "missed", "false", "unstable", "ambiguous", "%")
_WIDTH: Final = 60


@dataclass
class Tally:
    """Records of one provider by verdict, the ambiguous ones apart."""

    verdicts: Counter[Verdict] = field(default_factory=Counter)
    ambiguous: int = 0

    def add(self, score: Score) -> None:
        """Counts a record."""
        if score.counts:
            self.verdicts[score.verdict] += 1
        else:
            self.ambiguous += 1

    @property
    def counted(self) -> int:
        """Records that are part of the rate."""
        return self.verdicts.total()

    @property
    def rate(self) -> float | None:
        """Share of exact records, None where none counts."""
        return self.verdicts[Verdict.EXACT] / self.counted if self.counted else None

    def to_json(self) -> dict[str, Any]:
        """Counts by name."""
        return {
            "records": self.counted + self.ambiguous,
            **{_key(verdict): self.verdicts[verdict] for verdict in Verdict},
            "ambiguous": self.ambiguous,
            "rate": None if self.rate is None else round(self.rate, 6),
        }


@dataclass
class Report:
    """The scores of a folder, and what could not be scored: records by name with the reason."""

    scores: list[Score] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # none of the chosen framings can carry them

    @property
    def total(self) -> Tally:
        """All records."""
        tally = Tally()
        for score in self.scores:
            tally.add(score)
        return tally

    @property
    def wrong_as_exact(self) -> list[Score]:
        """Records with a wrong token count that is called EXACT."""
        return [score for score in self.scores if score.counts and score.wrong_as_exact]

    @property
    def beyond(self) -> list[Score]:
        """Exact records of which we name a model and the record does not."""
        return [one for one in self.scores if one.counts and one.beyond and one.verdict is Verdict.EXACT]

    @property
    def passed(self) -> bool:
        """Whether every record could be read and every one that counts is exact."""
        tally = self.total
        unstable = any(score.unstable for score in self.scores)
        return not self.unreadable and not unstable and tally.verdicts[Verdict.EXACT] == tally.counted

    def by_provider(self) -> dict[str, Tally]:
        """Tallies by the records' name of the provider, in order of names."""
        tallies: dict[str, Tally] = {}
        for score in self.scores:
            tallies.setdefault(score.record.expected.provider, Tally()).add(score)
        return dict(sorted(tallies.items()))

    def reasons(self) -> Counter[str]:
        """How often a ground stands behind a verdict that is not exact."""
        return Counter(
            reason
            for score in self.scores
            if score.counts and score.verdict is not Verdict.EXACT
            for reason in dict.fromkeys(_reasons(score))
        )

    def to_json(self) -> dict[str, Any]:
        """The whole report."""
        return {
            "total": self.total.to_json(),
            "wrong_called_exact": [score.record.name for score in self.wrong_as_exact],
            "named_beyond": [score.record.name for score in self.beyond],
            "providers": {name: tally.to_json() for name, tally in self.by_provider().items()},
            "reasons": dict(self.reasons().most_common()),
            "unreadable": self.unreadable,
            "left_out": self.left_out,
            "records": [_record(score) for score in self.scores],
        }

    def lines(self, *, details: bool) -> Iterator[str]:
        """The report for people; `details` names every record that is not exact, with its fields."""
        yield from _table(self)
        yield ""
        tally = self.total
        sent = sum(score.variants for score in self.scores)
        rate = "none" if tally.rate is None else f"{100 * tally.rate:.2f} %"
        exact = tally.verdicts[Verdict.EXACT]
        yield f"exact: {exact} of {tally.counted} records that are not ambiguous ({rate}), in {sent} variants"
        if self.beyond:
            yield f"of these, with a model that the record does not name: {len(self.beyond)}"
        yield f"wrong numbers called EXACT: {len(self.wrong_as_exact)}"
        if self.left_out:
            yield f"left out, because none of the framings carries them: {len(self.left_out)}"
        for name, reason in self.unreadable.items():
            yield f"unreadable: {name}: {reason}"
        reasons = self.reasons().most_common()
        if reasons:
            yield ""
            yield "reasons"
            yield from (f"{count:6}  {reason}" for reason, count in reasons)
        if details:
            yield from self._details()

    def _details(self) -> Iterator[str]:
        for score in self.scores:
            if score.verdict is Verdict.EXACT:
                continue
            note = "" if score.counts else ", ambiguous"
            note += ", WRONG NUMBER CALLED EXACT" if score.wrong_as_exact else ""
            record = score.record
            yield ""
            yield f"{record.name}: {score.verdict}{note}"
            yield f"    {record.method} {record.host}{_cut(record.target)}"
            yield f"    {score.observed.outcome} {'/'.join(score.observed.qualities)}".rstrip()
            for field_name, ours, expected in score.differences:
                yield f"    {field_name}: {_cut(ours)}, expected {_cut(expected)}"
            for variant, (field_name, ours, first) in score.unstable:
                yield f"    {variant}: {field_name} {_cut(ours)}, first {_cut(first)}"


def _table(report: Report) -> Iterator[str]:
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for name, tally in [*report.by_provider().items(), ("total", report.total)]:
        share = "" if tally.rate is None else f"{100 * tally.rate:.1f}"
        counts = (str(tally.verdicts[verdict] or "-") for verdict in Verdict)
        rows.append((name, str(tally.counted + tally.ambiguous), *counts, str(tally.ambiguous or "-"), share))
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    for row in rows:
        first, *rest = (
            cell.ljust(widths[0]) if not index else cell.rjust(widths[index])
            for index, cell in enumerate(row)
        )
        yield "  ".join([first, *rest])


def _reasons(score: Score) -> list[str]:
    provider = score.record.expected.provider
    if score.verdict is Verdict.UNSTABLE:
        return [f"unstable: over {way.framing}/{way.coding} ({provider})" for way, _ in score.unstable]
    if score.verdict is Verdict.MISSED:
        return [f"missed: {score.observed.outcome} ({provider})"]
    return [f"{score.verdict}: {one.field} ({provider})" for one in score.differences]


def _record(score: Score) -> dict[str, Any]:
    return {
        "id": score.record.name,
        "provider": score.record.expected.provider,
        "verdict": _key(score.verdict),
        "ambiguous": not score.counts,
        "outcome": score.observed.outcome,
        "quality": list(score.observed.qualities),
        "named_beyond": list(score.beyond),
        "wrong_called_exact": score.wrong_as_exact,
        "variants": score.variants,
        "differences": [one._asdict() for one in score.differences],
        "unstable": [{"variant": str(way), **change._asdict()} for way, change in score.unstable],
    }


def _key(verdict: Verdict) -> str:
    return verdict.replace(" ", "_")


def _cut(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 3]}..."
