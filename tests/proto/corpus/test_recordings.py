"""Real exchanges, field by field, in every framing, coding and cut; and as archives.

The bar: 99.5 % of those that are not ambiguous are exact, none depends on how it was sent, and no wrong
number is called exact.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from tests.proto.corpus.recordings import FOLDER, as_archive, load

from mmproto import har
from mmproto.exchange import ReadingRules
from mmproto.score.compare import TOKEN_FIELDS, Difference, differences
from mmproto.score.folder import score_folder
from mmproto.score.observed import observe
from mmproto.score.report import Report
from mmproto.score.scoring import Verdict

pytestmark = [pytest.mark.corpus, pytest.mark.timeout(1200)]

BAR = 0.995
FOLDERS = [FOLDER] if FOLDER.is_dir() else []


@cache
def scored(folder: Path) -> Report:
    return score_folder(folder)


def told(report: Report) -> str:
    return "\n".join(report.lines(details=True))


@pytest.mark.parametrize("folder", FOLDERS)
def test_nearly_all_are_exact(folder: Path) -> None:
    report = scored(folder)
    assert not report.unreadable and not report.left_out
    counted = [score for score in report.scores if score.counts]
    exact = [score for score in counted if score.verdict is Verdict.EXACT]
    assert len(exact) >= BAR * len(counted), told(report)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_wrong_number_is_called_exact(folder: Path) -> None:
    report = scored(folder)
    assert not report.wrong_as_exact, told(report)


@pytest.mark.parametrize("folder", FOLDERS)
def test_none_depends_on_how_it_was_sent(folder: Path) -> None:
    report = scored(folder)
    assert not [score.record.name for score in report.scores if score.unstable], told(report)


@pytest.mark.parametrize("folder", FOLDERS)
def test_archives_are_read_as_well(folder: Path) -> None:
    records = [one for one in load(folder) if not (one.expected.ambiguous or one.is_websocket or one.is_grpc)]
    wrong: dict[str, list[Difference]] = {}
    called_exact: list[str] = []
    for record in records:
        observed = observe([*har.read(as_archive(record), ReadingRules())], record)
        found = differences(observed, record)
        if found:
            wrong[record.name] = found
        if observed.exact and any(one.field in TOKEN_FIELDS for one in found):
            called_exact.append(record.name)
    assert len(wrong) <= (1 - BAR) * len(records), wrong
    assert not called_exact
