from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from mmpipeline.api.app import create_app
from tests.pipeline.dashboard.browser import visit
from tests.pipeline.dashboard.page_checks import DRAWN, LOW_CONTRAST
from tests.pipeline.running import Pipeline, served
from tests.pipeline.samples import sample


def test_an_empty_pipeline_says_why_and_what_to_do(empty: Pipeline) -> None:
    with TestClient(create_app(empty.services), base_url="http://127.0.0.1:8780") as client:
        text = client.get("/overview").text
        form = client.get("/overview.json").json()
    for hint in ("No call has been measured yet", "mmsensor status", "make demo", "mmpipeline budgets set"):
        assert hint in text
    assert form["total"]["calls"] == 0
    assert form["total"]["cost_usd"] == "0"
    assert form["latest_calls"] == []


@pytest.mark.browser
def test_it_looks_as_well_and_fills_with_the_first_call(empty: Pipeline) -> None:
    with served(create_app(empty.services)) as url:
        canvases = {"run": "document.querySelectorAll('canvas').length"}
        seen = visit(f"{url}/overview", [{"run": LOW_CONTRAST}, canvases])
        empty.take([sample("first")])
        later = visit(f"{url}/overview", [DRAWN, canvases])
    assert seen.complaints == later.complaints == []
    assert seen.results == [[], 0]
    assert later.results == [2]
