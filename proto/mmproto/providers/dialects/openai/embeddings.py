"""OpenAI embeddings and their copies: input tokens and nothing else; there is no output to count.

Voyage reports a total, in which images and videos are counted as tokens, and beside it how many of them are
text.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route

_TREE: Tree = {
    "id": VALUE,
    "object": VALUE,
    "model": VALUE,
    "usage": VALUE,
    "error": VALUE,
    "code": VALUE,
    "data": {EVERY: {"object": VALUE}},
}

_INPUT: Final = ("prompt_tokens", "input_tokens")


class OpenAIEmbeddings(Dialect):
    """POST .../embeddings"""

    operation: ClassVar[str] = "embeddings"
    flavour: ClassVar[str] = "openai"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "inputs": PRESENT}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _usage: Any = None

    def read_request(self, document: Any) -> None:
        """Takes a request; Voyage's other endpoints name what is embedded in the plural."""
        super().read_request(document)
        if isinstance(document, dict):
            self.facts.request_shaped = self.facts.request_shaped or "inputs" in document

    def read_response(self, document: Any) -> None:
        """Takes a list of embeddings or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.terminated = True
        facts.response_shaped = isinstance(document.get("data"), list)
        facts.response_id = text(document.get("id"))
        facts.response_model = text(document.get("model")) or facts.response_model
        self._usage = _input_only(document.get("usage"))
        if document.get("error"):
            self.take_error(document["error"], document.get("code"))

    def measured(self, *, complete: bool) -> Measured:
        """The input tokens."""
        return openai_usage.measure(self._usage, self.facts, self.quirks, has_output=False)


def _input_only(usage: Any) -> Any:
    """Some servers report only a total, which for embeddings is the input."""
    if not isinstance(usage, dict) or any(usage.get(name) is not None for name in _INPUT):
        return usage
    found = {**usage, "prompt_tokens": usage.get("total_tokens")}
    whole, written = usage.get("total_tokens"), usage.get("text_tokens")
    if isinstance(whole, int) and isinstance(written, int) and usage.get("image_pixels"):
        found["prompt_tokens_details"] = {"image_tokens": whole - written}
    return found


ROUTES: Final = (
    Route(r".*/deployments/(?P<deployment>[^/]+)/embeddings", OpenAIEmbeddings),
    Route(r".*/engines/(?P<model>[^/]+)/embeddings", OpenAIEmbeddings),
    Route(r"(?!/api/embeddings).*/embeddings", OpenAIEmbeddings),  # that one is Ollama's own dialect
    Route(r".*/v1/(multimodal|contextualized)embeddings", OpenAIEmbeddings),
    Route(r".*/api/v3/embeddings/multimodal", OpenAIEmbeddings),  # Volcengine
)
