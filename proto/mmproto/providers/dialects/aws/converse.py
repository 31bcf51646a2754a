"""Bedrock's Converse and ConverseStream: one shape for all models.

A stream is AWS frames; the `metadata` event at its end has the usage. Reasoning is inside the output and is
not told apart. A prompt router says in its trace which model served.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialects.aws.bedrock import MODEL, Bedrock, tier_in
from mmproto.providers.dialects.aws.usage import buckets
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL

_TREE: Final[Tree] = {
    "stopReason": VALUE,
    "usage": VALUE,
    "serviceTier": {"type": VALUE},
    "performanceConfig": {"latency": VALUE},
    "trace": {"promptRouter": {"invokedModelId": VALUE}},
    "__type": VALUE,
}


class BedrockConverse(Bedrock):
    """POST .../model/MODEL/converse and /converse-stream"""

    operation: ClassVar[str] = "chat"
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE
    telling_names: ClassVar[frozenset[str]] = frozenset({"messageStop", "metadata"})

    _usage: Any = None

    def read_response(self, document: Any) -> None:
        """Takes an answer or an error."""
        if isinstance(document, dict):
            self.take_event("metadata", document)
            if document.get("__type"):
                self.take_error(None, text(document["__type"]).rpartition("#")[2])

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes the end of the answer, or what is told after it."""
        facts = self.facts
        if reason := text(document.get("stopReason")):
            facts.response_shaped = True
            facts.finish_reasons = [reason]
        if name == "metadata":
            facts.terminated = True
        if isinstance(document.get("usage"), dict):
            facts.response_shaped = True
            self._usage = document["usage"]
        facts.response_tier = tier_in(document) or facts.response_tier
        trace = document.get("trace")
        router = trace.get("promptRouter") if isinstance(trace, dict) else None
        if isinstance(router, dict):
            facts.response_model = text(router.get("invokedModelId")) or facts.response_model

    def measured(self, *, complete: bool) -> Measured:
        """The usage, which comes whole or not at all."""
        counts = Counts(self.facts)
        tokens = buckets(self._usage, counts)
        if not tokens:
            return Measured()
        exact = "input" in tokens and "output" in tokens and counts.sound
        return Measured(tokens, {}, QUALITY_EXACT if exact else QUALITY_PARTIAL)


ROUTES: Final = (Route(rf"{MODEL}/(?:converse|converse-stream)", BedrockConverse),)
