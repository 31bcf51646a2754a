"""Aleph Alpha's own API: counts on the answer itself.

`num_tokens_prompt_total` and `num_tokens_generated`; in a stream they stand in the `completion_summary` that
ends it. What answers is a version of the model that was asked for (`model_version`). Embeddings have only the
first of the two, explanations none. Chat completions are OpenAI's dialect.

Source: the API reference and the types of Aleph Alpha's client.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import TOKEN_COUNTING
from mmproto.providers.route import Route

_TREE: Final[Tree] = {
    "type": VALUE,
    "model_version": VALUE,
    "finish_reason": VALUE,
    "num_tokens_prompt_total": VALUE,
    "num_tokens_generated": VALUE,
    "completions": {EVERY: {"finish_reason": VALUE}},
    "embedding": PRESENT,
    "embeddings": PRESENT,
    "error": VALUE,
    "code": VALUE,
}


class AlephAlphaComplete(Dialect):
    """POST /complete"""

    operation: ClassVar[str] = "text_completion"
    flavour: ClassVar[str] = "aleph_alpha"
    has_output: ClassVar[bool] = True
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _answer: dict[str, Any] | None = None

    def read_response(self, document: Any) -> None:
        """Takes an answer, an event of one, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.response_model = text(document.get("model_version")) or facts.response_model
        kind = text(document.get("type"))
        if not kind or kind == "completion_summary":
            self._answer = document
            facts.terminated = True
            facts.response_shaped = "num_tokens_prompt_total" in document
        completions = document.get("completions")
        for answer in (document, *(completions if isinstance(completions, list) else ())):
            if isinstance(answer, dict) and (reason := text(answer.get("finish_reason"))):
                facts.finish_reasons.append(reason)
        if document.get("error") or document.get("code"):
            self.take_error(document.get("error"), document.get("code"))

    def tells(self, data: bytes) -> bool:
        """The summaries, and errors."""
        return b"summary" in data or b'"error"' in data or b'"code"' in data

    def measured(self, *, complete: bool) -> Measured:
        """The counts of the answer or of its summary."""
        counts = Counts(self.facts)
        found = {"input": counts.get(self._answer, "num_tokens_prompt_total")}
        if self.has_output:
            found["output"] = counts.get(self._answer, "num_tokens_generated")
        tokens = {bucket: count for bucket, count in found.items() if count is not None}
        return Measured(tokens, {}, counts.quality(whole=len(tokens) == len(found))) if tokens else Measured()


class AlephAlphaEmbed(AlephAlphaComplete):
    """POST /embed, /semantic_embed and /batch_semantic_embed"""

    operation: ClassVar[str] = "embeddings"
    has_output: ClassVar[bool] = False


_ALEPH_ALPHA: Final = frozenset({"aleph_alpha"})
ROUTES: Final = (
    Route(r".*/(complete|evaluate|explain)", AlephAlphaComplete, providers=_ALEPH_ALPHA),
    Route(r".*/(embed|(batch_)?semantic_embed)", AlephAlphaEmbed, providers=_ALEPH_ALPHA),
    Route(r".*/(de)?tokenize", AlephAlphaEmbed, providers=_ALEPH_ALPHA, free=TOKEN_COUNTING),
)
