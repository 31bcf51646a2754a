"""The warehouse over HTTP: what a server adds to chDB's failures, and that its password is never shown."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmlocal.services.clickhouse import ClickHouseStandIn
from mmpipeline.config import Warehouse as WarehouseSettings
from mmpipeline.rating.rated import RatedCall
from mmpipeline.store.warehouse.errors import WarehouseAway, WarehouseError, WarehouseFailed
from mmpipeline.store.warehouse.shapes import Span
from mmpipeline.store.warehouse.warehouse import Warehouse
from mmproto.settings import Secret
from tests.pipeline.warehouse.ledger import HOUR_NS, MONDAY_NS, rated
from tests.pipeline.warehouse.test_kill import SIZE as OTHER_SIZE

WEEK = Span(MONDAY_NS, MONDAY_NS + 7 * 24 * HOUR_NS)
BATCHES = 12
SIZE = 50


def at(url: str) -> WarehouseSettings:
    return WarehouseSettings(url=Secret(url))


def batch(number: int) -> list[RatedCall]:
    return [rated(f"{number}-{n}", at_ns=MONDAY_NS + n * HOUR_NS, user=f"user {n % 7}") for n in range(SIZE)]


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ClickHouseStandIn]:
    """A stand-in of the test's own, to be hurt."""
    service = ClickHouseStandIn(tmp_path / "own")
    service.start()
    yield service
    service.stop()


def test_two_processes_use_one_warehouse(tmp_path: Path, warehouse_url: str) -> None:
    """The sink inserts, the API reads."""
    program = (
        "import sys; from pathlib import Path\n"
        "from mmpipeline.config import Warehouse as Settings\n"
        "from mmpipeline.store.warehouse.warehouse import Warehouse\n"
        "from mmproto.settings import Secret\n"
        "from tests.pipeline.warehouse.test_kill import batch\n"
        "with Warehouse.open(Path('unused'), Settings(url=Secret(sys.stdin.read()))) as warehouse:\n"
        "    warehouse.insert(batch(0), 'one')\n"
    )
    with Warehouse.open(tmp_path, at(warehouse_url)) as warehouse:
        subprocess.run(
            [sys.executable, "-c", program],
            input=warehouse_url,
            text=True,
            check=True,
            cwd=Path(__file__).parents[3],
        )
        assert warehouse.total("default", WEEK).calls == OTHER_SIZE
    assert not list(tmp_path.iterdir())


def test_a_server_killed_at_any_moment_has_every_batch_once(own: ClickHouseStandIn, tmp_path: Path) -> None:
    """Whoever delivers repeats what failed, under its token, until it is taken."""
    with Warehouse.open(tmp_path, at(own.url)) as warehouse:
        for number in range(BATCHES):
            if number % 4 == 3:
                own.kill()
                with pytest.raises(WarehouseAway, match="cannot be reached"):
                    warehouse.insert(batch(number), f"batch-{number}")
                own.start()
            warehouse.insert(batch(number), f"batch-{number}")
        own.kill()
        own.start()
        for number in range(BATCHES):
            warehouse.insert(batch(number), f"batch-{number}")
        everything = BATCHES * SIZE
        assert warehouse.total("default", WEEK).calls == everything
        assert sum(row.calls for row in warehouse.spend("default", WEEK, ("user", "day"))) == everything
        assert sum(seen.calls for seen in warehouse.observers("default")) == everything
        assert len(warehouse.calls("default", WEEK, limit=5000).calls) == everything


def test_a_server_that_is_away_is_no_failure(own: ClickHouseStandIn, tmp_path: Path) -> None:
    with Warehouse.open(tmp_path, at(own.url)) as warehouse:
        own.kill()
        with pytest.raises(WarehouseAway) as away:
            warehouse.total("default", WEEK)
        assert str(own.port) in str(away.value)
        with pytest.raises(WarehouseAway):
            Warehouse.open(tmp_path, at(own.url))
        own.start()
        assert warehouse.total("default", WEEK).calls == 0


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda url: url.replace("modelmeter:", "modelmeter:not-"), id="password"),
        pytest.param(lambda url: url.replace("127.0.0.1", "127.0.0.1:1").replace(":1:", ":1#"), id="host"),
        pytest.param(lambda url: url.replace("http:", "clickhouse:"), id="scheme"),
        pytest.param(lambda url: url.rpartition(":")[0] + ":none/db", id="port"),
        pytest.param(lambda url: url.rpartition(":")[0] + ":1/db", id="nobody there"),
    ],
)
def test_what_is_wrong_with_the_address_is_said_without_the_password(
    clickhouse: ClickHouseStandIn, wrong: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(wrong)
    url = wrong(clickhouse.url)
    secret = clickhouse.url.split("@")[0].rpartition(":")[2]
    with caplog.at_level(logging.DEBUG), pytest.raises(WarehouseError) as refused:
        Warehouse.open(Path("unused"), at(url))
    assert secret not in str(refused.value)
    assert secret not in caplog.text


def test_a_statement_that_is_refused_is_a_failure(clickhouse: ClickHouseStandIn, warehouse_url: str) -> None:
    with Warehouse.open(Path("unused"), at(warehouse_url)) as warehouse:
        with pytest.raises(WarehouseFailed, match="calls"):
            warehouse.insert_blocks([b"\x01\x01\x01x\x05Int64" + bytes(8)], "token")
        with pytest.raises(WarehouseFailed):
            warehouse._engine.read_meta("SELECT nothing FROM nowhere")
