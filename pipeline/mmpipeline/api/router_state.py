"""What a router asks the pipeline: how far each budget is spent, and the rates to settle by.

Both need the ingest token. `GET /v1/router/state` is asked every second or so and reads two small tables;
`GET /v1/rate-cards` is large, and its ETag is the rate book's version, so that asking again costs nothing.
"""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from mmpipeline.budgets.model import BudgetStatus
from mmpipeline.ingest.authority import is_authorised
from mmpipeline.ingest.route import problem
from mmpipeline.services import Services
from mmproto.callform import format_time


def router_state_routes(services: Services) -> APIRouter:
    """The two routes, for the pipeline's application to include."""
    router = APIRouter(tags=["router"])
    token = services.ingest_token

    @router.get("/v1/router/state", summary="Budgets as a router enforces them")
    def state(request: Request) -> Response:
        if not is_authorised(request.headers.get("authorization"), token):
            return problem(401, "the ingest token is expected as 'Authorization: Bearer TOKEN'")
        if services.control.dialect == "postgresql":
            # This role sees no other tenants' budgets: an empty list would let everything pass.
            return problem(409, "budgets reach routers over Kafka here: set kafka.brokers in router.yaml")
        now = services.clock()
        services.rating.refresh()
        form = {
            "as_of": format_time(now),
            "budgets": [
                budget_state(status)
                for status in services.budgets.list(at_unix_ns=now)
                if status.limit_nano_usd is not None  # before its first amount a budget limits nothing
            ],
            "rate_cards_version": services.rating.version,
        }
        return Response(orjson.dumps(form), media_type="application/json")

    @router.get("/v1/rate-cards", summary="Rate cards of some providers")
    def rate_cards(request: Request, provider: str = "openai,anthropic") -> Response:
        if not is_authorised(request.headers.get("authorization"), token):
            return problem(401, "the ingest token is expected as 'Authorization: Bearer TOKEN'")
        services.rating.refresh()
        etag = f'"{services.rating.version}"'
        if request.headers.get("if-none-match") == etag:
            return Response(status_code=304, headers={"etag": etag})
        names = [name.strip() for name in provider.split(",") if name.strip()]
        form = services.rating.export(names)
        return Response(orjson.dumps(form), media_type="application/json", headers={"etag": etag})

    return router


def budget_state(status: BudgetStatus) -> dict[str, Any]:
    """A budget with its spend, amounts in nano-dollars."""
    budget = status.budget
    return {
        "id": budget.id,
        "name": budget.name,
        "tenant": budget.tenant,
        "scope": dict(budget.scope),
        "period": budget.period.value,
        "period_start": format_time(status.period_start_unix_ns),
        "resets_at": format_time(status.resets_at_unix_ns),
        "limit_nano_usd": status.limit_nano_usd,
        "spent_nano_usd": status.spent_nano_usd,
        "unpriced_calls": status.unpriced_calls,
        "block_at_percent": budget.block_at_percent,
    }
