"""`GET /v1/ledger/verify`: the running pipeline holds its numbers against the charges.

It has the warehouse's folder, which no other process can open meanwhile. Reading all charges takes a while,
so one verification runs at a time.
"""

from __future__ import annotations

import threading
from typing import Annotated, Any

from fastapi import APIRouter, Query

from mmpipeline.api.problems import BadRequest, Unavailable, documented
from mmpipeline.api.shapes import Verification
from mmpipeline.services import Services
from mmpipeline.verify.run import UnknownTenants, verify


def ledger_routes(services: Services) -> APIRouter:
    """The route, for the application to include."""
    router = APIRouter(tags=["ledger"])
    turn = threading.Lock()

    @router.get(
        "/v1/ledger/verify",
        summary="Budgets, totals and roll-ups held against the charges",
        response_model=Verification,
        responses=documented(400, 503),
    )
    def verification(
        tenant: Annotated[
            list[str], Query(max_length=1000, description="Whose; all where none is given.")
        ] = [],  # noqa: B006 - never changed
    ) -> dict[str, Any]:
        if not turn.acquire(blocking=False):
            raise Unavailable("a verification is running already; ask again when it is done")
        try:
            return verify(services.control, services.warehouse, tenant, services.clock()).form()
        except UnknownTenants as error:
            raise BadRequest(str(error), "tenant") from error
        finally:
            turn.release()

    return router
