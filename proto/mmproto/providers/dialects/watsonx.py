"""IBM watsonx.ai: text generation with counts in each result; chat is OpenAI's shape under another path.

`results[]` have `input_token_count` and `generated_token_count`. In a stream the generated count is a running
sum, and the input count stands in the first event and is 0 in those that follow: the largest of each counts.
Embeddings and reranking have `input_token_count` beside their results. What is deployed is named by its id
in the path.

Source: the API reference of watsonx.ai (`/ml/v1`, and the older `/ml/v1-beta/generation`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import REQUEST_TREE, Asked, Dialect
from mmproto.providers.dialects.openai.chat import OpenAIChat
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import TOKEN_COUNTING
from mmproto.providers.route import Route

_TREE: Final[Tree] = {
    "id": VALUE,
    "model_id": VALUE,
    "input_token_count": VALUE,
    "results": {
        EVERY: {"generated_token_count": VALUE, "input_token_count": VALUE, "stop_reason": VALUE},
    },
    "errors": {EVERY: {"code": VALUE}},
    "error": VALUE,
}
_REQUEST: Final[Tree] = {**REQUEST_TREE, "model_id": VALUE}
_UNFINISHED: Final = "not_finished"


class WatsonxText(Dialect):
    """POST .../text/generation and .../text/generation_stream"""

    operation: ClassVar[str] = "text_completion"
    flavour: ClassVar[str] = "ibm.watsonx.ai"
    request_tree: ClassVar[Tree] = _REQUEST
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE
    has_output: ClassVar[bool] = True

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._counts = Counts(self.facts)
        self._tokens: dict[str, int] = {}

    def read_request(self, document: Any) -> None:
        """As every request, with its own name for the model."""
        super().read_request(document)
        if isinstance(document, dict):
            self.facts.request_model = text(document.get("model_id")) or self.facts.request_model

    def read_response(self, document: Any) -> None:
        """Takes an answer or errors."""
        if isinstance(document, dict):
            self.take_event("", document)
            self.facts.terminated = True

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes an event of a stream, or a whole answer."""
        facts = self.facts
        facts.response_id = text(document.get("id")) or facts.response_id
        facts.response_model = text(document.get("model_id")) or facts.response_model
        results = document.get("results")
        results = [result for result in results or () if isinstance(result, dict)]
        facts.response_shaped = facts.response_shaped or bool(results)
        self._keep("input", [document, *results], "input_token_count")
        if self.has_output:
            self._keep("output", results, "generated_token_count")
        reasons = [text(result.get("stop_reason")) for result in results]
        facts.finish_reasons = [reason for reason in reasons if reason not in ("", _UNFINISHED)]
        facts.terminated = facts.terminated or bool(facts.finish_reasons)
        errors = document.get("errors") or document.get("error")
        if errors:
            self.take_error(errors[0] if isinstance(errors, list) else errors)

    def _keep(self, bucket: str, sources: list[dict[str, Any]], name: str) -> None:
        """Keeps the largest sum so far."""
        found = [count for source in sources if (count := self._counts.get(source, name)) is not None]
        if found:
            self._tokens[bucket] = max(sum(found), self._tokens.get(bucket, 0))

    def measured(self, *, complete: bool) -> Measured:
        """What was counted; of a stream that was cut off the input only: the output was still growing."""
        tokens = dict(self._tokens)
        if not self.facts.terminated:
            tokens.pop("output", None)
        if not tokens:
            return Measured()
        whole = "input" in tokens and ("output" in tokens or not self.has_output)
        return Measured(tokens, {}, self._counts.quality(whole=whole))


class WatsonxEmbeddings(WatsonxText):
    """POST .../text/embeddings"""

    operation: ClassVar[str] = "embeddings"
    has_output: ClassVar[bool] = False


class WatsonxRerank(WatsonxEmbeddings):
    """POST .../text/rerank"""

    operation: ClassVar[str] = "rerank"


class WatsonxChat(OpenAIChat):
    """POST .../text/chat and .../text/chat_stream"""

    flavour: ClassVar[str] = "ibm.watsonx.ai"
    request_tree: ClassVar[Tree] = {**OpenAIChat.request_tree, "model_id": VALUE}
    response_tree: ClassVar[Tree] = {**OpenAIChat.response_tree, "model_id": VALUE}
    event_tree: ClassVar[Tree] = {**OpenAIChat.event_tree, "model_id": VALUE}

    def read_request(self, document: Any) -> None:
        """As every request, with its own name for the model."""
        super().read_request(document)
        if isinstance(document, dict):
            self.facts.request_model = text(document.get("model_id")) or self.facts.request_model

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """As OpenAI's, with its own name for the model."""
        super().take_event(name, {**document, "model": document.get("model") or document.get("model_id")})


_WATSONX: Final = frozenset({WatsonxText.flavour})
_PLACE: Final = r".*/ml/v1(-beta)?(/deployments/(?P<deployment>[^/]+))?"
ROUTES: Final = (
    Route(rf"{_PLACE}(/text/generation(_stream)?|/generation/text(_stream)?)", WatsonxText),
    Route(rf"{_PLACE}/text/chat(_stream)?", WatsonxChat),
    Route(rf"{_PLACE}/text/embeddings", WatsonxEmbeddings, providers=_WATSONX),
    Route(rf"{_PLACE}/text/rerank", WatsonxRerank, providers=_WATSONX),
    Route(rf"{_PLACE}/text/tokenization", WatsonxEmbeddings, free=TOKEN_COUNTING),
)
