"""Ollama's own API: answers are JSON lines unless the request says `"stream": false`.

The last line has `done: true` and the counts: `prompt_eval_count`, all of the prompt (older servers leave
it out where the prompt was cached: then the input is missing, not 0), of which `prompt_eval_cached_count`
came from the cache, and `eval_count`. A request without a prompt only loads or unloads a model
(`done_reason`): nothing is generated. `/api/embeddings`, the older of two, counts nothing.

Errors are texts: `{"error": "..."}`, also as a line inside of a stream.

Many applications have a path `/api/chat`; at a host that is not known only the answer shows whether it is
this.

Source: Ollama's API documentation and `api/types.go`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.framing.payload import Style
from mmproto.providers.counts import Counts, divide
from mmproto.providers.dialect import Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import PREPARATION
from mmproto.providers.route import Route

_TREE: Final[Tree] = {
    "model": VALUE,
    "created_at": VALUE,
    "done": VALUE,
    "done_reason": VALUE,
    "prompt_eval_count": VALUE,
    "prompt_eval_cached_count": VALUE,
    "eval_count": VALUE,
    "embeddings": PRESENT,
    "embedding": PRESENT,
    "error": VALUE,
}
_LOADING: Final = frozenset({"load", "unload"})
_LINES: Final = "ndjson"


class OllamaChat(Dialect):
    """POST /api/chat"""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "ollama"
    style: ClassVar[Style] = Style.DOCUMENTS
    has_output: ClassVar[bool] = True
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _last: dict[str, Any] | None = None

    def read_request(self, document: Any) -> None:
        """As every request, but streaming is what happens unless it is refused."""
        super().read_request(document)
        facts = self.facts
        facts.request_shaped = False
        if self.has_output and isinstance(document, dict):
            facts.stream_requested = document.get("stream") is not False

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """The type of the answer says whether it is a stream, even of one line."""
        super().read_response_head(status, headers)
        self.facts.streamed = _LINES in headers.get("content-type", "")

    def read_response(self, document: Any) -> None:
        """Takes a line of an answer, a whole one, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.response_model = text(document.get("model")) or facts.response_model
        if "created_at" in document and "done" in document:
            facts.response_shaped = True
            facts.streamed = facts.streamed or document["done"] is False
        if document.get("error"):
            self.take_error(document["error"])
            facts.terminated = True
        elif document.get("done") is True:
            facts.terminated = True
            self._last = document
            reason = text(document.get("done_reason"))
            if reason in _LOADING:
                facts.free = PREPARATION
            elif reason:
                facts.finish_reasons = [reason]

    def tells(self, data: bytes) -> bool:
        """The first line, which says who answers, the last one, and errors."""
        return not self.facts.response_model or b"true" in data or b'"error"' in data

    def measured(self, *, complete: bool) -> Measured:
        """The counts of the last line."""
        last, counts = self._last, Counts(self.facts)
        tokens: dict[str, int] = {}
        whole_input = counts.get(last, "prompt_eval_count")
        if whole_input is not None:
            cached = counts.get(last, "prompt_eval_cached_count")
            divide(counts, tokens, "input", whole_input, {"input_cache_read": cached})
        output = counts.get(last, "eval_count") if self.has_output else None
        if output is not None:
            tokens["output"] = output
        if not tokens:
            return Measured()
        whole = whole_input is not None and (output is not None or not self.has_output)
        return Measured(tokens, {}, counts.quality(whole=whole))


class OllamaGenerate(OllamaChat):
    """POST /api/generate"""

    operation: ClassVar[str] = "text_completion"


class OllamaEmbed(OllamaChat):
    """POST /api/embed and /api/embeddings"""

    operation: ClassVar[str] = "embeddings"
    has_output: ClassVar[bool] = False

    def read_response(self, document: Any) -> None:
        """Takes vectors or an error."""
        super().read_response(document)
        if isinstance(document, dict) and ("embeddings" in document or "embedding" in document):
            self.facts.terminated = True
            self.facts.response_shaped = "model" in document
            self._last = document


ROUTES: Final = (
    Route(r".*/api/chat", OllamaChat),
    Route(r".*/api/generate", OllamaGenerate),
    Route(r".*/api/embed(dings)?", OllamaEmbed),
)
