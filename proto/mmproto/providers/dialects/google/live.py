"""Gemini Live: a conversation over WebSocket, each of whose turns is a call of its own.

The client's first message, `setup`, names the model. The server tells usage with the messages of its turns:
`usageMetadata` counts one turn, with everything that was said before it as its prompt, so the session costs
the sum of them. Messages are JSON in text or binary frames.

Sources: ai.google.dev/api/live,
cloud.google.com/vertex-ai/generative-ai/docs/model-reference/multimodal-live.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

import orjson

from mmproto.framing.events import Event
from mmproto.framing.jsonpick import PRESENT, VALUE, Tree, prune
from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.dialects.google.usage import RunningUsage
from mmproto.providers.facts import Facts, Measured, Portion, text
from mmproto.providers.route import Route

_SETUP: Final[Tree] = {"setup": {"model": VALUE}}


class GeminiLive(Dialect):
    """GET (upgrade) /ws/....BidiGenerateContent"""

    operation: ClassVar[str] = "generate_content"
    flavour: ClassVar[str] = "gcp.gemini"
    speaks_websocket: ClassVar[bool] = True
    response_tree: ClassVar[Tree] = {"error": VALUE}
    event_tree: ClassVar[Tree] = {
        "usageMetadata": VALUE,
        "serverContent": {"modelTurn": PRESENT, "turnComplete": VALUE, "interrupted": VALUE},
        "toolCall": PRESENT,
        "error": VALUE,
    }

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.is_container = True
        self.facts.streamed = True
        self._answered = False  # the model has said something that no usage has been told of

    def read_request_event(self, event: Event) -> None:
        """Takes a message of the client: the first one names the model."""
        if self.facts.request_model or not event.last or b'"setup"' not in event.data:
            return
        try:
            document = prune(orjson.loads(event.data), _SETUP)
        except orjson.JSONDecodeError:
            return
        setup = document.get("setup") if isinstance(document, dict) else None
        if isinstance(setup, dict):
            self.facts.request_model = text(setup.get("model")).rpartition("/")[2]

    def read_response(self, document: Any) -> None:
        """Takes the error of an upgrade that was refused."""
        if isinstance(document, dict) and document.get("error"):
            self.take_error(document["error"])

    def tells(self, data: bytes) -> bool:
        """Most messages are audio."""
        return not self._answered or b"TokenCount" in data or b'"error"' in data

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a message of the server."""
        content = document.get("serverContent")
        if "toolCall" in document or (isinstance(content, dict) and "modelTurn" in content):
            self._answered = True
        usage = RunningUsage()
        usage.take(document.get("usageMetadata"))
        if not usage.is_empty:
            facts = self._turn()
            self.portions.append(Portion(facts, usage.measure(facts, finished=True)))
            self._answered = False
        if document.get("error"):
            self.take_error(document["error"])

    def close(self, *, complete: bool) -> None:
        """A turn that the end of the session cut off was worked on, and nobody says how much it cost."""
        if self._answered:
            self.portions.append(Portion(self._turn(), Measured()))

    def _turn(self) -> Facts:
        return Facts(request_model=self.facts.request_model, streamed=True, terminated=True)

    def measured(self, *, complete: bool) -> Measured:
        """All there is, is in the turns."""
        return Measured()


ROUTES: Final = (
    Route(
        r".*(?:GenerativeService|LlmBidiService)[./]BidiGenerateContent(?:Constrained)?",
        GeminiLive,
        methods=frozenset({"GET", "CONNECT"}),
    ),
)
