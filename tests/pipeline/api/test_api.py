from __future__ import annotations

import re
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from starlette.testclient import TestClient

from mmpipeline.api.app import create_app
from mmpipeline.store.control.database import Database
from mmproto.callform import parse_time
from tests.pipeline.running import INGEST_TOKEN, Pipeline
from tests.pipeline.samples import sample
from tests.services.postgresql import MakeDatabase

PROBLEM = "application/problem+json"
MONEY = re.compile(r"\d+(\.\d{1,9})?")


def get(client: TestClient, path: str, **parameters: Any) -> Any:
    response = client.get(path, params=parameters)
    assert response.status_code == 200, response.text
    return response.json()


def refused(client: TestClient, status: int, path: str, **parameters: Any) -> Any:
    response = client.get(path, params=parameters)
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == PROBLEM
    form = response.json()
    assert form["status"] == status
    assert form["title"]
    assert form["detail"]
    return form


def test_spend_by_team_and_model(client: TestClient) -> None:
    form = get(client, "/v1/spend", group_by="team,model", **{"from": "2026-11-01"})
    costs = {(row["group"]["team"], row["group"]["model"]): row["cost_usd"] for row in form["rows"]}
    # 1000 input and 100 output tokens: gpt-4o-mini at 0.15 and 0.60, gpt-4o at 2.50 and 10 USD a million.
    assert costs == {
        ("", "gpt-4o-mini"): "0.00021",
        ("billing", "gpt-4o"): "0.0175",
        ("search", "gpt-4o-mini"): "0.0021",
        ("search", "in-house-model"): None,
    }
    assert form["total"]["cost_usd"] == "0.01981"
    assert form["total"]["calls"] == 18
    assert form["total"]["unpriced_calls"] == 1
    assert form["total"]["errors"] == 1
    assert form["currency"] == "USD"
    assert form["from"] == "2026-11-01T00:00:00Z"


def test_money_is_a_decimal_string_and_the_parts_add_up(client: TestClient) -> None:
    for group_by in ("team", "day", "application,provider", "user", "process,node", "hour,model"):
        form = get(client, "/v1/spend", group_by=group_by, **{"from": "2026-11-01", "to": "2026-11-24"})
        costs = [row["cost_usd"] for row in form["rows"] if row["cost_usd"] is not None]
        assert all(MONEY.fullmatch(cost) for cost in costs)
        assert sum(map(Decimal, costs)) == Decimal(form["total"]["cost_usd"])
        assert sum(row["calls"] for row in form["rows"]) == form["total"]["calls"]


def test_spend_pages_join(client: TestClient) -> None:
    whole = get(client, "/v1/spend", group_by="day,team", **{"from": "2026-11-01"})["rows"]
    rows: list[Any] = []
    cursor = None
    while True:
        page = get(
            client,
            "/v1/spend",
            group_by="day,team",
            limit=3,
            **{"from": "2026-11-01"},
            **({"cursor": cursor} if cursor else {}),
        )
        rows += page["rows"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert rows == whole


def test_filters_and_tenants(client: TestClient) -> None:
    assert get(client, "/v1/spend", team="billing")["total"]["calls"] == 5
    assert get(client, "/v1/spend", team="")["total"]["calls"] == 1
    assert get(client, "/v1/spend", tenant="other")["total"]["calls"] == 1
    assert get(client, "/v1/spend", tenant="nobody")["rows"] == []


def test_calls_are_in_the_form_of_the_contract_with_their_charge(client: TestClient) -> None:
    form = get(client, "/v1/calls", team="billing", limit=1)
    call = form["calls"][0]
    assert call["usage"]["buckets"] == {"input": 1000, "output": 100}
    assert call["usage"]["quality"] == "EXACT"
    assert call["cost_usd"] == "0.0035"
    assert call["rate_card"]
    assert call["process"] == {"pid": 4242, "command": "python3"}
    assert "unpriced_reason" not in call
    assert "time_to_first_token_s" not in call
    assert parse_time(call["started_at"])
    assert get(client, f"/v1/calls/{call['id']}") == call


def test_a_call_without_a_price_says_why(client: TestClient) -> None:
    call = get(client, "/v1/calls", model="in-house-model")["calls"][0]
    assert call["cost_usd"] is None
    assert call["unpriced_reason"] == "unknown_model"
    assert "rate_card" not in call


def test_pages_of_calls_join(client: TestClient) -> None:
    whole = [call["id"] for call in get(client, "/v1/calls", limit=1000)["calls"]]
    assert len(whole) == 18
    seen: list[str] = []
    cursor = None
    while True:
        page = get(client, "/v1/calls", limit=4, **({"cursor": cursor} if cursor else {}))
        seen += [call["id"] for call in page["calls"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == whole


@pytest.mark.parametrize(
    ("parameters", "parameter", "hint"),
    [
        ({"group_by": "tam"}, "group_by", "team, application"),
        ({"group_by": "team,team"}, "group_by", "twice"),
        ({"from": "yesterday"}, "from", "2026-11-23"),
        ({"from": "2026-11-23T10:15:00Z"}, "from", "whole hour"),
        ({"from": "2026-11-23", "to": "2026-11-22"}, "from", "before"),
        ({"to": "9999-99-99"}, "to", "expected"),
        ({"cursor": "!!!"}, "cursor", "next_cursor"),
        ({"cursor": "WzFd"}, "cursor", "next_cursor"),
        ({"limit": "0"}, "limit", "greater than"),
        ({"limit": "many"}, "limit", "integer"),
    ],
)
def test_a_wrong_parameter_is_named_and_explained(
    client: TestClient, parameters: dict[str, str], parameter: str, hint: str
) -> None:
    form = refused(client, 400, "/v1/spend", **parameters)
    assert form["parameter"] == parameter
    assert hint in form["detail"]


def test_what_is_not_kept_is_refused(client: TestClient) -> None:
    form = refused(client, 400, "/v1/spend", group_by="hour,user")
    assert "whole days" in form["detail"]


def test_what_is_not_there(client: TestClient) -> None:
    assert "no call" in refused(client, 404, "/v1/calls/nothing")["detail"]
    assert "no call" in refused(client, 404, f"/v1/calls/{sample('search 1').id}", tenant="other")["detail"]
    assert "/v1/openapi.json" in refused(client, 404, "/v2/spend")["detail"]
    assert refused(client, 404, "/v1/budgets/none")["detail"]
    response = client.post("/v1/spend")
    assert response.status_code == 405
    assert response.headers["content-type"] == PROBLEM


def test_a_budget_is_set_read_changed_and_removed(running: Pipeline, client: TestClient) -> None:
    token = {"authorization": f"Bearer {running.admin_token}"}
    body = {
        "limit_usd": "0.02",
        "scope": {"team": "billing"},
        "thresholds": [{"percent": 80, "action": "alert"}, {"percent": 100, "action": "block"}],
    }
    made = client.put("/v1/budgets/billing", json=body, headers=token)
    assert made.status_code == 200, made.text
    form = made.json()
    assert (form["limit_usd"], form["spent_usd"], form["percent"]) == ("0.02", "0.0175", 87.5)
    assert form["state"] == "open"
    assert [crossed["percent"] for crossed in form["crossed"]] == [80]
    assert get(client, "/v1/budgets")["budgets"] == [get(client, "/v1/budgets/billing")]

    client.put("/v1/budgets/billing", json=body | {"limit_usd": "0.01"}, headers=token)
    assert get(client, "/v1/budgets/billing")["state"] == "blocked"

    assert client.delete("/v1/budgets/billing", headers=token).status_code == 204
    assert client.delete("/v1/budgets/billing", headers=token).status_code == 404
    assert get(client, "/v1/budgets")["budgets"] == []


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": f"Bearer {INGEST_TOKEN}"}, {"authorization": "Basic eDp5"}]
)
def test_writing_needs_the_admin_token(client: TestClient, headers: dict[str, str]) -> None:
    for response in (
        client.put("/v1/budgets/b", json={"limit_usd": "1"}, headers=headers),
        client.delete("/v1/budgets/b", headers=headers),
    ):
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert "admin.token" in response.json()["detail"]


def test_the_admin_token_is_its_owners_alone(running: Pipeline) -> None:
    assert (running.folder / "admin.token").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"limit_usd": 5},
        {"limit_usd": "-5"},
        {"limit_usd": "1e9"},
        {"limit_usd": "5", "period": "fortnight"},
        {"limit_usd": "5", "scope": {"planet": "earth"}},
        {"limit_usd": "5", "thresholds": [{"percent": 0, "action": "alert"}]},
        {"limit_usd": "5", "colour": "red"},
        [],
    ],
)
def test_a_budget_that_cannot_be_is_refused(running: Pipeline, client: TestClient, body: Any) -> None:
    token = {"authorization": f"Bearer {running.admin_token}"}
    response = client.put("/v1/budgets/b", json=body, headers=token)
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == PROBLEM


def test_status_says_how_it_is(client: TestClient) -> None:
    form = get(client, "/v1/status")
    assert form["verdict"] == "degraded"
    assert form["ledger"]["unpriced_calls"] == 1
    assert form["observers"][0]["node"] == "node-1"
    assert form["tables"]["calls"]["rows"] >= 20


def test_probes_and_metrics(client: TestClient) -> None:
    assert client.get("/livez").text == "ok\n"
    assert client.get("/readyz").text == "ok\n"
    text = client.get("/metrics").text
    assert (
        'modelmeter_unpriced_calls{provider="openai",model="in-house-model",reason="unknown_model"} 1' in text
    )
    for line in text.splitlines():
        assert re.fullmatch(r"# (HELP|TYPE) \S+ .+|[a-z_]+(\{.*\})? -?\d+(\.\d+)?", line), line


@pytest.mark.parametrize("host", ["127.0.0.1:8780", "localhost:1", "[::1]:8780", "10.1.2.3", "mm.localhost"])
def test_addresses_and_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/livez", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8780", "127.0.0.1.evil.example", "localhost.evil", ""]
)
def test_a_name_that_was_pointed_here_by_others_is_refused(client: TestClient, host: str) -> None:
    response = client.get("/v1/spend", headers={"host": host})
    assert response.status_code == 421
    assert "total" not in response.text


def test_every_answer_carries_the_browsers_rules(client: TestClient) -> None:
    for path in ("/overview", "/v1/spend", "/nothing", "/static/style.css"):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    assert client.get("/v1/spend").headers["cache-control"] == "no-store"


def test_an_amount_of_a_budget_may_begin_later_in_its_zone(running: Pipeline, client: TestClient) -> None:
    token = {"authorization": f"Bearer {running.admin_token}"}
    body = {"limit_usd": "10", "time_zone": "Asia/Kathmandu"}
    made = client.put("/v1/budgets/b", json=body, headers=token).json()
    assert (made["time_zone"], made["period_start"]) == ("Asia/Kathmandu", "2026-10-31T18:15:00Z")
    later = body | {"limit_usd": "20", "from": "2026-12-01"}
    planned = client.put("/v1/budgets/b", json=later, headers=token).json()
    assert (planned["limit_usd"], planned["state"]) == ("10", "open")
    assert planned["amounts"][1] == {"from": "2026-11-30T18:15:00Z", "limit_usd": "20"}
    kept = client.put("/v1/budgets/b", json={"time_zone": "Asia/Kathmandu"}, headers=token).json()
    assert kept["amounts"] == planned["amounts"]
    for wrong, named in (({"time_zone": "Nowhere"}, "time zone"), ({"from": "soon"}, "from")):
        refusal = client.put("/v1/budgets/b", json=body | wrong, headers=token)
        assert (refusal.status_code, named in refusal.json()["detail"]) == (400, True)


def test_what_comes_over_kafka_is_neither_taken_nor_told_over_http(
    running: Pipeline, make_database: MakeDatabase
) -> None:
    with closing(Database.open(make_database().app, "app")) as control:
        client = TestClient(
            create_app(replace(running.services, control=control, ingest=None)), base_url="http://127.0.0.1"
        )
        token = {"authorization": f"Bearer {running.services.ingest_token}"}
        batch = token | {"content-type": "application/x-protobuf"}
        answers = [client.get("/v1/router/state", headers=token), client.post("/v1/ingest", headers=batch)]
    for answer in answers:
        assert (answer.status_code, "kafka.brokers" in answer.json()["detail"]) == (409, True)
