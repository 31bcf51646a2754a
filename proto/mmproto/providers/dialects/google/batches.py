"""What goes on around Gemini's answers: token counts, batches and cached contents.

To count tokens, to prepare a batch or to look at one costs nothing; the work of a batch is seen, and
charged, where its results are fetched as a file of JSON lines `{"key": ..., "response": {...}}`, each
response a call at the batch tier. (Results that a batch holds inline are shown again by every look at it,
and are not counted.)

A cached content is billed by token and hour for as long as it lives, whatever its size says: creating it is
a call without usage, and to look at, prolong or drop it costs nothing.

Sources: ai.google.dev/gemini-api/docs/batch-api, ai.google.dev/api/caching.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import VALUE, Tree
from mmproto.framing.payload import Style
from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.dialects.google.gemini import GeminiGenerate
from mmproto.providers.facts import Measured, Portion, text
from mmproto.providers.reasons import PREPARATION, RETRIEVAL, TOKEN_COUNTING
from mmproto.providers.route import GET, POST, Route

_GOOGLE: Final = frozenset({"gcp.gemini", "gcp.vertex_ai"})
_CHANGING: Final = frozenset({"PATCH", "DELETE"})
_BATCH: Final = "batch"


class _Around(Dialect):
    """An exchange without usage."""

    flavour: ClassVar[str] = "gcp.gemini"
    style: ClassVar[Style] = Style.ARRAY  # of an error
    request_tree: ClassVar[Tree] = {"model": VALUE}
    response_tree: ClassVar[Tree] = {"error": VALUE, "name": VALUE, "totalTokens": VALUE, "tokensInfo": VALUE}
    event_tree: ClassVar[Tree] = response_tree

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.facts.streamed = False

    def read_request(self, document: Any) -> None:
        """Takes the model, where the path does not name one."""
        if isinstance(document, dict):
            self.facts.request_model = self.facts.request_model or text(document.get("model"))

    def read_response(self, document: Any) -> None:
        """Takes an error, or that there is none."""
        if isinstance(document, dict):
            self.facts.terminated = True
            # The name of an operation has nothing of ours at a host that nobody knows.
            self.facts.response_shaped = "totalTokens" in document or "tokensInfo" in document
            if document.get("error"):
                self.take_error(document["error"])

    def measured(self, *, complete: bool) -> Measured:
        """Nothing is generated here."""
        return Measured()


class GeminiTokenCount(_Around):
    """POST .../models/MODEL:countTokens and :computeTokens"""

    operation: ClassVar[str] = "count_tokens"


class GeminiBatch(_Around):
    """POST .../models/MODEL:batchGenerateContent and all of .../batches and .../batchPredictionJobs"""

    operation: ClassVar[str] = _BATCH


class GeminiCache(_Around):
    """.../cachedContents"""

    operation: ClassVar[str] = "cache_storage"


class GeminiBatchResults(Dialect):
    """GET .../files/FILE:download"""

    operation: ClassVar[str] = "generate_content"
    flavour: ClassVar[str] = "gcp.gemini"
    style: ClassVar[Style] = Style.DOCUMENTS
    response_tree: ClassVar[Tree] = GeminiGenerate.response_tree
    event_tree: ClassVar[Tree] = GeminiGenerate.event_tree

    def read_response(self, document: Any) -> None:
        """Takes an error; results are events even where there is but one."""
        if isinstance(document, dict):
            self.take_event("", document)

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a line of the results, or an error in their place."""
        if "response" not in document and "usageMetadata" not in document:
            if document.get("error"):
                self.take_error(document["error"])
            return
        line = GeminiGenerate(Asked())
        line.read_response(document)
        line.facts.response_tier = _BATCH
        self.portions.append(Portion(line.facts, line.measured(complete=True)))
        self.is_container = True

    def close(self, *, complete: bool) -> None:
        """A file that holds no results is only fetched."""
        if not self.is_container:
            self.facts.free = RETRIEVAL

    def measured(self, *, complete: bool) -> Measured:
        """All there is, is in the portions."""
        return Measured()


_MODEL: Final = r".*/(?:models|tunedModels|endpoints)/(?P<model>[^/:]+):"
ROUTES: Final = (
    Route(rf"{_MODEL}(?:countTokens|computeTokens)", GeminiTokenCount, free=TOKEN_COUNTING),
    Route(r".*/v1internal:countTokens", GeminiTokenCount, free=TOKEN_COUNTING),
    Route(rf"{_MODEL}(?:batchGenerateContent|asyncBatchEmbedContent)", GeminiBatch, free=PREPARATION),
    Route(r".*/batchPredictionJobs", GeminiBatch, POST, _GOOGLE, PREPARATION),
    Route(r".*/(?:batches|batchPredictionJobs)(?:/[^/]+)?", GeminiBatch, GET | _CHANGING, _GOOGLE, RETRIEVAL),
    Route(
        r".*/(?:batches|batchPredictionJobs)/[^/]+:(?:cancel|delete)", GeminiBatch, POST, _GOOGLE, RETRIEVAL
    ),
    Route(r".*/cachedContents", GeminiCache, POST, _GOOGLE),
    Route(r".*/cachedContents(?:/[^/]+)?", GeminiCache, GET | _CHANGING, _GOOGLE, RETRIEVAL),
    Route(r".*/files/[^/:]+:download", GeminiBatchResults, GET, _GOOGLE),
)
