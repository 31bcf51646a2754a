"""Other companies' models on Vertex AI: `rawPredict` and `streamRawPredict` pass a request on as it is.

Anthropic's speak Anthropic's dialect, with the model (`claude-x@date`) in the path and not in the body, and
a model named `count-tokens` that counts for nothing. All others, and endpoints of the user's own, speak
OpenAI's.

Source: cloud.google.com/vertex-ai/generative-ai/docs/partner-models.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.providers.dialect import Dialect
from mmproto.providers.dialects.anthropic.batches import AnthropicTokenCount
from mmproto.providers.dialects.anthropic.messages import AnthropicMessages
from mmproto.providers.dialects.openai.chat import OpenAIChat
from mmproto.providers.reasons import TOKEN_COUNTING
from mmproto.providers.route import Route


class _ModelInPath(Dialect):
    """The model in the path has the last word: bodies repeat it without its version."""

    def read_request(self, document: Any) -> None:
        """Takes the request."""
        model = self.facts.request_model
        super().read_request(document)
        self.facts.request_model = model or self.facts.request_model


class VertexAnthropic(_ModelInPath, AnthropicMessages):
    """POST .../publishers/anthropic/models/MODEL:rawPredict and :streamRawPredict"""

    flavour: ClassVar[str] = "gcp.vertex_ai"


class VertexTokenCount(AnthropicTokenCount):
    """POST .../publishers/anthropic/models/count-tokens:rawPredict"""

    flavour: ClassVar[str] = "gcp.vertex_ai"


class VertexPartner(_ModelInPath, OpenAIChat):
    """POST .../models/MODEL:rawPredict and :streamRawPredict of any other company"""

    flavour: ClassVar[str] = "gcp.vertex_ai"


_RAW: Final = r":(?:rawPredict|streamRawPredict)"
ROUTES: Final = (
    Route(rf".*/publishers/anthropic/models/count-tokens[^/:]*{_RAW}", VertexTokenCount, free=TOKEN_COUNTING),
    Route(rf".*/publishers/anthropic/models/(?P<model>[^/:]+){_RAW}", VertexAnthropic),
    Route(rf".*/(?:models|endpoints)/(?P<model>[^/:]+){_RAW}", VertexPartner),
)
