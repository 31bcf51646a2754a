"""The dashboard: server-rendered pages whose URL is their state, with `.json` and `.csv` beside each.

Read-only: no form here changes anything, so there is nothing for another site to forge. Templates escape
everything (autoescape); data for the charts travels in a JSON block that no browser runs, and the policy
in api/guard.py allows neither inline script nor inline style.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from mmpipeline.dashboard import explain, figures
from mmpipeline.dashboard.overview import CALLER_KINDS, Overview, as_json, gather
from mmpipeline.dashboard.tables import Cell, csv_text
from mmpipeline.dashboard.view import FILTERS, RANGES, UNALLOCATED, read
from mmpipeline.services import Services
from mmpipeline.store.warehouse.shapes import Dimension
from mmproto import callform, rating, usage

STATIC: Final = Path(__file__).parent / "static"

_CSV_DIMENSIONS: Final[tuple[Dimension, ...]] = ("day", "team", "application", "provider", "model")


def dashboard_routes(services: Services) -> APIRouter:
    """The pages, for the application to include."""
    router = APIRouter()
    templates = environment()

    @router.get("/")
    def home() -> RedirectResponse:
        return RedirectResponse("/overview", status_code=307)

    @router.get("/overview")
    def overview(request: Request) -> HTMLResponse:
        page = gather(services, read(request.query_params, services.clock()))
        return HTMLResponse(templates.get_template("overview.html").render(page=page))

    @router.get("/overview.json")
    def overview_json(request: Request) -> Response:
        page = gather(services, read(request.query_params, services.clock()))
        return Response(
            orjson.dumps(as_json(page), option=orjson.OPT_INDENT_2), media_type="application/json"
        )

    @router.get("/overview.csv")
    def overview_csv(request: Request) -> Response:
        view = read(request.query_params, services.clock())
        name = f"modelmeter-{view.from_day}-{view.until_day}.csv"
        return Response(
            csv_text(_CSV_HEADER, _spend_rows(services, request)),
            media_type="text/csv; charset=utf-8",
            headers={"content-disposition": f'attachment; filename="{name}"'},
        )

    return router


_CSV_HEADER: Final = (
    *_CSV_DIMENSIONS,
    "cost_usd",
    "calls",
    "unpriced_calls",
    "errors",
    "input_tokens",
    "cache_read_input_tokens",
    "cache_write_input_tokens",
    "output_tokens",
    "reasoning_output_tokens",
)


def _spend_rows(services: Services, request: Request) -> Iterable[list[Cell]]:
    view = read(request.query_params, services.clock())
    for row in services.warehouse.spend(view.tenant, view.span, _CSV_DIMENSIONS, view.filters):
        cost = row.cost_nano_usd
        yield [
            *row.group,
            None if cost is None else rating.usd(cost),
            row.calls,
            row.unpriced_calls,
            row.errors,
            row.input_tokens,
            row.cache_read_input_tokens,
            row.cache_write_input_tokens,
            row.output_tokens,
            row.reasoning_output_tokens,
        ]


def environment() -> Environment:
    """The templates with what they may call."""
    made = Environment(
        loader=PackageLoader("mmpipeline.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        asset=asset,
        figures=figures,
        explain=explain,
        usage=usage,
        time=callform.format_time,
        unallocated=UNALLOCATED,
        ranges=RANGES,
        filter_names=FILTERS,
        caller_kinds=CALLER_KINDS,
        facet_of=_facet_of,
    )
    return made


def _facet_of(page: Overview, name: str) -> list[str]:
    """Values to choose a filter from: those of the span, and the one that is chosen."""
    values: tuple[str, ...] = getattr(page.facets, f"{name}s")
    shown = [value or UNALLOCATED for value in values]
    chosen = page.view.chosen().get(name)
    return shown if chosen is None or chosen in shown else [*shown, chosen]


@cache
def asset(name: str) -> str:
    """The address of a static file with its digest, so that browsers may keep it for ever."""
    file = STATIC / name
    if not file.is_file():
        return f"/static/{name}"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()[:12]
    return f"/static/{name}?v={digest}"


class _Assets(StaticFiles):
    """Static files; those asked for with their digest never change."""

    async def get_response(self, path: str, scope: Scope) -> Any:
        response = await super().get_response(path, scope)
        kept = "public, max-age=31536000, immutable" if scope.get("query_string") else "no-cache"
        response.headers["cache-control"] = kept
        return response


def static_files() -> StaticFiles:
    """What pages load. The vendored scripts are copied in by set-up (vendor.mjs)."""
    return _Assets(directory=STATIC)
