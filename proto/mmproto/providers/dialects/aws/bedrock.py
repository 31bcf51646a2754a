"""What all operations of Bedrock's runtime have in common: errors, tiers, and who the model is.

The model is in the path, percent-encoded: an id with or without a region's prefix, or the ARN of a profile.
An error is a status with `x-amzn-errortype` and `{"message"}`, or a frame of the stream. What a call has to
wait for (`priority`, `flex`, latency `optimized`) has a price of its own and so is a tier.

Source: docs.aws.amazon.com/bedrock/latest/APIReference/API_Operations_Amazon_Bedrock_Runtime.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.framing.payload import Style
from mmproto.providers.dialect import REQUEST_TREE, Asked, Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import TOKEN_COUNTING
from mmproto.providers.route import GET, POST, Route

AWS: Final = frozenset({"aws.bedrock"})
_OPTIMIZED: Final = "optimized"
_TIER: Final = "x-amzn-bedrock-service-tier"
_LATENCY: Final = "x-amzn-bedrock-performanceconfig-latency"
MODEL: Final = r".*/model/(?P<model>[^/]+(?:/[^/]+)?)"


class Bedrock(Dialect):
    """An operation of the runtime."""

    flavour: ClassVar[str] = "aws.bedrock"
    style: ClassVar[Style] = Style.FRAMES
    request_tree: ClassVar[Tree] = {
        **REQUEST_TREE,
        "modelId": VALUE,
        "serviceTier": {"type": VALUE},
        "performanceConfig": {"latency": VALUE},
    }

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        streams = asked.path.endswith("-stream")
        self.facts.stream_requested = streams
        self.facts.streamed = streams or None

    def read_request_head(self, headers: Mapping[str, str]) -> None:
        """The tier that is wanted."""
        self.facts.request_tier = tier(headers.get(_TIER), headers.get(_LATENCY))

    def read_request(self, document: Any) -> None:
        """Takes the request; the model in the path counts, if there is one."""
        facts = self.facts
        model, wanted, streams = facts.request_model, facts.request_tier, facts.stream_requested
        super().read_request(document)
        if isinstance(document, dict):
            facts.request_model = model or text(document.get("modelId"))
            facts.request_tier = tier_in(document) or facts.request_tier or wanted
            facts.stream_requested = streams

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Takes errors and the tier that served."""
        super().read_response_head(status, headers)
        self.facts.response_tier = tier(headers.get(_TIER), headers.get(_LATENCY))
        if name := headers.get("x-amzn-errortype"):
            self.facts.error_type = text(name.partition(":")[0])

    def take_error(self, error: Any, code: Any = None) -> None:
        """A header names the error; of a body only `__type` does."""
        if not self.facts.error_type:
            super().take_error(error, code)


class BedrockPlain(Bedrock):
    """An operation that reports no tokens, whatever it answers."""

    response_tree: ClassVar[Tree] = {"__type": VALUE, "inputTokens": PRESENT}
    event_tree: ClassVar[Tree] = response_tree

    def read_response(self, document: Any) -> None:
        """Takes an answer, or an error that only the body names."""
        self.facts.terminated = True
        if isinstance(document, dict) and document.get("__type"):
            self.take_error(None, text(document["__type"]).rpartition("#")[2])

    def tells(self, data: bytes) -> bool:
        """Nothing does."""
        return False

    def close(self, *, complete: bool) -> None:
        """Frames have no last one of their own here: the end of the stream is its end."""
        self.facts.terminated = self.facts.terminated or complete

    def measured(self, *, complete: bool) -> Measured:
        """No tokens."""
        return Measured()


class BedrockTokenCount(BedrockPlain):
    """POST .../model/MODEL/count-tokens"""

    operation: ClassVar[str] = "count_tokens"


class BedrockGuardrail(BedrockPlain):
    """POST .../guardrail/ID/version/VERSION/apply, which is paid for by units of text"""

    operation: ClassVar[str] = "guardrail"


class BedrockAsync(BedrockPlain):
    """POST .../async-invoke begins work that is paid for, GET looks at it"""

    operation: ClassVar[str] = "video_generation"


def tier(name: Any, latency: Any) -> str:
    """The tier of a call that has both a service tier and a latency."""
    return _OPTIMIZED if latency == _OPTIMIZED else text(name)


def tier_in(document: Mapping[str, Any]) -> str:
    """As `tier`, of a request's or an answer's body."""
    service, performance = document.get("serviceTier"), document.get("performanceConfig")
    return tier(
        service.get("type") if isinstance(service, dict) else None,
        performance.get("latency") if isinstance(performance, dict) else None,
    )


ROUTES: Final = (
    Route(rf"{MODEL}/count-tokens", BedrockTokenCount, free=TOKEN_COUNTING),
    Route(r".*/guardrail/[^/]+/version/[^/]+/apply", BedrockGuardrail, POST, AWS),
    Route(r".*/async-invoke", BedrockAsync, POST, AWS),
    Route(r".*/async-invoke(?:/.+)?", BedrockAsync, GET, AWS, "retrieval"),
)
