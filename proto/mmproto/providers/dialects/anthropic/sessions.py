"""Anthropic's managed agents: sessions at the provider, whose events say what each model request used.

To set up an agent or a session and to send it messages costs nothing by itself. Its work shows in the
session's events, streamed or fetched in pages: each `span.model_request_end` has the `model_usage` of one
request, in the shape of a message's usage, and an id of its own, so that an event that is seen twice is one
call. Which model it was the event does not always say; without a name there is no price, and no number is
invented.

Source: the documentation of Claude Managed Agents.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.dialects.anthropic import usage as anthropic_usage
from mmproto.providers.facts import Facts, Measured, Portion, text
from mmproto.providers.route import GET, POST, Route

_EVENT: Final[Tree] = {
    "id": VALUE,
    "type": VALUE,
    "model": VALUE,
    "model_usage": VALUE,
    "is_error": VALUE,
}
_TREE: Final[Tree] = {**_EVENT, "data": {EVERY: _EVENT}, "error": VALUE}
_REQUEST_END: Final = "span.model_request_end"


class AnthropicSession(Dialect):
    """.../v1/sessions and .../v1/agents: what is set up, sent and looked at"""

    operation: ClassVar[str] = "invoke_agent"
    flavour: ClassVar[str] = "anthropic"
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    def read_response(self, document: Any) -> None:
        """Takes an object of the API or an error."""
        self.facts.terminated = True
        if isinstance(document, dict) and document.get("error"):
            self.take_error(document["error"])

    def measured(self, *, complete: bool) -> Measured:
        """Nothing is generated here."""
        return Measured()


class AnthropicSessionEvents(AnthropicSession):
    """GET .../v1/sessions/{id}/events, and the same as a stream"""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.is_container = True

    def read_response(self, document: Any) -> None:
        """Takes a page of events, or an error."""
        super().read_response(document)
        page = document.get("data") if isinstance(document, dict) else None
        for event in page if isinstance(page, list) else ():
            if isinstance(event, dict):
                self._take(event)

    def tells(self, data: bytes) -> bool:
        """The ends of model requests."""
        return _REQUEST_END.encode() in data or b'"error"' in data

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes an event of the stream."""
        self._take(document)
        if document.get("error"):
            self.take_error(document["error"])

    def _take(self, event: dict[str, Any]) -> None:
        if text(event.get("type")) != _REQUEST_END:
            return
        model = text(event.get("model"))
        facts = Facts(
            request_model=model,
            response_id=text(event.get("id")),
            response_model=model,
            session=self.asked.names.get("session", ""),
            error_type="" if event.get("is_error") is True else None,
            terminated=True,
        )
        usage, counts = event.get("model_usage"), Counts(facts)
        used = anthropic_usage.count(
            counts, usage if isinstance(usage, dict) else {}, model, with_output=True
        )
        quality = counts.quality(whole=used.whole)
        measured = Measured(used.tokens, {}, quality) if used.tokens else Measured()
        self.portions.append(Portion(facts, measured, "chat"))


_ANTHROPIC: Final = frozenset({AnthropicSession.flavour})
_THREAD: Final = r".*/v1/sessions/(?P<session>[^/]+)(/threads/[^/]+)?"
ROUTES: Final = (
    Route(rf"{_THREAD}(/events)?/stream", AnthropicSessionEvents, GET, _ANTHROPIC),
    Route(rf"{_THREAD}/events", AnthropicSessionEvents, GET, _ANTHROPIC),
    Route(r".*/v1/(sessions|agents|environments)(/.*)?", AnthropicSession, POST, _ANTHROPIC, "preparation"),
    Route(r".*/v1/(sessions|agents|environments)(/.*)?", AnthropicSession, GET, _ANTHROPIC, "retrieval"),
)
