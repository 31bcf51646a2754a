"""`ledger verify` on the warehouse: roll-ups against charges, with what is still on its way counted in."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete

from mmpipeline.api.app import create_app
from mmpipeline.rating.rated import RatedCall
from mmpipeline.store.control.tables import outbox
from mmpipeline.verify.findings import Difference, Findings
from mmpipeline.verify.run import verify
from mmproto.v1.call_pb2 import Call
from tests.pipeline.calls import COST, batch, call_id, make_call
from tests.pipeline.running import NOW_NS, Pipeline, pipeline

RNG = random.Random(13)
_DAY_NS = 86_400 * 10**9


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Pipeline]:
    with pipeline(tmp_path) as opened:
        opened.take(made(3))
        opened.take(made(2, at=NOW_NS - _DAY_NS, user="ann"))
        opened.take(made(1, request_model="gpt-99"))
        opened.take(made(4, tenant="other"))
        yield opened


def made(calls: int, at: int = NOW_NS, **fields: Any) -> list[Call]:
    return [make_call(call_id(RNG), at=at, **fields) for _ in range(calls)]


def found(running: Pipeline) -> Findings:
    """Without waiting: nothing moves here unless the test says so."""
    services = running.services
    return verify(services.control, services.warehouse, (), NOW_NS, lambda _: None)


def test_what_agrees_is_silent(running: Pipeline) -> None:
    findings = found(running)
    assert (findings.differences, findings.not_compared) == ([], [])
    assert findings.compared["warehouse usage_daily"] == 3


def test_rows_that_wait_are_counted_in(running: Pipeline) -> None:
    ingest = running.services.ingest
    assert ingest is not None
    ingest.ingest(batch([*made(5), *made(1, request_model="gpt-99"), *made(7, tenant="third")]))
    findings = found(running)
    assert (findings.differences, findings.not_compared) == ([], [])
    assert findings.tenants == ("default", "other", "third")


def test_rows_that_never_arrived_are_found(running: Pipeline) -> None:
    ingest = running.services.ingest
    assert ingest is not None
    ingest.ingest(batch([*made(2), *made(1, request_model="gpt-99")]))
    with running.services.control.write() as connection:
        connection.execute(delete(outbox))
    differences = found(running).differences
    daily = [d for d in differences if d.subject == "usage_daily 2026-11-23"]
    assert daily == [
        Difference("warehouse", "default", "usage_daily 2026-11-23", "cost_usd", "0.0075", "0.0125"),
        Difference("warehouse", "default", "usage_daily 2026-11-23", "calls", 4, 7),
        Difference("warehouse", "default", "usage_daily 2026-11-23", "unpriced_calls", 1, 2),
    ]
    tables = {d.subject.split()[0] for d in differences}
    assert tables == {"usage_daily", "usage_hourly", "users_daily", "processes_daily"}
    assert {d.subject.split()[1] for d in differences} == {"2026-11-23"}


def test_rows_that_nobody_charged_are_found(running: Pipeline) -> None:
    call = make_call(call_id(RNG), at=NOW_NS - 40 * _DAY_NS, tenant="other")
    running.services.warehouse.insert([RatedCall(call, 1, COST, "", "card")], "stray")
    differences = found(running).differences
    assert {(d.tenant, d.subject.split()[1]) for d in differences} == {("other", "2026-10-14")}
    assert ("calls", 1, 0) in {(d.field, d.kept, d.charged) for d in differences}


def test_a_day_that_moves_while_it_is_looked_at_settles_or_is_said(running: Pipeline) -> None:
    services = running.services
    assert services.ingest is not None

    def lose() -> None:
        services.ingest.ingest(batch(made(1)))  # type: ignore[union-attr]
        with services.control.write() as connection:
            connection.execute(delete(outbox))

    call = make_call(call_id(RNG), at=NOW_NS)
    services.warehouse.insert([RatedCall(call, 1, COST, "", "card")], "early")
    # At the first look the warehouse has a call that the ledger has not; at the second both have it.
    settled = verify(
        services.control,
        services.warehouse,
        (),
        NOW_NS,
        lambda _: services.warehouse.insert([RatedCall(call, -1, COST, "", "card")], "taken back"),
    )
    assert (settled.differences, settled.not_compared) == ([], [])
    lose()
    moving = verify(services.control, services.warehouse, (), NOW_NS, lambda _: lose())
    assert moving.differences == []
    assert len(moving.not_compared) == 4
    assert all("faster than they can be compared" in said for said in moving.not_compared)


def test_a_running_pipeline_is_asked(running: Pipeline) -> None:
    client = TestClient(create_app(running.services), base_url="http://127.0.0.1")
    form = client.get("/v1/ledger/verify").json()
    assert (form["agrees"], form["tenants"]) == (True, ["default", "other"])
    assert client.get("/v1/ledger/verify", params={"tenant": "other"}).json()["tenants"] == ["other"]
