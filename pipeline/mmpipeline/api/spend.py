"""`GET /v1/spend`: what calls used and cost, by any of the dimensions."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from mmpipeline.api import parameters as ask
from mmpipeline.api.problems import documented
from mmpipeline.api.shapes import SpendReport
from mmpipeline.services import Services
from mmpipeline.store.warehouse.shapes import CostRow, Dimension, Filters, SpendRow
from mmproto.callform import format_time
from mmproto.rating import usd


def spend_routes(services: Services) -> APIRouter:
    """The route, for the application to include."""
    router = APIRouter(tags=["spend"])

    @router.get(
        "/v1/spend",
        summary="Spend by team, application, user, model, provider, day ...",
        response_model=SpendReport,
        responses=documented(400, 503),
    )
    def spend(
        *,
        filters: Annotated[Filters, Depends(ask.filters)],
        group_by: Annotated[
            str, Query(max_length=200, description="Dimensions, separated by commas; none gives one row.")
        ] = "team",
        from_: ask.From = None,
        to: ask.To = None,
        tenant: ask.Tenant = "default",
        limit: ask.Limit = 1000,
        cursor: ask.Cursor = None,
    ) -> dict[str, Any]:
        span = ask.hours(from_, to, services.clock())
        dimensions = ask.dimensions(group_by)
        after: tuple[str, ...] = ()
        if cursor is not None:
            after = ask.decode_cursor(cursor, lambda *values: values, [str] * len(dimensions))
        rows = services.warehouse.spend(tenant, span, dimensions, filters, after=after, limit=limit + 1)
        page = rows[:limit]
        return {
            "from": format_time(span.from_unix_ns),
            "to": format_time(span.to_unix_ns),
            "currency": "USD",
            "group_by": list(dimensions),
            "rows": [group_form(row, dimensions) for row in page],
            "total": group_form(services.warehouse.total(tenant, span, filters), ()),
            "next_cursor": ask.encode_cursor(page[-1].group) if len(rows) > limit else None,
        }

    return router


def cost_form(row: CostRow, dimensions: tuple[Dimension, ...]) -> dict[str, Any]:
    """What a group cost as JSON."""
    cost = row.cost_nano_usd
    return {
        "group": dict(zip(dimensions, row.group, strict=True)),
        "cost_usd": None if cost is None else usd(cost),
        "calls": row.calls,
        "unpriced_calls": row.unpriced_calls,
    }


def group_form(row: SpendRow, dimensions: tuple[Dimension, ...]) -> dict[str, Any]:
    """What a group used and cost as JSON."""
    return cost_form(row, dimensions) | {
        "errors": row.errors,
        "mean_duration_s": round(row.duration_s / row.timed_calls, 6) if row.timed_calls else None,
        "usage": {
            "input_tokens": row.input_tokens,
            "cache_read_input_tokens": row.cache_read_input_tokens,
            "cache_write_input_tokens": row.cache_write_input_tokens,
            "output_tokens": row.output_tokens,
            "reasoning_output_tokens": row.reasoning_output_tokens,
        },
    }
