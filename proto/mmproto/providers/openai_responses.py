"""The OpenAI Responses API: typed events, usage always on the last one.

A background response is accepted by POST, has no usage there and costs nothing yet; it is fetched later by
GET, and the GET that finds it complete is what shows the spend. Polling repeats it under one response id, so
it counts once. A GET of any other stored response repeats a call that was already seen and costs nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import VALUE, Tree
from mmproto.providers import openai_usage
from mmproto.providers.dialect import Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import GET, Route

_TREE: Tree = {
    "id": VALUE,
    "object": VALUE,
    "status": VALUE,
    "model": VALUE,
    "service_tier": VALUE,
    "background": VALUE,
    "incomplete_details": VALUE,
    "usage": VALUE,
    "error": VALUE,
    "code": VALUE,
}
_LAST_EVENTS: Final = ("response.completed", "response.incomplete", "response.failed", "response.cancelled")
_TELLING: Final = frozenset({*_LAST_EVENTS, "response.created", "response.queued", "error"})
_PENDING: Final = frozenset({"queued", "in_progress"})
RETRIEVAL: Final = "retrieval"
RESPONSE_PENDING: Final = "response_pending"


class OpenAIResponses(Dialect):
    """POST .../responses, .../responses/compact, and GET .../responses/ID of a background response."""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "openai"
    response_tree: ClassVar[Tree] = _TREE
    telling_names: ClassVar[frozenset[str]] = _TELLING
    event_tree: ClassVar[Tree] = {
        "type": VALUE,
        "code": VALUE,
        "error": VALUE,
        "message": VALUE,
        "response": _TREE,
    }

    _usage: Any = None
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
        facts.response_model = text(document.get("model")) or facts.response_model
        facts.response_tier = text(document.get("service_tier")) or facts.response_tier
        self._background = document.get("background") is True
        if document.get("usage"):
            self._usage = document["usage"]
        status = text(document.get("status"))
        self._pending = self._background and status in _PENDING
        if document.get("error") or status in ("failed", "cancelled"):
            self.take_error(document.get("error"), document.get("code") or status)
        elif status and status not in _PENDING:
            details = document.get("incomplete_details")
            reason = text(details.get("reason")) if isinstance(details, dict) else ""
            facts.finish_reasons = [reason or status]

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
        if kind in _LAST_EVENTS:
            self.facts.terminated = True
        elif kind == "error" or (document.get("error") and response is None):
            self.take_error(document.get("error") or document, document.get("code"))
            self.facts.terminated = True

    def close(self, *, complete: bool) -> None:
        """Knows now whether this exchange showed a spend."""
        if self._pending:
            self.facts.free = RESPONSE_PENDING
        elif self.asked.method == "GET" and not (self._background and self.facts.terminated):
            self.facts.free = RETRIEVAL

    def measured(self, *, complete: bool) -> Measured:
        """The usage of the last event."""
        return openai_usage.measure(self._usage, self.facts, self.quirks)


ROUTES: Final = (
    Route(r".*/responses(/compact)?", OpenAIResponses),
    Route(r".*/v1/responses/resp_[^/]+", OpenAIResponses, methods=GET),
)
