"""xAI's gRPC API, which its Python SDK speaks: chat, raw sampling, embeddings, images, deferred work.

A stream's chunks tell the usage so far, so the last one counts; it is that of the HTTP API under other
names, with the cost in ticks of 1e-10 dollars. Deferred work costs nothing where it is begun: the answer
that finds it done is what shows the spend, and it can be fetched but once.

Source: github.com/xai-org/xai-proto (proto/xai/api/v1), the descriptors in PyPI's xai-sdk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.dialects.openai.chat import OpenAIChat
from mmproto.providers.facts import Measured, text
from mmproto.providers.grpc_messages import GrpcCall
from mmproto.providers.protobuf_wire import Table, integer, integers, message, present
from mmproto.providers.protobuf_wire import text as string
from mmproto.providers.reasons import RESPONSE_PENDING, RETRIEVAL
from mmproto.providers.route import Route
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL

_USAGE: Final[Table] = {
    1: integer("completion_tokens"),
    2: integer("prompt_tokens"),
    3: integer("total_tokens"),
    6: integer("reasoning_tokens"),
    7: integer("cached_prompt_text_tokens"),
    9: integers("server_side_tools_used"),
    11: integer("cost_in_usd_ticks"),
}
_REQUEST: Final[Table] = {
    1: present("messages"),
    2: string("model"),
    16: string("user"),
    31: integer("service_tier"),
    34: string("safety_identifier"),
}
_SAMPLE_REQUEST: Final[Table] = {1: present("prompt"), 3: string("model"), 17: string("user")}
_EMBED_REQUEST: Final[Table] = {1: present("input"), 2: string("model"), 4: string("user")}
_IMAGE_REQUEST: Final[Table] = {1: present("prompt"), 2: string("model"), 4: string("user")}
_VIDEO_REQUEST: Final[Table] = {1: present("prompt"), 3: string("model")}

_COMPLETION: Final[Table] = {
    1: string("id"),
    2: message("choices", {1: integer("finish_reason")}, repeated=True),
    6: string("model"),
    9: message("usage", _USAGE),
    15: integer("service_tier"),
}
_CHUNK: Final[Table] = {
    1: string("id"),
    2: message("choices", {3: integer("finish_reason")}, repeated=True),
    4: string("model"),
    6: message("usage", _USAGE),
    12: integer("service_tier"),
}
_COMPACTED: Final[Table] = {1: string("id"), 4: message("usage", _USAGE)}
_EMBEDDED: Final[Table] = {1: string("id"), 4: string("model")}
_IMAGES: Final[Table] = {
    1: message("images", {}, repeated=True),
    2: string("model"),
    3: message("usage", _USAGE),
}
_DEFERRED: Final[Table] = {1: message("response", _COMPLETION), 2: integer("status")}
_VIDEO: Final[Table] = {
    1: integer("status"),
    2: message("response", {2: string("model"), 3: message("usage", _USAGE)}),
}

_FINISH: Final[Mapping[Any, str]] = {
    1: "REASON_MAX_LEN",
    2: "REASON_MAX_CONTEXT",
    3: "REASON_STOP",
    4: "REASON_TOOL_CALLS",
    5: "REASON_TIME_LIMIT",
}
_TIERS: Final[Mapping[Any, str]] = {1: "default", 2: "priority"}
_WEB_SEARCH: Final = 1  # ServerSideTool
_STATUS: Final[Mapping[Any, str]] = {0: "invalid", 2: "expired", 4: "failed"}
_DONE: Final = 1
_PENDING: Final = 3


class XaiCall(GrpcCall, OpenAIChat):
    """/xai_api.Chat/GetCompletion"""

    flavour: ClassVar[str] = "x_ai"
    request_fields: ClassVar[Table] = _REQUEST
    response_fields: ClassVar[Table] = _COMPLETION

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        streams = asked.path.endswith(("Chunk", "Streaming"))
        self.facts.stream_requested = self.facts.streamed = streams

    def take_request(self, document: dict[str, Any]) -> None:
        """As every request; a tier is a number here."""
        streams = self.facts.stream_requested
        super().take_request(document)
        self.facts.stream_requested = streams
        self.facts.request_tier = _TIERS.get(document.get("service_tier"), "")

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes an answer or a chunk of one, as the HTTP API would have said it."""
        choices = [
            {"finish_reason": _FINISH.get(choice.get("finish_reason"))}
            for choice in document.get("choices", ())
        ]
        usage = document.get("usage")
        super().take_event(
            name,
            {
                **document,
                "service_tier": _TIERS.get(document.get("service_tier")),
                "choices": choices,
                "usage": _in_json(usage) if usage is not None else None,
            },
        )
        self._usage_is_final = False  # a stream may go on after a chunk without choices, or a finish

    def measured(self, *, complete: bool) -> Measured:
        """The last usage. A stream that was cut off has what it told of, its thoughts among it."""
        measured = openai_usage.measure(self._usage, self.facts, self.quirks)
        if not complete and measured.tokens:
            measured.quality = QUALITY_PARTIAL
        return measured


class XaiStream(XaiCall):
    """/xai_api.Chat/GetCompletionChunk"""

    response_fields: ClassVar[Table] = _CHUNK


class XaiSample(XaiCall):
    """/xai_api.Sample/SampleText and SampleTextStreaming"""

    operation: ClassVar[str] = "text_completion"
    request_fields: ClassVar[Table] = _SAMPLE_REQUEST


class XaiCompact(XaiCall):
    """/xai_api.Chat/CompactContext"""

    request_fields: ClassVar[Table] = {1: string("model"), 2: present("messages")}
    response_fields: ClassVar[Table] = _COMPACTED


class XaiStart(XaiCall):
    """/xai_api.Chat/StartDeferredCompletion"""

    response_fields: ClassVar[Table] = {}

    def close(self, *, complete: bool) -> None:
        """Begun and not answered: nothing is to be paid here."""
        if complete and self.facts.error_type is None:
            self.facts.free = RESPONSE_PENDING


class XaiStartVideo(XaiStart):
    """/xai_api.Video/GenerateVideo and ExtendVideo"""

    operation: ClassVar[str] = "video_generation"
    request_fields: ClassVar[Table] = _VIDEO_REQUEST


class XaiDeferred(XaiCall):
    """/xai_api.Chat/GetDeferredCompletion"""

    request_fields: ClassVar[Table] = {}
    response_fields: ClassVar[Table] = _DEFERRED

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes the answer, or that there is none yet."""
        status = document.get("status", 0)
        if status == _DONE:
            super().take_event(name, document.get("response", {}))
        elif status == _PENDING:
            self.facts.free = RESPONSE_PENDING
        else:
            self.take_error({"type": _STATUS.get(status, str(status))})


class XaiDeferredVideo(XaiDeferred):
    """/xai_api.Video/GetDeferredVideo"""

    operation: ClassVar[str] = "video_generation"
    response_fields: ClassVar[Table] = _VIDEO

    def measured(self, *, complete: bool) -> Measured:
        """Videos are paid for by what the usage says they cost; what tokens it has are beside the point."""
        super().measured(complete=complete)
        return Measured()


class XaiImages(XaiCall):
    """/xai_api.Image/GenerateImage"""

    operation: ClassVar[str] = "image_generation"
    request_fields: ClassVar[Table] = _IMAGE_REQUEST
    response_fields: ClassVar[Table] = _IMAGES

    _images: int = 0

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes the images."""
        super().take_event(name, document)
        self._images += len(document.get("images", ()))

    def measured(self, *, complete: bool) -> Measured:
        """Images are paid for by the piece."""
        super().measured(complete=complete)
        return Measured({}, {"images": float(self._images)}, QUALITY_EXACT) if self._images else Measured()


class XaiEmbeddings(GrpcCall):
    """/xai_api.Embedder/Embed, which counts vectors and no tokens"""

    operation: ClassVar[str] = "embeddings"
    flavour: ClassVar[str] = "x_ai"
    request_fields: ClassVar[Table] = _EMBED_REQUEST
    response_fields: ClassVar[Table] = _EMBEDDED
    response_tree = OpenAIChat.response_tree
    event_tree = OpenAIChat.event_tree

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.facts.streamed = False

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes the answer."""
        self.facts.response_shaped = True
        self.facts.response_id = text(document.get("id"))
        self.facts.response_model = text(document.get("model"))

    def measured(self, *, complete: bool) -> Measured:
        """No tokens."""
        return Measured()


class XaiTokens(XaiEmbeddings):
    """/xai_api.Tokenize/TokenizeText"""

    operation: ClassVar[str] = "count_tokens"


def _in_json(usage: dict[str, Any]) -> dict[str, Any]:
    """A usage in the names of the HTTP API. What is 0 is not on the wire."""
    searches = usage.get("server_side_tools_used", []).count(_WEB_SEARCH)
    return {
        "prompt_tokens": usage.get("prompt_tokens", 0),
        "completion_tokens": usage.get("completion_tokens", 0),
        "total_tokens": usage.get("total_tokens"),
        "prompt_tokens_details": {"cached_tokens": usage.get("cached_prompt_text_tokens", 0)},
        "completion_tokens_details": {"reasoning_tokens": usage.get("reasoning_tokens", 0)},
        "server_side_tool_usage_details": {"web_search_calls": searches} if searches else None,
        "cost_in_usd_ticks": usage.get("cost_in_usd_ticks"),
    }


def _rpc(name: str, dialect: type[Dialect], free: str = "") -> Route:
    return Route(rf".*/xai_api\.{name}", dialect, free=free)


ROUTES: Final = (
    _rpc("Chat/GetCompletion", XaiCall),
    _rpc("Chat/GetCompletionChunk", XaiStream),
    _rpc("Chat/StartDeferredCompletion", XaiStart),
    _rpc("Chat/GetDeferredCompletion", XaiDeferred),
    _rpc("Chat/GetStoredCompletion", XaiCall, RETRIEVAL),
    _rpc("Chat/CompactContext", XaiCompact),
    _rpc("Sample/SampleText(?:Streaming)?", XaiSample),
    _rpc("Embedder/Embed", XaiEmbeddings),
    _rpc("Image/GenerateImage", XaiImages),
    _rpc("Video/(?:GenerateVideo|ExtendVideo)", XaiStartVideo),
    _rpc("Video/GetDeferredVideo", XaiDeferredVideo),
    _rpc("Tokenize/TokenizeText", XaiTokens, "token_counting"),
)
