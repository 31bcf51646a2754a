"""Scores a folder of records."""

from __future__ import annotations

from pathlib import Path

from mmproto.score.coding import CODINGS
from mmproto.score.names import is_named
from mmproto.score.record import UnreadableRecord, read_folder
from mmproto.score.report import Report
from mmproto.score.scoring import score
from mmproto.score.variants import FRAMINGS

EVERY_FRAMING = frozenset(FRAMINGS)
EVERY_CODING = frozenset(CODINGS)


def score_folder(
    folder: Path,
    *,
    framings: frozenset[str] = EVERY_FRAMING,
    codings: frozenset[str] = EVERY_CODING,
    only: str = "",
    seed: int = 0,
) -> Report:
    """Scores every record below `folder`; `only` those of one provider, by the records' name or ours."""
    report = Report()
    for name, record in read_folder(folder):
        if isinstance(record, UnreadableRecord):
            report.unreadable[name] = str(record)
        elif not only or is_named(record, only):
            scored = score(record, framings, codings, seed)
            if scored is None:
                report.left_out.append(name)
            else:
                report.scores.append(scored)
    return report
