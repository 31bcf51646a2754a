"""Vercel's AI Gateway as the AI SDK speaks to it: the model in a header, usage in the SDK's own words.

Older versions of the protocol have flat numbers (`inputTokens`, `cachedInputTokens`, `reasoningTokens`),
newer ones an object for each side (`inputTokens.total`, `.cacheRead`, `outputTokens.reasoning`). In both the
total of a side includes its parts. What the call cost stands in `providerMetadata.gateway`.

Source: the gateway package of the AI SDK.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.counts import Counts, divide
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.facts import Measured, nano_usd, text
from mmproto.providers.route import Route
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL

_TREE: Final[Tree] = {
    "type": VALUE,
    "id": VALUE,
    "modelId": VALUE,
    "usage": VALUE,
    "finishReason": VALUE,
    "response": {"id": VALUE, "modelId": VALUE},
    "providerMetadata": {"gateway": {"cost": VALUE, "generationId": VALUE}},
    "embeddings": PRESENT,
    "error": VALUE,
}
_MODEL_HEADERS: Final = ("ai-language-model-id", "ai-embedding-model-id", "ai-model-id")


class VercelLanguageModel(Dialect):
    """POST .../ai/language-model"""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "vercel"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "values": PRESENT}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _usage: Any = None

    def read_request_head(self, headers: Mapping[str, str]) -> None:
        """Takes the model and whether the answer streams."""
        for name in _MODEL_HEADERS:
            self.facts.request_model = self.facts.request_model or text(headers.get(name))
        self.facts.stream_requested = headers.get("ai-language-model-streaming") == "true"

    def read_response(self, document: Any) -> None:
        """Takes an answer, or an error."""
        if isinstance(document, dict):
            self.facts.terminated = True
            self.take_event("", document)

    def tells(self, data: bytes) -> bool:
        """The first part, which says who answers, the last, and errors."""
        return b'"finish"' in data or b'"response-metadata"' in data or b'"error"' in data

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a part of a stream, or a whole answer."""
        facts = self.facts
        kind = text(document.get("type"))
        about = document if kind == "response-metadata" else document.get("response")
        if isinstance(about, dict):
            facts.response_id = facts.response_id or text(about.get("id"))
            facts.response_model = facts.response_model or text(about.get("modelId"))
        if isinstance(document.get("usage"), dict):
            self._usage = document["usage"]
        reason = document.get("finishReason")
        if reason := text(reason.get("unified") if isinstance(reason, dict) else reason):
            facts.finish_reasons = [reason]
            facts.terminated = True
        metadata = document.get("providerMetadata")
        gateway = metadata.get("gateway") if isinstance(metadata, dict) else None
        if isinstance(gateway, dict):
            facts.response_id = text(gateway.get("generationId")) or facts.response_id
            facts.reported_cost_nano_usd = nano_usd(gateway.get("cost"))
        if document.get("error"):
            self.take_error(document["error"])
            facts.terminated = True

    def measured(self, *, complete: bool) -> Measured:
        """Both sides, each with its parts."""
        usage = self._usage
        if not isinstance(usage, dict):
            return Measured()
        counts = Counts(self.facts)
        tokens: dict[str, int] = {}
        asked, answered = usage.get("inputTokens"), usage.get("outputTokens")
        whole_in = _side(counts, usage, "inputTokens")
        whole_out = _side(counts, usage, "outputTokens")
        if whole_in is not None:
            read, written = counts.get(asked, "cacheRead"), counts.get(asked, "cacheWrite")
            if read is None:
                read = counts.get(usage, "cachedInputTokens")
            parts = {"input_cache_read": read, "input_cache_write_5m": written}
            divide(counts, tokens, "input", whole_in, parts)
        if whole_out is not None:
            reasoning = counts.get(answered, "reasoning")
            if reasoning is None:
                reasoning = counts.get(usage, "reasoningTokens")
            divide(counts, tokens, "output", whole_out, {"output_reasoning": reasoning})
        if not tokens:
            return Measured()
        exact = whole_in is not None and whole_out is not None and counts.sound
        return Measured(tokens, {}, QUALITY_EXACT if exact else QUALITY_PARTIAL)


class VercelEmbeddings(VercelLanguageModel):
    """POST .../ai/embedding-model"""

    operation: ClassVar[str] = "embeddings"

    def measured(self, *, complete: bool) -> Measured:
        """The input, which is all there is."""
        counts = Counts(self.facts)
        tokens = counts.get(self._usage, "tokens")
        return Measured({"input": tokens}, {}, QUALITY_EXACT) if tokens is not None else Measured()


def _side(counts: Counts, usage: dict[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return counts.get(value, "total") if isinstance(value, dict) else counts.get(usage, name)


_VERCEL: Final = frozenset({"vercel"})
ROUTES: Final = (
    Route(r".*/ai/language-model", VercelLanguageModel, providers=_VERCEL),
    Route(r".*/ai/embedding-model", VercelEmbeddings, providers=_VERCEL),
)
