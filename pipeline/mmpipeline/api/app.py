"""The pipeline's HTTP face: ingest, the routers' state, the API and the dashboard in one application.

Reads are open to whoever can connect (127.0.0.1 in the embedded default); budgets are written with the
admin token in `pipeline/admin.token` of the state folder, made at the first start; ingest and the router's
state need the ingest token. See api/guard.py for what keeps other people's web pages out.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from fastapi import FastAPI

from mmpipeline.api import problems
from mmpipeline.api.budgets import budget_routes
from mmpipeline.api.calls import call_routes
from mmpipeline.api.guard import Guard
from mmpipeline.api.health import health_routes
from mmpipeline.api.ledger import ledger_routes
from mmpipeline.api.router_state import router_state_routes
from mmpipeline.api.spend import spend_routes
from mmpipeline.dashboard.app import dashboard_routes, static_files
from mmpipeline.ingest.authority import ingest_token
from mmpipeline.ingest.route import ingest_router
from mmpipeline.services import Services

_ABOUT = (
    "What a company's software spends on large language models: every token, every dollar. "
    "Money is a decimal string in USD and null where no price is known; times are RFC 3339 in UTC; lists "
    "continue with `next_cursor`; errors are application/problem+json."
)


def create_app(services: Services, hosts: Iterable[str] = ()) -> FastAPI:
    """The application over the parts of one pipeline; `hosts` are names it answers to besides its own.

    Raises mmpipeline.ingest.authority.TokenError where the admin token can be neither read nor made.
    """
    admin_token = ingest_token(services.folder / "admin.token")
    app = FastAPI(
        title="ModelMeter",
        version=_version(),
        description=_ABOUT,
        openapi_url="/v1/openapi.json",
        # Their pages load scripts from a CDN; the document itself is all that tools need.
        docs_url=None,
        redoc_url=None,
    )
    problems.install(app)
    app.include_router(ingest_router(services.ingest, services.ingest_token))
    app.include_router(router_state_routes(services))
    app.include_router(spend_routes(services))
    app.include_router(call_routes(services))
    app.include_router(budget_routes(services, admin_token))
    app.include_router(ledger_routes(services))
    app.include_router(health_routes(services))
    app.include_router(dashboard_routes(services), include_in_schema=False)
    app.mount("/static", static_files(), name="static")
    app.add_middleware(Guard, hosts=tuple(hosts))
    return app


def _version() -> str:
    try:
        return version("modelmeter")
    except PackageNotFoundError:
        return "0"
