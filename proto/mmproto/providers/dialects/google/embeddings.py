"""Gemini embeddings: embedContent and batchEmbedContents. Input only, and often no usage at all."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree
from mmproto.framing.payload import Style
from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.dialects.google.usage import TOTAL, RunningUsage
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route

_TREE: Final[Tree] = {
    "embedding": PRESENT,
    "embeddings": PRESENT,
    "usageMetadata": VALUE,
    "error": VALUE,
}


class GeminiEmbeddings(Dialect):
    """POST .../models/MODEL:embedContent and :batchEmbedContents"""

    operation: ClassVar[str] = "embeddings"
    flavour: ClassVar[str] = "gcp.gemini"
    style: ClassVar[Style] = Style.ARRAY  # of an error
    request_tree: ClassVar[Tree] = {"content": PRESENT, "requests": {EVERY: {"content": PRESENT}}}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._usage = RunningUsage()
        self.facts.streamed = False

    def read_request(self, document: Any) -> None:
        """Takes the request. The model in it is the path's, with a prefix."""
        if isinstance(document, dict):
            requests = document.get("requests")
            self.facts.request_shaped = "content" in document or bool(
                isinstance(requests, list) and requests and requests[0]
            )

    def read_response(self, document: Any) -> None:
        """Takes embeddings or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.terminated = True
        facts.response_shaped = "embedding" in document or "embeddings" in document
        usage = document.get("usageMetadata")
        if isinstance(usage, dict):
            whole = usage.get("promptTokenCount", usage.get(TOTAL))
            self._usage.take({**usage, "promptTokenCount": whole})
            facts.response_tier = text(usage.get("serviceTier")).lower() or facts.response_tier
        if document.get("error"):
            self.take_error(document["error"])

    def measured(self, *, complete: bool) -> Measured:
        """The input tokens."""
        return self._usage.measure(self.facts, finished=complete, has_output=False)


ROUTES: Final = (
    Route(
        r".*/(?:models|tunedModels)/(?P<model>[^/:]+):(?:embedContent|batchEmbedContents|embedText|batchEmbedText)",
        GeminiEmbeddings,
    ),
)
