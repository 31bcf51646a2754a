"""The soak (`make soak`), shortened: what comes to light in ten minutes may not in these seconds."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.soak.run import soak

pytestmark = pytest.mark.capture


def test_nothing_is_lost_unseen_and_nothing_is_kept(tmp_path: Path) -> None:
    outcome = soak(tmp_path, seconds=20)
    print(outcome.report())
    assert outcome.sent
    assert outcome.problems() == []
