"""Errors of the API: `application/problem+json` (RFC 9457), each saying what was wrong and what to do.

Problem
├── BadRequest     400   a parameter or the body is not what it should be
├── Unauthorised   401   a write without the admin token
├── NotFound       404   there is no such thing
└── Unavailable    503   a store cannot answer now
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any, Final

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from mmpipeline.store.control.database import StoreBusy
from mmpipeline.store.warehouse.errors import WarehouseError
from mmpipeline.store.warehouse.shapes import Unanswerable

_log = logging.getLogger(__name__)

MEDIA_TYPE: Final = "application/problem+json"

SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was wrong, and what to do about it."},
        "parameter": {"type": "string", "description": "The parameter or field that is meant."},
    },
}


class Problem(Exception):
    """An answer other than the one asked for. `parameter` names what is meant, "" where nothing single is."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR

    def __init__(self, detail: str, parameter: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.parameter = parameter


class BadRequest(Problem):
    """A parameter or the body is not what it should be."""

    status = HTTPStatus.BAD_REQUEST


class Unauthorised(Problem):
    """A write without the admin token."""

    status = HTTPStatus.UNAUTHORIZED


class NotFound(Problem):
    """There is no such thing."""

    status = HTTPStatus.NOT_FOUND


class Unavailable(Problem):
    """A store cannot answer now."""

    status = HTTPStatus.SERVICE_UNAVAILABLE


def response(
    status: int, detail: str, parameter: str = "", headers: dict[str, str] | None = None
) -> Response:
    """A problem as an answer."""
    form = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}
    if parameter:
        form["parameter"] = parameter
    return Response(orjson.dumps(form), status, headers, MEDIA_TYPE)


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that can answer with these problems."""
    return {
        status: {"description": HTTPStatus(status).phrase, "content": {MEDIA_TYPE: {"schema": SCHEMA}}}
        for status in statuses
    }


def install(app: FastAPI) -> None:
    """Let every error of `app` leave as a problem; what nobody foresaw is logged and stays opaque."""

    @app.exception_handler(Problem)
    def _problem(_: Request, error: Problem) -> Response:
        headers = {"www-authenticate": "Bearer"} if isinstance(error, Unauthorised) else None
        return response(error.status, error.detail, error.parameter, headers)

    @app.exception_handler(RequestValidationError)
    def _invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return response(400, f"{where or 'body'}: {first['msg']}", where)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> Response:
        detail = str(error.detail)
        if error.status_code == HTTPStatus.NOT_FOUND:
            detail = f"there is nothing at {request.url.path}; /v1/openapi.json lists what there is"
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            detail = f"{request.method} is not possible at {request.url.path}"
        return response(error.status_code, detail, headers=dict(error.headers or {}))

    @app.exception_handler(WarehouseError)
    def _warehouse(_: Request, error: WarehouseError) -> Response:
        _log.error("%s", error)
        return response(503, str(error), headers={"retry-after": "2"})

    @app.exception_handler(Unanswerable)
    def _unanswerable(_: Request, error: Unanswerable) -> Response:
        return response(400, str(error))

    @app.exception_handler(StoreBusy)
    def _busy(_: Request, error: StoreBusy) -> Response:
        return response(503, str(error), headers={"retry-after": "2"})

    @app.exception_handler(Exception)
    def _unforeseen(request: Request, error: Exception) -> Response:
        _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return response(500, "something went wrong here; the pipeline's log says what")
