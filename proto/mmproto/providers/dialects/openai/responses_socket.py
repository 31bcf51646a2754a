"""The Responses API over WebSocket: one connection, a response after another, the events as in its streams.

The client sends `response.create` with what a POST would hold; the server's events follow. Each response is
read as the exchange that it would have been, and is a call.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Final

from mmproto.framing.events import Event
from mmproto.framing.jsonpick import VALUE, JsonBody, MalformedJson, Tree
from mmproto.providers.dialect import REQUEST_TREE, Asked, Dialect
from mmproto.providers.dialects.openai.responses import LAST_EVENTS, OpenAIResponses
from mmproto.providers.facts import Measured, Portion
from mmproto.providers.route import GET, Route


class OpenAIResponsesSocket(Dialect):
    """GET .../responses, upgraded to WebSocket"""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "openai"
    speaks_websocket: ClassVar[bool] = True
    response_tree: ClassVar[Tree] = {"error": VALUE, "code": VALUE}
    event_tree: ClassVar[Tree] = OpenAIResponses.event_tree

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.is_container = True
        self._request: JsonBody | None = None
        self._next = self._reader()

    def _reader(self) -> OpenAIResponses:
        reader = OpenAIResponses(replace(self.asked, method="POST"))
        reader.facts.streamed = True
        return reader

    def read_response(self, document: Any) -> None:
        """Takes an error in place of a connection."""
        if isinstance(document, dict) and document.get("error"):
            self.take_error(document["error"], document.get("code"))

    def read_request_event(self, event: Event) -> None:
        """Takes what the client asks for, which may be large."""
        if self._request is None:
            self._request = JsonBody({**REQUEST_TREE, "type": VALUE})
        self._request.feed(event.data)
        if not event.last:
            return
        request, self._request = self._request, None
        try:
            document = request.finish()
        except MalformedJson:
            return
        if isinstance(document, dict) and document.get("type") == "response.create":
            self._next.read_request(document)
            self.facts.request_shaped = True

    def read_event(self, event: Event) -> None:
        """Takes a message of the server, all of which are text."""
        if event.name not in ("binary", "close"):
            super().read_event(event)

    def tells(self, data: bytes) -> bool:
        """As in a stream."""
        return self._next.tells(data)

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a server's event."""
        self._next.take_event("", document)
        if document.get("type") in LAST_EVENTS or self._next.facts.error_type is not None:
            self.facts.response_shaped = True
            self._tell()

    def _tell(self) -> None:
        reader, self._next = self._next, self._reader()
        # The next request may say nothing of its model: it goes on with the one before.
        self._next.facts.request_model = reader.facts.request_model
        reader.close(complete=True)
        own = Portion(reader.facts, reader.measured(complete=True))
        self.portions += (own, *reader.portions)

    def close(self, *, complete: bool) -> None:
        """A response that was begun and did not end was served, for a price that is not known."""
        if self._next.facts.response_id:
            self._tell()

    def measured(self, *, complete: bool) -> Measured:
        """All is in the portions."""
        return Measured()


ROUTES: Final = (Route(r".*/(v1|codex)/responses", OpenAIResponsesSocket, methods=GET),)
