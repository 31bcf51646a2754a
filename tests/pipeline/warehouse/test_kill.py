"""A writer killed at any moment: its batches, sent again under their tokens, are there exactly once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mmpipeline.rating.rated import RatedCall
from mmpipeline.store.warehouse.shapes import Span
from mmpipeline.store.warehouse.warehouse import Warehouse
from tests.pipeline.warehouse.ledger import HOUR_NS, MONDAY_NS, rated

WEEK = Span(MONDAY_NS, MONDAY_NS + 7 * 24 * HOUR_NS)
BATCHES = 40
SIZE = 97

WRITER = """
import sys
from pathlib import Path
from mmpipeline.store.warehouse.warehouse import Warehouse
from tests.pipeline.warehouse.test_kill import BATCHES, batch
warehouse = Warehouse.open(Path(sys.argv[1]))
for number in range(BATCHES):
    print(number, flush=True)
    warehouse.insert(batch(number), f"batch-{number}")
"""


def batch(number: int) -> list[RatedCall]:
    return [
        rated(f"{number}-{n}", at_ns=MONDAY_NS + n * HOUR_NS, user=f"user {n % 7}", team=f"team {n % 3}")
        for n in range(SIZE)
    ]


def test_killed_writers_lose_and_double_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "w"
    root = Path(__file__).parents[3]
    # Each life ends in the middle of a later batch and begins again from the first, as an outbox that
    # was never emptied would.
    for last in (0, 3, 11, 18):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE, text=True, cwd=root
        ) as writer:
            assert writer.stdout is not None
            for line in writer.stdout:
                if int(line) == last:
                    break
            writer.kill()
        assert writer.returncode == -9
    with Warehouse.open(folder) as warehouse:
        for number in range(BATCHES):
            warehouse.insert(batch(number), f"batch-{number}")
        everything = BATCHES * SIZE
        assert warehouse.total("default", WEEK).calls == everything
        assert sum(row.calls for row in warehouse.spend("default", WEEK, ("user", "day"))) == everything
        assert sum(seen.calls for seen in warehouse.observers("default")) == everything
        assert len(warehouse.calls("default", WEEK, limit=5000).calls) == everything
