"""Batches of OpenAI and its copies: the work is seen, and charged, where the results are fetched.

To create, list, look at or cancel a batch costs nothing, and the usage that a batch reports is a sum that its
results repeat. The results are a file of JSON lines `{"custom_id": ..., "response": {"status_code": 200,
"body": {...}}}`, each body what the request would have been answered with alone: a call at the batch tier. An
answer's id makes fetching twice the same call. What failed is not billed, and a file of anything else is just
a file. xAI gives pages of results in a document of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree
from mmproto.framing.payload import Style
from mmproto.providers.dialect import Dialect
from mmproto.providers.dialects.openai import chat as openai_chat
from mmproto.providers.dialects.openai import responses as openai_responses
from mmproto.providers.dialects.openai.chat import OpenAIChat, OpenAICompletions
from mmproto.providers.dialects.openai.embeddings import OpenAIEmbeddings
from mmproto.providers.dialects.openai.images import OpenAIImages
from mmproto.providers.dialects.openai.responses import OpenAIResponses
from mmproto.providers.facts import Measured, Portion, text
from mmproto.providers.reasons import PREPARATION, RETRIEVAL
from mmproto.providers.route import GET, Route

BATCH: Final = "batch"

# Whatever endpoint a batch was for.
_BODY: Final[Tree] = {
    **openai_responses.TREE,
    **openai_chat.TREE,
    "data": {EVERY: {"object": VALUE, "url": PRESENT, "b64_json": PRESENT}},
}
_LINE: Final[Tree] = {
    "id": VALUE,
    "response": {"status_code": VALUE, "body": _BODY},
    "error": VALUE,
    "code": VALUE,
}
_RESULT: Final[Tree] = {"response": {"chat_get_completion": _BODY}}
_BY_OBJECT: Final[dict[str, type[Dialect]]] = {
    "chat.completion": OpenAIChat,
    "text_completion": OpenAICompletions,
    "response": OpenAIResponses,
    "response.compaction": OpenAIResponses,
}


class OpenAIBatch(Dialect):
    """.../batches and what is below it, results aside"""

    operation: ClassVar[str] = BATCH
    flavour: ClassVar[str] = "openai"
    response_tree: ClassVar[Tree] = {"object": VALUE, "model": VALUE, "error": VALUE, "code": VALUE}
    event_tree: ClassVar[Tree] = response_tree

    def read_response(self, document: Any) -> None:
        """Takes a batch, a list of them, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.terminated = True
        facts.response_shaped = document.get("object") in ("batch", "list")
        facts.response_model = text(document.get("model"))
        if document.get("error"):
            self.take_error(document["error"], document.get("code"))

    def measured(self, *, complete: bool) -> Measured:
        """The batch itself generates nothing."""
        return Measured()


class OpenAIFile(OpenAIBatch):
    """GET .../files/ID/content"""

    style: ClassVar[Style] = Style.DOCUMENTS
    answers_bytes: ClassVar[bool] = True
    response_tree: ClassVar[Tree] = _LINE
    event_tree: ClassVar[Tree] = _LINE

    def read_response(self, document: Any) -> None:
        """Takes a line of a file, or an error in place of it."""
        if not isinstance(document, dict):
            return
        response = document.get("response")
        if isinstance(response, dict):
            body = response.get("body")
            if response.get("status_code") == 200 and isinstance(body, dict):
                self._tell(body, text(document.get("id")))
        elif document.get("error") and "id" not in document:
            self.take_error(document["error"], document.get("code"))

    def tells(self, data: bytes) -> bool:
        """What was answered, and an error."""
        return b'"body"' in data or b'"error"' in data

    def _tell(self, body: dict[str, Any], line_id: str) -> None:
        """A line is read as the answer that it would have been."""
        dialect = _dialect_of(body)
        if dialect is None:
            return
        line = dialect(replace(self.asked, method="POST", names={}, free=""))
        line.read_response(body)
        line.close(complete=True)
        own = Portion(line.facts, line.measured(complete=True), dialect.operation)
        line.facts.response_id = line.facts.response_id or line_id
        for portion in line.portions if line.is_container else (own, *line.portions):
            portion.facts.response_tier = BATCH
            portion.operation = portion.operation or dialect.operation
            self.portions.append(portion)
        self.facts.response_shaped = True

    def close(self, *, complete: bool) -> None:
        """Knows now whether it was the results of a batch."""
        self.is_container = bool(self.portions)
        self.facts.free = "" if self.is_container else RETRIEVAL


class XaiBatchResults(OpenAIFile):
    """GET .../batches/ID/results, a page of them"""

    style: ClassVar[Style] = Style.DOCUMENT
    response_tree: ClassVar[Tree] = {"results": {EVERY: {"batch_result": _RESULT}}, "error": VALUE}

    def read_response(self, document: Any) -> None:
        """Takes a page, or an error."""
        if not isinstance(document, dict):
            return
        results = document.get("results")
        for result in results if isinstance(results, list) else ():
            place: Any = result
            for name in ("batch_result", "response", "chat_get_completion"):
                place = place.get(name) if isinstance(place, dict) else None
            if isinstance(place, dict):
                self._tell(place, "")
        if document.get("error"):
            self.take_error(document["error"])


def _dialect_of(body: dict[str, Any]) -> type[Dialect] | None:
    """Which API answers like this."""
    if (known := _BY_OBJECT.get(text(body.get("object")))) is not None:
        return known
    if isinstance(body.get("choices"), list):
        return OpenAIChat
    items = body.get("data")
    first = items[0] if isinstance(items, list) and items else None
    if not isinstance(first, dict):
        return None
    return OpenAIEmbeddings if first.get("object") == "embedding" else OpenAIImages


_ALL: Final = frozenset({"GET", "POST"})
_WITH_BATCHES: Final = frozenset(
    {"openai", "azure.ai.openai", "mistral_ai", "groq", "together", "x_ai", "alibaba", "moonshot_ai", "zhipu"}
    | {"siliconflow", "novita", "deepinfra", "nebius", "sambanova", "fireworks", "portkey"}
)
ROUTES: Final = (
    Route(r".*/v1/batches", OpenAIBatch, free=PREPARATION),
    Route(r".*/v1/batches", OpenAIBatch, methods=GET, free=RETRIEVAL),
    Route(r".*/v1/batches/[^/]+/results", XaiBatchResults, methods=GET, providers=frozenset({"x_ai"})),
    Route(r".*/v1/batches/[^/]+(/cancel)?", OpenAIBatch, methods=_ALL, free=RETRIEVAL),
    Route(r"/openai/batches", OpenAIBatch, free=PREPARATION),  # Azure's older API
    Route(r"/openai/batches(/[^/]+(/cancel)?)?", OpenAIBatch, methods=_ALL, free=RETRIEVAL),
    Route(r".*/v1/files/[^/]+/content", OpenAIFile, methods=GET, providers=_WITH_BATCHES),
    # Elsewhere only files whose name says that they may be results: others are downloads like any.
    Route(r".*/files/(file|batch)[-_][^/]+/content", OpenAIFile, methods=GET),
)
