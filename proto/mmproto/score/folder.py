"""Scores a folder of records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mmproto.score.names import is_named
from mmproto.score.record import Record, UnreadableRecord, read_folder
from mmproto.score.report import Report
from mmproto.score.scoring import score


def score_folder(folder: Path, framings: frozenset[str], *, only: str = "", seed: int = 0) -> Report:
    """Scores every record below `folder`; `only` those of one provider, by the records' name or ours."""
    return score_records(read_folder(folder), framings, only=only, seed=seed)


def score_records(
    records: Iterable[tuple[str, Record | UnreadableRecord]],
    framings: frozenset[str],
    *,
    only: str = "",
    seed: int = 0,
) -> Report:
    """Scores named records."""
    report = Report()
    for name, record in records:
        if isinstance(record, UnreadableRecord):
            report.unreadable[name] = str(record)
        elif not only or is_named(record, only):
            scored = score(record, framings, seed)
            if scored is None:
                report.left_out.append(name)
            else:
                report.scores.append(scored)
    return report
