"""Which path answers what."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tests.e2e.provider import anthropic, openai
from tests.e2e.provider.answer import Answer, Operation, Request, json_answer
from tests.e2e.provider.plan import Plan, PlanError

INVALID_KEY = "sk-invalid"  # this key is refused with 401, any other is taken
ERROR_MODEL = "error-"  # a model of this name, such as `error-429`, is answered with that status
BLOCK = b"0123456789abcdef" * 4096


@dataclass(frozen=True, slots=True)
class Route:
    """One operation of one dialect: who answers it, and who words its errors."""

    provider: str
    operation: str
    operate: Callable[[Request, Mapping[str, Any], Plan], Answer]
    refuse: Callable[[int, str | None], Answer]


ROUTES: Mapping[str, Route] = {
    "/v1/chat/completions": Route("openai", "chat", openai.chat, openai.error),
    "/v1/responses": Route("openai", "chat", openai.responses, openai.error),
    "/v1/embeddings": Route("openai", "embeddings", openai.embeddings, openai.error),
    "/v1/messages": Route("anthropic", "chat", anthropic.messages, anthropic.error),
}


def answer(request: Request) -> Answer:
    """The answer to any request; never raises for what a client can send."""
    if request.path in ROUTES:
        return _operation(request, ROUTES[request.path])
    match request.path:
        case "/v1/models":
            return openai.models()
        case "/health":
            return json_answer(200, {"status": "ok"})
        case "/big":
            return _big(request)
        case "/echo":
            return Answer(200, [request.body], {"content-type": "application/octet-stream"})
        case _:
            return json_answer(404, {"error": f"no such path: {request.path}"})


def _operation(request: Request, route: Route) -> Answer:
    try:
        plan = Plan.read(request.headers)
        body = json.loads(request.body)
    except PlanError as error:
        return route.refuse(400, str(error))
    except ValueError:
        return route.refuse(400, None)
    if not isinstance(body, dict):
        return route.refuse(400, None)
    model = str(body.get("model", ""))
    status = _status(request, model, plan)
    if status == 200:
        return route.operate(request, body, plan)
    refused = Operation(route.provider, route.operation, model, "", "", False, None)
    return replace(route.refuse(status, None), delay_s=plan.delay_ms / 1000, operation=refused)


def _status(request: Request, model: str, plan: Plan) -> int:
    key = request.headers.get("x-api-key") or request.headers.get("authorization", "").removeprefix("Bearer ")
    if request.method != "POST":
        return 405
    if key == INVALID_KEY:
        return 401
    wanted = model.removeprefix(ERROR_MODEL)
    return int(wanted) if wanted != model and wanted.isdigit() else plan.status


def _big(request: Request) -> Answer:
    """`/big?bytes=N`: N bytes that are nobody's LLM call."""
    text = request.query.get("bytes", "1048576")
    if not text.isdigit():
        return json_answer(400, {"error": "bytes wants a whole number"})
    return Answer(200, _blocks(int(text)), {"content-type": "application/octet-stream"}, length=int(text))


def _blocks(size: int) -> Iterator[bytes]:
    for start in range(0, size, len(BLOCK)):
        yield BLOCK[: size - start]
