from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser

import pytest
from starlette.testclient import TestClient

from mmpipeline.api.app import create_app
from tests.pipeline.running import Pipeline
from tests.pipeline.samples import HOSTILE


class Page(HTMLParser):
    """What a browser would make of a page: elements with attributes, text, and data blocks."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.data: list[str] = []
        self._script: dict[str, str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.elements.append((tag, attributes))
        if tag == "script":
            self._script = attributes

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._script = None

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.text.append(data)
        elif data.strip():
            assert self._script.get("type") == "application/json", "an inline script"
            self.data.append(data)


@pytest.fixture(scope="module")
def client(running: Pipeline) -> Iterator[TestClient]:
    with TestClient(create_app(running.services), base_url="http://127.0.0.1:8780") as opened:
        yield opened


def page(client: TestClient, path: str, **query: str) -> Page:
    response = client.get(path, params=query)
    assert response.status_code == 200, response.text
    assert "set-cookie" not in response.headers
    return Page(response.text)


def test_home_leads_to_the_overview(client: TestClient) -> None:
    assert client.get("/").url.path == "/overview"


def test_names_from_the_wire_stay_text(client: TestClient) -> None:
    shown = page(client, "/overview")
    for tag, attributes in shown.elements:
        assert tag not in {"img", "iframe", "object", "embed"}, tag
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        if tag == "script" and attributes.get("type") != "application/json":
            assert attributes["src"].startswith("/static/")
    text = "".join(shown.text)
    for name in HOSTILE:
        # HTML knows one kind of line break; all else is shown as it came.
        assert name.replace("\r\n", "\n") in text.replace("\r\n", "\n"), name
    names = {line["name"] for data in shown.data for line in json.loads(data)["lines"]}
    assert names & set(HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_filter_stays_text_and_finds_its_calls(client: TestClient, name: str) -> None:
    shown = page(client, "/overview", team=name, model=name)
    assert not [tag for tag, _ in shown.elements if tag == "img"]
    form = client.get("/overview.json", params={"team": name}).json()
    assert form["total"]["calls"] == 1
    assert form["top_callers"]["user"][0]["group"]["user"] == name


def test_csv_holds_no_formula_and_the_same_money(client: TestClient) -> None:
    response = client.get("/overview.csv")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == (
        'attachment; filename="modelmeter-2026-10-25-2026-11-23.csv"'
    )
    rows = list(csv.DictReader(io.StringIO(response.text, newline="")))
    for row in rows:
        for cell in row.values():
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    unpriced = [row for row in rows if row["model"] == "in-house-model"]
    assert unpriced[0]["cost_usd"] == ""
    total = client.get("/overview.json").json()["total"]
    assert sum(int(row["calls"]) for row in rows) == total["calls"]


def test_unpriced_is_a_word_not_a_zero(client: TestClient) -> None:
    text = "".join(page(client, "/overview", model="in-house-model").text)
    assert "unpriced" in text
    assert "The catalogue has no price for this model" in text
    assert not re.search(r"\$0\.0+(?!\d)", text)


def test_budgets_show_spent_limit_and_state(client: TestClient) -> None:
    text = " ".join(" ".join(page(client, "/overview").text).split())
    assert "Blocking calls" in text
    assert "On track" in text
    assert "1 Dec 2026" in text


def test_every_chart_has_its_table(client: TestClient) -> None:
    shown = page(client, "/overview")
    charts = [
        attributes["id"] for tag, attributes in shown.elements if "chart " in attributes.get("class", "")
    ]
    tables = {attributes["id"] for tag, attributes in shown.elements if tag == "details"}
    assert charts == ["by-team", "by-model"]
    assert tables == {f"{name}-details" for name in charts}


def test_formats_stand_beside_the_page(client: TestClient) -> None:
    shown = page(client, "/overview", team="billing", range="7d")
    links = [attributes["href"] for tag, attributes in shown.elements if tag == "a"]
    beside = [link for link in links if link.startswith(("/overview.csv", "/overview.json"))]
    assert {link.partition("?")[0] for link in beside} == {"/overview.csv", "/overview.json"}
    assert all("team=billing" in link and "range=7d" in link for link in beside)


def test_ids_are_unique_and_labels_have_targets(client: TestClient) -> None:
    elements = page(client, "/overview").elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes in elements:
        assert attributes.get("aria-labelledby", ids[0]) in ids


def test_a_filter_without_calls_says_so(client: TestClient) -> None:
    text = "".join(page(client, "/overview", team="nobody").text)
    assert "No call matches this range and these filters." in text
    assert "Clear the filters" in text


def test_an_unknown_range_is_said_not_failed(client: TestClient) -> None:
    assert "That range is not known" in "".join(page(client, "/overview", range="<b>").text)


def test_static_files_with_their_digest_are_kept(client: TestClient) -> None:
    shown = page(client, "/overview")
    for tag, attributes in shown.elements:
        if tag == "script" and "src" in attributes:
            response = client.get(attributes["src"])
            assert response.status_code == 200, "run `make setup`: it copies the vendored scripts"
            assert "immutable" in response.headers["cache-control"]
    assert client.get("/static/../app.py").status_code == 404
    assert client.get("/static/%2e%2e/app.py").status_code == 404
