"""The OpenAI Responses API: typed events, usage always on the last one.

A background response is accepted by POST, has no usage there and costs nothing yet; it is fetched later by
GET, and the GET that finds it complete is what shows the spend. Polling repeats it under one response id, so
it counts once. A GET of any other stored response repeats a call that was already seen and costs nothing.

What tools of the provider did is beside the usage: searches are a unit, and images are drawn by a model of
their own, at its price, which makes them a call of their own.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, VALUE, Tree
from mmproto.providers import cost, plans
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import Dialect
from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.facts import Facts, Measured, Portion, text
from mmproto.providers.reasons import RESPONSE_PENDING, RETRIEVAL
from mmproto.providers.route import GET, Route

TREE: Final[Tree] = {
    "id": VALUE,
    "object": VALUE,
    "status": VALUE,
    "model": VALUE,
    "service_tier": VALUE,
    "background": VALUE,
    "incomplete_details": VALUE,
    "usage": VALUE,
    "tool_usage": VALUE,
    "tools": {EVERY: {"type": VALUE, "model": VALUE}},
    "output": {EVERY: {"type": VALUE, "action": {"type": VALUE}}},
    "copilot_usage": VALUE,
    "error": VALUE,
    "code": VALUE,
}
LAST_EVENTS: Final = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_TELLING: Final = frozenset({*LAST_EVENTS, "response.created", "response.queued", "error"})
_PENDING: Final = frozenset({"queued", "in_progress"})


class OpenAIResponses(Dialect):
    """POST .../responses, .../responses/compact, and GET .../responses/ID of a background response."""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "openai"
    response_tree: ClassVar[Tree] = TREE
    telling_names: ClassVar[frozenset[str]] = _TELLING
    event_tree: ClassVar[Tree] = {
        "type": VALUE,
        "code": VALUE,
        "error": VALUE,
        "message": VALUE,
        "copilot_usage": VALUE,
        "response": TREE,
    }

    _usage: Any = None
    _searches: int = 0
    _background: bool = False
    _pending: bool = False

    def read_response(self, document: Any) -> None:
        """Takes a response object or an error."""
        if not isinstance(document, dict):
            return
        self._take(document)
        self.facts.terminated = not self._pending

    def _take(self, document: dict[str, Any]) -> None:
        facts = self.facts
        facts.response_shaped = facts.response_shaped or str(document.get("object", "")).startswith(
            "response"
        )
        facts.response_id = text(document.get("id")) or facts.response_id
        facts.response_model = self._served(text(document.get("model")))
        facts.response_tier = text(document.get("service_tier")) or facts.response_tier
        self._background = document.get("background") is True
        if document.get("usage"):
            self._usage = document["usage"]
            self._searches = _searches(document)
            self.portions = drawn(document, facts)
        self._take_copilot(document)
        status = text(document.get("status"))
        self._pending = self._background and status in _PENDING
        if document.get("error") or status in ("failed", "cancelled"):
            self.take_error(document.get("error"), document.get("code") or status)
        elif status and status not in _PENDING:
            details = document.get("incomplete_details")
            reason = text(details.get("reason")) if isinstance(details, dict) else ""
            facts.finish_reasons = [reason or status]

    def _served(self, model: str) -> str:
        """The model that answered: on Azure the body may name the deployment, and a header knows better."""
        facts = self.facts
        known = facts.response_model
        if not model or (model == facts.request_model and known and not known.startswith(model)):
            return known
        return model

    def _take_copilot(self, document: dict[str, Any]) -> None:
        if (amount := cost.of_copilot(document.get("copilot_usage"))) is not None:
            self.facts.reported_cost_nano_usd = amount

    def tells(self, data: bytes) -> bool:
        """The events that carry a whole response, and errors; all others are deltas."""
        return (
            not self.facts.response_id or b'"response":' in data or b'"error"' in data or b": error" in data
        )

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a typed event."""
        kind = text(document.get("type")) or name
        response = document.get("response")
        if isinstance(response, dict):
            self._take(response)
        self._take_copilot(document)
        if kind in LAST_EVENTS:
            self.facts.terminated = True
        elif kind == "error" or (document.get("error") and response is None):
            self.take_error(document.get("error") or document, document.get("code"))
            self.facts.terminated = True

    def close(self, *, complete: bool) -> None:
        """Knows now whether this exchange showed a spend, and who pays."""
        plans.mark(self.asked, self.facts)
        if self._pending:
            self.facts.free = RESPONSE_PENDING
        elif self.asked.method == "GET" and not (self._background and self.facts.terminated):
            self.facts.free = RETRIEVAL

    def measured(self, *, complete: bool) -> Measured:
        """The usage of the last event."""
        result = openai_usage.measure(self._usage, self.facts, self.quirks)
        if self._searches:
            result.units.setdefault("web_searches", float(self._searches))
        return result


def _searches(document: dict[str, Any]) -> int:
    """Searches of the web that the provider made. Opening a page that was found costs nothing."""
    used = document.get("tool_usage")
    if isinstance(used, dict) and isinstance(search := used.get("web_search"), dict):
        return Counts(Facts()).get(search, "num_requests") or 0
    items = document.get("output")
    return sum(_is_search(item) for item in items) if isinstance(items, list) else 0


def _is_search(item: Any) -> bool:
    if not isinstance(item, dict) or item.get("type") != "web_search_call":
        return False
    action = item.get("action")
    return not isinstance(action, dict) or action.get("type") in (None, "search")


def drawn(document: dict[str, Any], facts: Facts) -> list[Portion]:
    """The images that the model had another model draw, as a call of that model."""
    used = document.get("tool_usage")
    usage = used.get("image_gen") if isinstance(used, dict) else None
    tools = document.get("tools")
    models = [
        text(tool.get("model"))
        for tool in (tools if isinstance(tools, list) else ())
        if isinstance(tool, dict) and tool.get("type") == "image_generation"
    ]
    own = Facts(
        request_model=models[0] if models else "",
        response_id=facts.response_id,
        response_tier=facts.response_tier,
        end_user=facts.end_user,
        session=facts.session,
    )
    measured = openai_usage.measure_images(usage, own)
    if not any(measured.tokens.values()):
        return []
    return [Portion(own, measured, "image_generation", suffix="#image_gen")]


_WITH_OTHER_IDS: Final = frozenset(
    {"x_ai", "openrouter", "groq", "deepseek", "aws.bedrock", "alibaba", "ollama"}
)
ROUTES: Final = (
    Route(r".*/responses(/compact)?", OpenAIResponses),
    Route(r".*/v1/agent", OpenAIResponses, providers=frozenset({"perplexity"})),
    Route(r".*/responses/resp_[^/]+/cancel", OpenAIResponses, free=RETRIEVAL),
    Route(r".*/responses/resp_[^/]+", OpenAIResponses, methods=GET),
    # Not everybody's ids begin so.
    Route(r".*/v1/responses/[^/]+", OpenAIResponses, methods=GET, providers=_WITH_OTHER_IDS),
)
