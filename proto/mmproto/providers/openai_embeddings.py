"""OpenAI embeddings: input tokens and nothing else; there is no output to count."""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, VALUE, Tree
from mmproto.providers import openai_usage
from mmproto.providers.dialect import Dialect
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


class OpenAIEmbeddings(Dialect):
    """POST .../embeddings"""

    operation: ClassVar[str] = "embeddings"
    flavour: ClassVar[str] = "openai"
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _usage: Any = None

    def read_response(self, document: Any) -> None:
        """Takes a list of embeddings or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.terminated = True
        facts.response_shaped = isinstance(document.get("data"), list)
        facts.response_id = text(document.get("id"))
        facts.response_model = text(document.get("model"))
        self._usage = _input_only(document.get("usage"))
        if document.get("error"):
            self.take_error(document["error"], document.get("code"))

    def measured(self, *, complete: bool) -> Measured:
        """The input tokens."""
        return openai_usage.measure(self._usage, self.facts, self.quirks, has_output=False)


def _input_only(usage: Any) -> Any:
    """Some servers report only a total, which for embeddings is the input."""
    if isinstance(usage, dict) and usage.get("prompt_tokens") is None and usage.get("input_tokens") is None:
        return {"prompt_tokens": usage.get("total_tokens")}
    return usage


ROUTES: Final = (
    Route(r".*/deployments/(?P<deployment>[^/]+)/embeddings", OpenAIEmbeddings),
    Route(r"(?!/api/embeddings).*/embeddings", OpenAIEmbeddings),  # that one is Ollama's own dialect
)
