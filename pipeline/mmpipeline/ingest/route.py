"""`POST /v1/ingest`: where sensors and routers bring their calls.

Body: a `modelmeter.v1.IngestBatch` as `application/x-protobuf`, at most 8 MiB, `Authorization: Bearer`
with the ingest token. 200 `{"accepted", "duplicates", "rejected": [{"id", "reason"}]}` once the batch is
on disk; resending is harmless. 400 where the body is not a batch, 401, 413 where it is too large (send it
in pieces), 415 for another content type, 503 with Retry-After where the store cannot take it now.
"""

from __future__ import annotations

import asyncio

import orjson
from fastapi import APIRouter, Request, Response
from sqlalchemy.exc import SQLAlchemyError

from mmpipeline.ingest.authority import is_authorised
from mmpipeline.ingest.posts import IngestResult
from mmpipeline.ingest.service import IngestService, Overloaded, Undecodable
from mmpipeline.store.control.database import StoreBusy

MAX_BODY_BYTES = 8 * 1024 * 1024
CONTENT_TYPE = "application/x-protobuf"
_TITLES = {
    400: "Undecodable batch",
    401: "Unauthorised",
    409: "Not in this shape",
    413: "Batch too large",
    415: "Unsupported content type",
    503: "Try again later",
}


def ingest_router(ingest: IngestService | None, token: str) -> APIRouter:
    """The route, for the pipeline's application to include; without `ingest` it says where calls go."""
    router = APIRouter(tags=["ingest"])

    @router.post("/v1/ingest", summary="Take a batch of calls", openapi_extra=_OPENAPI)
    async def take(request: Request) -> Response:
        refusal = _refusal(request, token)
        if refusal is not None:
            return refusal
        if ingest is None:
            return problem(
                409, "calls come over Kafka here: set kafka.brokers, and `sink: kafka` in sensor.yaml"
            )
        body = await _read(request)
        if body is None:
            return problem(413, f"at most {MAX_BODY_BYTES} bytes are taken at once; send smaller batches")
        try:
            result = await asyncio.wrap_future(ingest.submit(body))
        except Undecodable as error:
            return problem(400, str(error))
        except (Overloaded, StoreBusy, SQLAlchemyError) as error:
            return problem(503, str(error), {"retry-after": "2"})
        return Response(_answer(result), media_type="application/json")

    return router


def _refusal(request: Request, token: str) -> Response | None:
    """The answer to who may not send, or sends something else."""
    if not is_authorised(request.headers.get("authorization"), token):
        return problem(401, "the ingest token is expected as 'Authorization: Bearer TOKEN'")
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != CONTENT_TYPE:
        return problem(415, f"'{CONTENT_TYPE}' is expected, found '{content_type}'")
    return None


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An error as application/problem+json."""
    form = {"type": "about:blank", "title": _TITLES[status], "status": status, "detail": detail}
    return Response(orjson.dumps(form), status, headers, "application/problem+json")


async def _read(request: Request) -> bytes | None:
    """The body, None where it is larger than allowed."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _answer(result: IngestResult) -> bytes:
    return orjson.dumps(
        {
            "accepted": result.accepted,
            "duplicates": result.duplicates,
            "rejected": [{"id": r.id, "reason": r.reason} for r in result.rejected],
        }
    )


_OPENAPI = {
    "requestBody": {
        "required": True,
        "content": {CONTENT_TYPE: {"schema": {"type": "string", "format": "binary"}}},
    }
}
