"""Gemini over gRPC: AI Studio's GenerativeService and Vertex AI's PredictionService.

Each numbers its fields in its own way, but the messages are those of the JSON API, so they are read as
such. The model is in the request, below the names of project and location.

Source: the googleapis protos (google/ai/generativelanguage/v1beta/generative_service.proto,
google/cloud/aiplatform/v1beta1/prediction_service.proto and content.proto), as generated in PyPI's
google-ai-generativelanguage and google-cloud-aiplatform.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Final

from mmproto.providers.dialect import Asked
from mmproto.providers.dialects.google.batches import GeminiTokenCount
from mmproto.providers.dialects.google.embeddings import GeminiEmbeddings
from mmproto.providers.dialects.google.gemini import GeminiGenerate
from mmproto.providers.dialects.google.vertex_predict import VertexEmbeddings, VertexPredict
from mmproto.providers.facts import text
from mmproto.providers.grpc_messages import GrpcCall
from mmproto.providers.protobuf_wire import Table, double, integer, message, present
from mmproto.providers.protobuf_wire import text as string
from mmproto.providers.reasons import TOKEN_COUNTING
from mmproto.providers.route import Route

_MODALITY: Final[Table] = {1: integer("modality"), 2: integer("tokenCount")}


def _usage(*, cached: int, tool_use: int, thoughts: int, details: tuple[int, int, int, int]) -> Table:
    """The usage message, of which the two APIs agree on the first three numbers.

    `details` are the numbers of those of prompt, cache, candidates and tool use.
    """
    names = (
        "promptTokensDetails",
        "cacheTokensDetails",
        "candidatesTokensDetails",
        "toolUsePromptTokensDetails",
    )
    return {
        1: integer("promptTokenCount"),
        2: integer("candidatesTokenCount"),
        3: integer("totalTokenCount"),
        cached: integer("cachedContentTokenCount"),
        tool_use: integer("toolUsePromptTokenCount"),
        thoughts: integer("thoughtsTokenCount"),
        **{
            number: message(name, _MODALITY, repeated=True)
            for number, name in zip(details, names, strict=True)
        },
    }


_STUDIO_USAGE: Final = _usage(cached=4, tool_use=8, thoughts=10, details=(5, 6, 7, 9))
_VERTEX_USAGE: Final = {
    **_usage(cached=5, tool_use=13, thoughts=14, details=(9, 10, 11, 12)),
    8: integer("trafficType"),
}
# `google.protobuf.Value` down to the count: predictions[].embeddings.statistics.token_count.
_NUMBER: Final[Table] = {2: double("number")}


def _object(values: Table) -> Table:
    """A Value that is an object with such values."""
    entry = message("fields", {1: string("key"), 2: message("value", values)}, repeated=True)
    return {**_NUMBER, 5: message("struct", {1: entry})}


_VALUE: Final = _object(_object(_object(_NUMBER)))
_EMBEDS: Final = re.compile("embedding|gecko")

_FEEDBACK: Final = message("promptFeedback", {1: integer("blockReason")})


class GeminiCall(GrpcCall, GeminiGenerate):
    """/google.ai.generativelanguage.v1beta.GenerativeService/GenerateContent and StreamGenerateContent"""

    request_fields: ClassVar[Table] = {1: string("model"), 2: present("contents")}
    response_fields: ClassVar[Table] = {
        1: message("candidates", {2: integer("finishReason")}, repeated=True),
        2: _FEEDBACK,
        3: message("usageMetadata", _STUDIO_USAGE),
        4: string("modelVersion"),
        5: string("responseId"),
    }

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        streams = asked.path.endswith("/StreamGenerateContent")
        self.facts.stream_requested = self.facts.streamed = streams

    def take_request(self, document: dict[str, Any]) -> None:
        """Takes the request."""
        super().take_request(document)
        self.facts.request_model = _last_name(document)


class VertexCall(GeminiCall):
    """/google.cloud.aiplatform.v1.PredictionService/GenerateContent and StreamGenerateContent"""

    flavour: ClassVar[str] = "gcp.vertex_ai"
    request_fields: ClassVar[Table] = {5: string("model"), 2: present("contents")}
    response_fields: ClassVar[Table] = {
        2: message("candidates", {3: integer("finishReason")}, repeated=True),
        3: _FEEDBACK,
        4: message("usageMetadata", _VERTEX_USAGE),
        11: string("modelVersion"),
        13: string("responseId"),
    }


class GeminiEmbedCall(GrpcCall, GeminiEmbeddings):
    """/google.ai.generativelanguage.v1beta.GenerativeService/EmbedContent and BatchEmbedContents"""

    request_fields: ClassVar[Table] = {1: string("model"), 2: present("content")}
    response_fields: ClassVar[Table] = {1: present("embedding"), 2: message("usageMetadata", _STUDIO_USAGE)}

    def take_request(self, document: dict[str, Any]) -> None:
        """Takes the request."""
        super().take_request(document)
        self.facts.request_model = _last_name(document)

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes the answer."""
        GeminiEmbeddings.read_response(self, document)


class VertexEmbedCall(GeminiEmbedCall):
    """/google.cloud.aiplatform.v1beta1.PredictionService/EmbedContent"""

    flavour: ClassVar[str] = "gcp.vertex_ai"
    response_fields: ClassVar[Table] = {1: present("embedding"), 2: message("usageMetadata", _VERTEX_USAGE)}


class GeminiCountCall(GrpcCall, GeminiTokenCount):
    """/google.ai.generativelanguage.v1beta.GenerativeService/CountTokens"""

    request_fields: ClassVar[Table] = {1: string("model")}
    response_fields: ClassVar[Table] = {1: present("totalTokens")}

    def take_request(self, document: dict[str, Any]) -> None:
        """Takes the model."""
        self.facts.request_model = _last_name(document)

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes the count."""
        GeminiTokenCount.read_response(self, document)


class VertexCountCall(GeminiCountCall):
    """/google.cloud.aiplatform.v1.PredictionService/CountTokens"""

    flavour: ClassVar[str] = "gcp.vertex_ai"
    request_fields: ClassVar[Table] = {3: string("model")}


class VertexPredictCall(GrpcCall, VertexEmbeddings):
    """/google.cloud.aiplatform.v1.PredictionService/Predict, whose values are `google.protobuf.Value`s"""

    operation: str = "embeddings"  # type: ignore[misc]  # the path does not tell, the name of the model does
    request_fields: ClassVar[Table] = {1: string("endpoint"), 2: present("instances")}
    response_fields: ClassVar[Table] = {1: message("predictions", _VALUE, repeated=True)}

    def take_request(self, document: dict[str, Any]) -> None:
        """Takes the model, which is the end of the endpoint's name."""
        self.facts.request_model = text(document.get("endpoint")).rpartition("/")[2]
        if _EMBEDS.search(self.facts.request_model) is None:
            self.operation = VertexPredict.operation

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes predictions."""
        self.facts.terminated = True
        predictions = [_struct(one) for one in document.get("predictions", ())]
        self._answer = {"predictions": predictions}


def _struct(value: dict[str, Any]) -> Any:
    """A `google.protobuf.Value` that was read by `_VALUE`, as JSON has it."""
    if "number" in value:
        return value["number"]
    fields = value.get("struct", {}).get("fields", ())
    return {field.get("key", ""): _struct(field.get("value", {})) for field in fields}


def _last_name(document: dict[str, Any]) -> str:
    """The model alone, out of `projects/P/locations/L/publishers/google/models/M` or `models/M`."""
    return text(document.get("model")).rpartition("/")[2]


_STUDIO: Final = r".*/google\.ai\.generativelanguage\.v\w+\.GenerativeService"
_VERTEX: Final = r".*/google\.cloud\.aiplatform\.v\w+\.PredictionService"
ROUTES: Final = (
    Route(rf"{_STUDIO}/(?:GenerateContent|StreamGenerateContent|GenerateAnswer)", GeminiCall),
    Route(rf"{_VERTEX}/(?:Stream)?GenerateContent", VertexCall),
    Route(rf"{_STUDIO}/(?:EmbedContent|BatchEmbedContents)", GeminiEmbedCall),
    Route(rf"{_VERTEX}/EmbedContent", VertexEmbedCall),
    Route(rf"{_VERTEX}/Predict", VertexPredictCall),
    Route(rf"{_STUDIO}/CountTokens", GeminiCountCall, free=TOKEN_COUNTING),
    Route(rf"{_VERTEX}/CountTokens", VertexCountCall, free=TOKEN_COUNTING),
)
