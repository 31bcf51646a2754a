"""`/v1/budgets`: read by whoever can reach the API, written with the admin token only."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.security import HTTPBearer

from mmpipeline.api import parameters as ask
from mmpipeline.api.problems import BadRequest, NotFound, Unauthorised, documented
from mmpipeline.api.shapes import BudgetForm, BudgetList, BudgetRequest
from mmpipeline.budgets.model import DEFAULT_THRESHOLDS, Action, Threshold
from mmpipeline.budgets.periods import Period, moment_of
from mmpipeline.budgets.service import BudgetError, UnknownBudget
from mmpipeline.ingest.authority import is_authorised
from mmpipeline.services import Services
from mmpipeline.status import budget_form

Name = Annotated[str, Path(min_length=1, max_length=100)]

_NANO_DIGITS = 9


def budget_routes(services: Services, admin_token: str) -> APIRouter:
    """The routes, for the application to include."""
    router = APIRouter(tags=["budgets"])
    # Declares the scheme in the OpenAPI document; the check itself gives a problem with its hint.
    bearer = HTTPBearer(
        auto_error=False, description="The token in `pipeline/admin.token` of the state folder."
    )

    def admin(request: Request) -> None:
        if not is_authorised(request.headers.get("authorization"), admin_token):
            raise Unauthorised(
                "the admin token is expected as 'Authorization: Bearer TOKEN'; it is in the file "
                "pipeline/admin.token of the state folder"
            )

    writing = [Depends(admin), Depends(bearer)]

    @router.get("/v1/budgets", summary="Budgets with their spend", response_model=BudgetList)
    def budgets(tenant: ask.Tenant = "default") -> dict[str, Any]:
        return {"budgets": [budget_form(status) for status in services.budgets.list(tenant)]}

    @router.get(
        "/v1/budgets/{name}", summary="One budget", response_model=BudgetForm, responses=documented(404)
    )
    def budget(name: Name, tenant: ask.Tenant = "default") -> dict[str, Any]:
        try:
            return budget_form(services.budgets.get(name, tenant))
        except UnknownBudget as error:
            raise NotFound(str(error)) from error

    @router.put(
        "/v1/budgets/{name}",
        summary="Create or change a budget",
        response_model=BudgetForm,
        responses=documented(400, 401, 503),
        dependencies=writing,
    )
    def put(name: Name, body: BudgetRequest, tenant: ask.Tenant = "default") -> dict[str, Any]:
        thresholds: tuple[Threshold, ...] = DEFAULT_THRESHOLDS
        if body.thresholds is not None:
            thresholds = tuple(Threshold(t.percent, Action(t.action)) for t in body.thresholds)
        limit = None if body.limit_usd is None else int(Decimal(body.limit_usd).scaleb(_NANO_DIGITS))
        try:
            since = None if body.from_ is None else moment_of(body.from_, body.time_zone)
        except ValueError as error:
            raise BadRequest(f"from: {error}", "from") from error
        try:
            status = services.budgets.set(
                name,
                limit_nano_usd=limit,
                from_unix_ns=since,
                period=Period(body.period),
                time_zone=body.time_zone,
                tenant=tenant,
                scope={str(key): value for key, value in body.scope.items()},
                thresholds=thresholds,
            )
        except BudgetError as error:
            raise BadRequest(str(error)) from error
        return budget_form(status)

    @router.delete(
        "/v1/budgets/{name}",
        summary="Remove a budget",
        status_code=204,
        responses=documented(401, 404, 503),
        dependencies=writing,
    )
    def delete(name: Name, tenant: ask.Tenant = "default") -> Response:
        try:
            services.budgets.delete(name, tenant)
        except UnknownBudget as error:
            raise NotFound(str(error)) from error
        return Response(status_code=204)

    return router
