"""DeepInfra's own API, for models of every kind: what a call took and cost stands in `inference_status`.

Text models count tokens on both sides; all others say what they cost. A stream has the status on its last
event. Chat completions and embeddings of OpenAI's shape have paths of their own.

Source: DeepInfra's API reference.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.facts import Measured, nano_usd, text
from mmproto.providers.route import Route
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL

_STATUS: Final[Tree] = {"tokens_input": VALUE, "tokens_generated": VALUE, "cost": VALUE, "status": VALUE}
_TREE: Final[Tree] = {
    "request_id": VALUE,
    "inference_status": _STATUS,
    "embeddings": PRESENT,
    "detail": VALUE,
    "error": VALUE,
}


class DeepInfraInference(Dialect):
    """POST /v1/inference/MODEL"""

    operation: str = "text_completion"  # type: ignore[misc]  # each model has its own
    flavour: ClassVar[str] = "deepinfra"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "inputs": PRESENT}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _status: Any = None

    def read_response(self, document: Any) -> None:
        """Takes an answer, the last event of a stream, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.response_id = text(document.get("request_id")) or facts.response_id
        if "embeddings" in document:
            self.operation = "embeddings"
        status = document.get("inference_status")
        if isinstance(status, dict):
            self._status = status
            facts.response_shaped = facts.terminated = True
            facts.reported_cost_nano_usd = nano_usd(status.get("cost"))
        if document.get("error") or document.get("detail"):
            self.take_error(document.get("error") or document.get("detail"))

    def tells(self, data: bytes) -> bool:
        """The status, and errors."""
        return b'"inference_status":{' in data or b'"inference_status": {' in data or b'"error"' in data

    def measured(self, *, complete: bool) -> Measured:
        """The tokens of the status; none of a model that has none."""
        counts = Counts(self.facts)
        found = {"input": counts.get(self._status, "tokens_input")}
        if self.operation != "embeddings":
            found["output"] = counts.get(self._status, "tokens_generated")
        tokens = {bucket: count for bucket, count in found.items() if count is not None}
        if not tokens:
            return Measured()
        exact = len(tokens) == len(found) and counts.sound
        return Measured(tokens, {}, QUALITY_EXACT if exact else QUALITY_PARTIAL)


ROUTES: Final = (
    Route(r".*/v1/inference/(?P<model>.+)", DeepInfraInference, providers=frozenset({"deepinfra"})),
)
