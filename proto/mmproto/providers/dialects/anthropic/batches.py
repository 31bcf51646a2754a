"""Anthropic's message batches, and what counts tokens without generating any.

To create, list, look at or cancel a batch costs nothing; its work is seen, and charged, where the results
are fetched: JSON lines `{"custom_id": ..., "result": {"type": "succeeded", "message": {...}}}`, each
message a call at the batch tier. A message's id makes fetching twice the same call. What errored, expired
or was cancelled is not billed. Results of one line look like any JSON document.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.framing.payload import Style
from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.dialects.anthropic.messages import MESSAGE, AnthropicMessages
from mmproto.providers.facts import Measured, Portion, text
from mmproto.providers.reasons import PREPARATION, RETRIEVAL, TOKEN_COUNTING
from mmproto.providers.route import GET, Route

_BATCH: Final = "batch"
_LINE: Final[Tree] = {"result": {"type": VALUE, "message": MESSAGE}, "type": VALUE, "error": VALUE}


class AnthropicTokenCount(AnthropicMessages):
    """POST .../v1/messages/count_tokens"""

    operation: ClassVar[str] = "count_tokens"

    def read_response(self, document: Any) -> None:
        """Takes a count, which is no usage, or an error."""
        self.facts.response_shaped = isinstance(document, dict) and "input_tokens" in document
        self.facts.terminated = True
        if isinstance(document, dict) and document.get("error"):
            self.take_error(document["error"])

    response_tree: ClassVar[Tree] = {"input_tokens": VALUE, "error": VALUE}


class AnthropicBatch(Dialect):
    """.../v1/messages/batches and what is below it, results aside"""

    operation: ClassVar[str] = _BATCH
    flavour: ClassVar[str] = "anthropic"
    response_tree: ClassVar[Tree] = {"type": VALUE, "data": PRESENT, "error": VALUE}
    event_tree: ClassVar[Tree] = response_tree

    def read_response(self, document: Any) -> None:
        """Takes a batch, a list of them, or an error."""
        if isinstance(document, dict):
            self.facts.terminated = True
            self.facts.response_shaped = "batch" in text(document.get("type")) or "data" in document
            if document.get("error"):
                self.take_error(document["error"])

    def measured(self, *, complete: bool) -> Measured:
        """The batch itself generates nothing."""
        return Measured()


class AnthropicBatchResults(AnthropicBatch):
    """GET .../v1/messages/batches/{id}/results"""

    style: ClassVar[Style] = Style.DOCUMENTS
    response_tree: ClassVar[Tree] = _LINE
    event_tree: ClassVar[Tree] = _LINE

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.is_container = True

    def read_response(self, document: Any) -> None:
        """Takes a line, or an error in place of all of them."""
        if not isinstance(document, dict):
            return
        result = document.get("result")
        if isinstance(result, dict):
            self.facts.response_shaped = True
            if isinstance(result.get("message"), dict):
                self._tell(result["message"])
        elif document.get("error"):
            self.take_error(document["error"])

    def _tell(self, message: dict[str, Any]) -> None:
        """A line is read as the answer that it would have been."""
        line = AnthropicMessages(self.asked)
        line.read_response(message)
        line.close(complete=True)
        measured = line.measured(complete=True)
        line.facts.request_model = line.facts.response_model
        for portion in (Portion(line.facts, measured, AnthropicMessages.operation), *line.portions):
            portion.facts.response_tier = _BATCH
            portion.operation = AnthropicMessages.operation
            self.portions.append(portion)

    def tells(self, data: bytes) -> bool:
        """What succeeded, and an error."""
        return b'"message"' in data or b'"error"' in data


_ALL: Final = frozenset({"GET", "POST", "DELETE"})
ROUTES: Final = (
    Route(r".*/v1/messages/count_tokens", AnthropicTokenCount, free=TOKEN_COUNTING),
    Route(r".*/v1/messages/batches/[^/]+/results", AnthropicBatchResults, methods=GET),
    Route(r".*/v1/messages/batches", AnthropicBatch, free=PREPARATION),
    Route(r".*/v1/messages/batches/[^/]+(/cancel)?", AnthropicBatch, methods=_ALL, free=RETRIEVAL),
    Route(r".*/v1/messages/batches", AnthropicBatch, methods=GET, free=RETRIEVAL),
)
