"""Replicate: predictions, which are made now and looked at later.

To create a prediction is what costs. The answer may come at once (`Prefer: wait`), but mostly it only says
that the work has begun; looking at a prediction, listing or cancelling it costs nothing. Models of language
count their tokens in `metrics`, all others are billed by the second of their hardware, for which there is
no bucket.

A model is named in the path, or it is a version that names no model; the answer says which model it is of.

Source: Replicate's HTTP API reference.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import RETRIEVAL
from mmproto.providers.route import GET, Route

_TREE: Final[Tree] = {
    "id": VALUE,
    "model": VALUE,
    "version": VALUE,
    "status": VALUE,
    "error": VALUE,
    "detail": VALUE,
    "metrics": {"input_token_count": VALUE, "output_token_count": VALUE},
    "urls": PRESENT,
    "results": PRESENT,
}
_FAILED: Final = frozenset({"failed", "canceled", "aborted"})


class ReplicatePrediction(Dialect):
    """POST .../predictions"""

    operation: ClassVar[str] = "prediction"
    flavour: ClassVar[str] = "replicate"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "version": VALUE}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _metrics: Any = None

    def read_request(self, document: Any) -> None:
        """As every request; `input` is common, so the answer has to show what this is."""
        super().read_request(document)
        self.facts.request_shaped = False

    def read_response(self, document: Any) -> None:
        """Takes a prediction or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.terminated = True
        facts.response_id = text(document.get("id"))
        if not facts.free:  # what is only looked at was made elsewhere
            facts.response_model = text(document.get("model"))
        facts.response_shaped = "status" in document and "urls" in document
        self._metrics = document.get("metrics")
        status = text(document.get("status"))
        if status in _FAILED:
            self.take_error(document.get("error"), status)
        elif status:
            facts.finish_reasons = [status]

    def measured(self, *, complete: bool) -> Measured:
        """The tokens of a prediction that is finished."""
        counts = Counts(self.facts)
        found = {
            "input": counts.get(self._metrics, "input_token_count"),
            "output": counts.get(self._metrics, "output_token_count"),
        }
        tokens = {bucket: count for bucket, count in found.items() if count is not None}
        return Measured(tokens, {}, counts.quality(whole=len(tokens) == len(found))) if tokens else Measured()


_REPLICATE: Final = frozenset({"replicate"})
ROUTES: Final = (
    Route(r".*/v1/models/(?P<model>[^/]+/[^/]+)(/versions/[^/]+)?/predictions", ReplicatePrediction),
    Route(r".*/v1/deployments/(?P<deployment>[^/]+/[^/]+)/predictions", ReplicatePrediction),
    Route(r".*/v1/predictions", ReplicatePrediction),
    Route(
        r"/v1/predictions(/[^/]+)?", ReplicatePrediction, methods=GET, providers=_REPLICATE, free=RETRIEVAL
    ),
    Route(r"/v1/predictions/[^/]+/cancel", ReplicatePrediction, providers=_REPLICATE, free=RETRIEVAL),
)
