"""`/v1/status`, `/livez`, `/readyz` and `/metrics`: how the pipeline is, for people, probes, Prometheus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse

from mmpipeline.api import parameters as ask
from mmpipeline.api.problems import documented
from mmpipeline.ingest.statistics import ingest_statistics
from mmpipeline.services import Services
from mmpipeline.status import status_form
from mmproto.callform import format_time
from mmproto.rating import usd

_NS = 1_000_000_000


def health_routes(services: Services) -> APIRouter:
    """The routes, for the application to include."""
    router = APIRouter(tags=["health"])

    @router.get("/v1/status", summary="Verdict, its reasons, and the numbers behind it")
    def status(tenant: ask.Tenant = "default") -> dict[str, Any]:
        services.rating.refresh()
        form = status_form(
            ingest_statistics(services.control, tenant),
            services.budgets.list(tenant),
            services.rating.version,
            services.warehouse_error,
            services.clock(),
        )
        form["observers"] = [
            {
                "node": seen.node,
                "observer": seen.observer,
                "calls": seen.calls,
                "last_call_at": format_time(seen.last_call_unix_ns),
            }
            for seen in services.warehouse.observers(tenant)
        ]
        form["tables"] = {
            size.table: {"rows": size.rows, "bytes_on_disk": size.bytes_on_disk}
            for size in services.warehouse.sizes()
        }
        return form

    @router.get("/livez", summary="The process answers", response_class=PlainTextResponse)
    def livez() -> str:
        return "ok\n"

    @router.get(
        "/readyz",
        summary="The stores answer",
        response_class=PlainTextResponse,
        responses=documented(503),
    )
    def readyz() -> str:
        services.warehouse.sizes()
        services.budgets.list()
        return "ok\n"

    @router.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse)
    def metrics() -> Response:
        return PlainTextResponse(
            "\n".join(_metrics(services)) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8"
        )

    return router


def _metrics(services: Services) -> Iterable[str]:
    statistics = ingest_statistics(services.control, None, unpriced_limit=1000)
    yield from _family(
        "modelmeter_ingest_total",
        "counter",
        "Calls and batches taken by ingest, by what became of them.",
        (({"outcome": name}, count) for name, count in statistics.counters.items()),
    )
    oldest = statistics.outbox.oldest_unix_ns
    lag_s = 0.0 if oldest is None else max(0.0, (services.clock() - oldest) / _NS)
    yield from _family(
        "modelmeter_outbox_rows",
        "gauge",
        "Rows on their way to the warehouse.",
        [({}, statistics.outbox.rows)],
    )
    yield from _family(
        "modelmeter_outbox_lag_seconds", "gauge", "How long the oldest of them waits.", [({}, lag_s)]
    )
    yield from _family("modelmeter_calls", "gauge", "Calls in the ledger.", [({}, statistics.totals.calls)])
    yield from _family(
        "modelmeter_cost_usd",
        "gauge",
        "What they cost, as far as it is known.",
        [({}, usd(statistics.totals.cost_nano_usd))],
    )
    yield from _family(
        "modelmeter_unpriced_calls",
        "gauge",
        "Calls without a known price.",
        (
            ({"provider": row.provider, "model": row.model, "reason": row.reason}, row.calls)
            for row in statistics.unpriced
        ),
    )
    budgets = [
        ({"tenant": status.budget.tenant, "budget": status.budget.name}, status)
        for status in services.budgets.list()
    ]
    yield from _family(
        "modelmeter_budget_limit_usd",
        "gauge",
        "Limit of a budget.",
        (
            (labels, usd(status.limit_nano_usd))
            for labels, status in budgets
            if status.limit_nano_usd is not None
        ),
    )
    yield from _family(
        "modelmeter_budget_spent_usd",
        "gauge",
        "Spent of it in its current period.",
        ((labels, usd(status.spent_nano_usd)) for labels, status in budgets),
    )


def _family(
    name: str, kind: str, about: str, samples: Iterable[tuple[Mapping[str, str], str | float]]
) -> Iterable[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        yield f"{name}{{{inner}}} {value}" if inner else f"{name} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
