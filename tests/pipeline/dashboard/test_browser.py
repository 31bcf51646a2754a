from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from mmpipeline.api.app import create_app
from tests.pipeline.dashboard.browser import visit
from tests.pipeline.dashboard.page_checks import COLOURS, DRAWN, LOW_CONTRAST
from tests.pipeline.running import Pipeline, served
from tests.pipeline.samples import HOSTILE

pytestmark = pytest.mark.browser


class Counted:
    """Counts how often a path was asked for."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.paths: list[str] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.paths.append(scope["path"])
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def counted(running: Pipeline) -> Counted:
    return Counted(create_app(running.services))


@pytest.fixture(scope="module")
def address(counted: Counted) -> Iterator[str]:
    with served(counted) as url:
        yield url


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_charts_are_drawn_and_nothing_complains(address: str, scheme: str, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    seen = visit(
        f"{address}/overview",
        [
            DRAWN,
            {"run": COLOURS},
            {"run": LOW_CONTRAST},
            {"run": "document.body.dataset.stolen ?? 'nothing'"},
        ],
        scheme=scheme,
        screenshot=picture,
    )
    colours, low_contrast, stolen = seen.results
    assert seen.complaints == []
    assert colours >= 4
    assert low_contrast == []
    assert stolen == "nothing"
    assert picture.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_a_tooltip_names_what_is_under_the_pointer_as_text(address: str) -> None:
    seen = visit(
        f"{address}/overview?range=today",
        [
            DRAWN,
            {"run": "(({x, y, width, height}) => [x + width * 0.5, y + height * 0.4])"
                    "(document.getElementById('by-team').getBoundingClientRect())"},
            *({"move": [x, 430]} for x in range(60, 680, 20)),
            {"until": "document.querySelector('.tip') !== null"},
            {"run": "document.querySelector('.tip').innerText"},
            {"run": "document.querySelectorAll('.tip img, .tip script').length"},
        ],
    )  # fmt: skip
    assert seen.complaints == []
    assert "Total" in seen.results[1]
    assert seen.results[2] == 0


def test_a_refresh_brings_new_calls_and_keeps_what_is_open(
    running: Pipeline, counted: Counted, address: str
) -> None:
    opening = "document.getElementById('by-team-details').open = true; 0"
    # The page asks again every ten seconds; here it is told to at once.
    asking = (
        "htmx.ajax('GET', location.href, {target: '#live', select: '#live', swap: 'outerHTML'}).then(() => 1)"
    )
    before = counted.paths.count("/overview")
    seen = visit(
        f"{address}/overview?team=search",
        [
            DRAWN,
            {"run": "document.getElementById('live').getAttribute('hx-trigger')"},
            {"run": opening},
            {"run": "window.kept = document.querySelector('#by-team canvas'); 0"},
            {"run": asking},
            {"until": "document.getElementById('by-team-details').open"},
            {"run": "window.kept === document.querySelector('#by-team canvas') && window.kept.isConnected"},
        ],
    )
    assert seen.complaints == []
    assert seen.results[0] == "every 10s"
    assert seen.results[-1] is True
    assert counted.paths.count("/overview") == before + 2


def test_filters_are_in_the_url(address: str) -> None:
    choose = (
        "(() => { const team = document.querySelector('select[name=team]'); team.value = 'billing';"
        " team.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )
    seen = visit(
        f"{address}/overview?range=7d",
        [
            DRAWN,
            {"run": choose},
            {"until": "location.search.includes('team=billing')"},
            {"until": "document.readyState === 'complete'"},
            {"run": "location.search"},
            {"run": "document.querySelector('select[name=team]').value"},
        ],
    )
    assert seen.complaints == []
    assert seen.results[-2:] == ["?range=7d&team=billing", "billing"]


def test_the_keyboard_reaches_everything(address: str) -> None:
    seen = visit(
        f"{address}/overview",
        [
            DRAWN,
            {"key": "Tab"},
            {"run": "document.activeElement.className"},
            *[step for _ in range(14) for step in (
                {"key": "Tab"},
                {"run": "(at => at.name || at.textContent.trim())(document.activeElement)"},
            )],
        ],
    )  # fmt: skip
    assert seen.results[0] == "skip"
    for name in ("Overview", "range", "team", "application", "provider", "model", "CSV", "JSON"):
        assert name in seen.results, seen.results


@pytest.mark.parametrize("width", [360, 800])
def test_narrow_windows_scroll_no_way_but_down(address: str, width: int) -> None:
    seen = visit(
        f"{address}/overview",
        [DRAWN, {"run": "document.documentElement.scrollWidth"}],
        width=width,
        height=800,
    )
    assert seen.complaints == []
    assert seen.results[0] <= width


def test_hostile_filters_do_nothing(address: str) -> None:
    addresses = [f"{address}/overview?{urlencode({'team': name, 'model': name})}" for name in HOSTILE]
    checks = [DRAWN, {"run": "[document.body.dataset.stolen ?? 'nothing', document.images.length]"}]
    steps = [step for each in addresses for step in ({"open": each}, *checks)]
    seen = visit(f"{address}/overview", steps)
    assert seen.complaints == []
    assert seen.results == [["nothing", 0]] * len(HOSTILE)


def test_without_scripts_of_others_the_tables_stand_open(running: Pipeline) -> None:
    """Set-up was not run, or a proxy ate the file: the numbers are there all the same."""
    app = create_app(running.services)

    async def without_vendor(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/static/vendor/"):
            scope = {**scope, "path": "/static/missing.js", "raw_path": b"/static/missing.js"}
        await app(scope, receive, send)

    with served(without_vendor) as url:
        seen = visit(
            f"{url}/overview",
            [
                {"until": "document.getElementById('by-team-details').open"},
                {"run": "document.querySelector('.chart').hidden"},
            ],
        )
    assert seen.results == [True]
