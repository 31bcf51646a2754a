"""`GET /v1/calls` and `GET /v1/calls/{id}`: single calls in the JSON form of the contract, with their charge.

There is no prompt and no answer in them: the contract has no place for either.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path

from mmpipeline.api import parameters as ask
from mmpipeline.api.problems import NotFound, documented
from mmpipeline.api.shapes import CallList
from mmpipeline.services import Services
from mmpipeline.store.warehouse.shapes import CallCursor, Filters, StoredCall
from mmproto.callform import call_to_json
from mmproto.rating import usd

CallId = Annotated[str, Path(min_length=1, max_length=200)]


def call_routes(services: Services) -> APIRouter:
    """The two routes, for the application to include."""
    router = APIRouter(tags=["calls"])

    @router.get(
        "/v1/calls", summary="Calls, latest first", response_model=CallList, responses=documented(400, 503)
    )
    def calls(
        *,
        filters: Annotated[Filters, Depends(ask.filters)],
        from_: ask.From = None,
        to: ask.To = None,
        tenant: ask.Tenant = "default",
        limit: ask.Limit = 100,
        cursor: ask.Cursor = None,
    ) -> dict[str, Any]:
        span = ask.any_time(from_, to, services.clock())
        before = None if cursor is None else ask.decode_cursor(cursor, CallCursor, (int, str))
        page = services.warehouse.calls(tenant, span, filters, before=before, limit=limit)
        place = page.next
        return {
            "calls": [call_form(stored) for stored in page.calls],
            "next_cursor": place and ask.encode_cursor((place.started_at_unix_ns, place.id)),
        }

    @router.get("/v1/calls/{call_id}", summary="One call", responses=documented(404, 503))
    def call(call_id: CallId, tenant: ask.Tenant = "default") -> dict[str, Any]:
        stored = services.warehouse.call(tenant, call_id)
        if stored is None:
            raise NotFound(f"tenant {tenant!r} has no call {call_id!r} (yet: the warehouse may lag a second)")
        return call_form(stored)

    return router


def call_form(stored: StoredCall) -> dict[str, Any]:
    """A call in the JSON form of the contract, then its charge; `cost_usd` is null where unpriced."""
    form = call_to_json(stored.call)
    form["cost_usd"] = None if stored.cost_nano_usd is None else usd(stored.cost_nano_usd)
    if stored.rate_card:
        form["rate_card"] = stored.rate_card
    if stored.unpriced_reason:
        form["unpriced_reason"] = stored.unpriced_reason
    return form
