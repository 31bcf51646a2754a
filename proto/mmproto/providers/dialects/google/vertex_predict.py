"""Google's older `:predict`: embeddings and text on Vertex AI, images and videos there and on AI Studio.

What a model does shows in its name. Embeddings count tokens by input in `statistics`; PaLM text models
count in `metadata.tokenMetadata`; images are counted as images; videos are made in the background and have
no unit that is reported. Endpoints of the user's own serve any kind of model: only what looks like text
goes for a call.

Source: cloud.google.com/vertex-ai/generative-ai/docs/model-reference.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree
from mmproto.framing.payload import Style
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.facts import Measured
from mmproto.providers.reasons import NOT_LLM
from mmproto.providers.route import Route
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL

_TEXT_FIELDS: Final = ("prompt", "content", "messages", "inputs", "text")
_ANSWER: Final[Tree] = {
    "predictions": {
        EVERY: {
            "embeddings": {"statistics": VALUE},
            "content": PRESENT,
            "mimeType": VALUE,
            "gcsUri": PRESENT,
            "bytesBase64Encoded": PRESENT,
        }
    },
    "metadata": {"tokenMetadata": VALUE},
    "error": VALUE,
}


class VertexPredict(Dialect):
    """POST .../models/MODEL:predict of a text model"""

    operation: ClassVar[str] = "text_completion"
    flavour: ClassVar[str] = "gcp.vertex_ai"
    style: ClassVar[Style] = Style.ARRAY  # of an error
    request_tree: ClassVar[Tree] = {"instances": {EVERY: dict.fromkeys(_TEXT_FIELDS, PRESENT)}}
    response_tree: ClassVar[Tree] = _ANSWER
    event_tree: ClassVar[Tree] = _ANSWER

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._answer: dict[str, Any] = {}
        self.facts.streamed = asked.path.rpartition(":")[2].startswith("server")

    def read_request(self, document: Any) -> None:
        """Takes the request: what is to be predicted from."""
        instances = document.get("instances") if isinstance(document, dict) else None
        self.facts.request_shaped = isinstance(instances, list) and any(instances)

    def read_response(self, document: Any) -> None:
        """Takes predictions or an error."""
        if isinstance(document, dict):
            self._answer = document
            self.facts.terminated = True
            self.facts.response_shaped = isinstance(document.get("predictions"), list)
            if document.get("error"):
                self.take_error(document["error"])

    @property
    def predictions(self) -> list[dict[str, Any]]:
        """Those that are objects."""
        found = self._answer.get("predictions")
        return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []

    def measured(self, *, complete: bool) -> Measured:
        """The tokens of a PaLM model."""
        metadata = self._answer.get("metadata")
        told = metadata.get("tokenMetadata") if isinstance(metadata, dict) else None
        told = told if isinstance(told, dict) else {}
        counts = Counts(self.facts)
        found = {
            "input": counts.get(told.get("inputTokenCount"), "totalTokens"),
            "output": counts.get(told.get("outputTokenCount"), "totalTokens"),
        }
        tokens = {bucket: count for bucket, count in found.items() if count is not None}
        return _rated(tokens, exact=len(tokens) == len(found) and counts.sound)


class VertexEmbeddings(VertexPredict):
    """POST .../models/MODEL:predict of an embedding model"""

    operation: ClassVar[str] = "embeddings"

    def measured(self, *, complete: bool) -> Measured:
        """The sum over the inputs."""
        counts = Counts(self.facts)
        found = [
            counts.get(embeddings.get("statistics"), "token_count", "tokenCount")
            for one in self.predictions
            if isinstance(embeddings := one.get("embeddings"), dict)
        ]
        known = [count for count in found if count is not None]
        return _rated({"input": sum(known)} if known else {}, exact=known == found and counts.sound)


class VertexImages(VertexPredict):
    """POST .../models/MODEL:predict of a model that makes images"""

    operation: ClassVar[str] = "image_generation"

    def measured(self, *, complete: bool) -> Measured:
        """As many images as there are. What a filter held back is not paid for."""
        made = [one for one in self.predictions if "bytesBase64Encoded" in one or "gcsUri" in one]
        return Measured({}, {"images": float(len(made))}, QUALITY_EXACT) if made else Measured()


class VertexVideos(VertexPredict):
    """POST .../models/MODEL:predictLongRunning"""

    operation: ClassVar[str] = "video_generation"

    def measured(self, *, complete: bool) -> Measured:
        """Begun and not yet made: nothing is told."""
        return Measured()


class VertexEndpoint(VertexPredict):
    """POST .../endpoints/ID:predict, which may be a model of any kind"""

    def close(self, *, complete: bool) -> None:
        """A classifier of rows or images is none of ours."""
        if not self.facts.request_shaped:
            self.facts.free = NOT_LLM


def _rated(tokens: dict[str, int], *, exact: bool) -> Measured:
    if not tokens:
        return Measured()
    return Measured(tokens, {}, QUALITY_EXACT if exact else QUALITY_PARTIAL)


_EMBEDS: Final = r"[^/:]*(?:embedding|gecko)[^/:]*"
_DRAWS: Final = r"(?:imagen|imagegeneration|virtual-try-on|imageproduct|product-recontext)[^/:]*"
ROUTES: Final = (
    Route(rf".*/models/(?P<model>{_EMBEDS}):predict", VertexEmbeddings),
    Route(rf".*/models/(?P<model>{_DRAWS}):predict", VertexImages),
    Route(r".*/models/(?P<model>[^/:]+):predictLongRunning", VertexVideos),
    Route(r".*/publishers/[^/]+/models/(?P<model>[^/:]+):(?:predict|serverStreamingPredict)", VertexPredict),
    Route(r".*/models/(?P<model>[^/:]+):predict", VertexPredict),
    Route(r".*/endpoints/(?P<model>[^/:]+):(?:predict|serverStreamingPredict)", VertexEndpoint),
)
