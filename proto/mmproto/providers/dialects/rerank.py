"""Reranking, whoever offers it: all copied Cohere's request, and each bills in its own unit.

Cohere bills `meta.billed_units.search_units`, Pinecone `usage.rerank_units`, by the query; Voyage, Jina,
OpenRouter and most servers bill tokens, which they put into `usage` (often a total alone) or, as
SiliconFlow, into `meta`. Nothing is generated, so a total is input. Where both are reported, the units are
what is billed.

Sources: the API references of Cohere, Voyage AI, Jina AI, OpenRouter, Pinecone, SiliconFlow and Together;
vLLM and llama.cpp (`/rerank`, `/v1/rerank`, `/reranking`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers import cost
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route

_TREE: Final[Tree] = {
    "id": VALUE,
    "model": VALUE,
    "usage": VALUE,
    "meta": VALUE,
    "results": PRESENT,
    "data": PRESENT,
    "rankings": PRESENT,
    "error": VALUE,
    "detail": VALUE,
    "code": VALUE,
}
_SHAPES: Final = ("results", "data", "rankings")


class Rerank(Dialect):
    """POST .../rerank"""

    operation: ClassVar[str] = "rerank"
    flavour: ClassVar[str] = "cohere"
    request_tree: ClassVar[Tree] = {
        **REQUEST_TREE,
        "query": PRESENT,
        "documents": PRESENT,
        "passages": PRESENT,
    }
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _answer: dict[str, Any] | None = None

    def read_request(self, document: Any) -> None:
        """A query and what it is held against."""
        super().read_request(document)
        if isinstance(document, dict):
            passages = "documents" in document or "passages" in document or "texts" in document
            self.facts.request_shaped = "query" in document and passages

    def read_response(self, document: Any) -> None:
        """Takes a ranking or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.terminated = True
        facts.response_id = text(document.get("id"))
        model = text(document.get("model"))
        if not facts.request_model.endswith(f"/{model}"):  # else it says less than what was asked for
            facts.response_model = model or facts.response_model
        usage = document.get("usage")
        counted = isinstance(usage or document.get("meta"), dict)
        facts.response_shaped = counted and any(name in document for name in _SHAPES)
        self._answer = document
        if (amount := cost.reported(usage)) is not None:
            facts.reported_cost_nano_usd = amount
        if document.get("error"):
            self.take_error(document["error"], document.get("code"))

    def measured(self, *, complete: bool) -> Measured:
        """Units of search, or tokens of input."""
        answer, counts = self._answer or {}, Counts(self.facts)
        usage, meta = answer.get("usage"), answer.get("meta")
        meta = meta if isinstance(meta, dict) else {}
        billed = meta.get("billed_units")
        units = counts.units(billed, "search_units") or counts.units(usage, "rerank_units", "search_units")
        if units:
            return Measured({}, {"rerank_units": units}, counts.quality())
        names = ("prompt_tokens", "input_tokens", "total_tokens")
        for source in (usage, billed, meta.get("tokens")):
            if tokens := counts.get(source, *names):
                return Measured({"input": tokens}, {}, counts.quality())
        return Measured()


ROUTES: Final = (
    Route(r".*/re-?rank(ing)?", Rerank),
    Route(r".*/ranking", Rerank, providers=frozenset({"nvidia"})),
)
