"""Gemini: generateContent and streamGenerateContent, on AI Studio, Vertex AI, Firebase and Code Assist.

The model is in the path; the body names the version that served. A stream is server-sent events (`alt=sse`,
lines ended by CRLF, no `[DONE]`) or, without that, one JSON array that arrives element by element; errors
may be wrapped in an array as well, and may come in the middle of a stream. With
`$alt=json;enum-encoding=int` enums are numbers. Code Assist (`/v1internal:generateContent`, Gemini CLI)
puts model and answer one level deeper.

Sources: ai.google.dev/api/generate-content, cloud.google.com/vertex-ai/generative-ai/docs/model-reference.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.events import Event
from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree
from mmproto.framing.payload import Style
from mmproto.providers import plans
from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.dialects.google.usage import RunningUsage
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route

_ANSWER: Final[Tree] = {
    "candidates": {
        EVERY: {
            "finishReason": VALUE,
            "groundingMetadata": {"webSearchQueries": VALUE},
        }
    },
    "promptFeedback": {"blockReason": VALUE},
    "usageMetadata": VALUE,
    "modelVersion": VALUE,
    "responseId": VALUE,
    "error": VALUE,
}
# Both APIs agree on the first numbers only.
_FINISH: Final = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY", 4: "RECITATION", 5: "OTHER"}
_UNSPECIFIED: Final = (
    "",
    "0",
    "FINISH_REASON_UNSPECIFIED",
    "BLOCK_REASON_UNSPECIFIED",
    "BLOCKED_REASON_UNSPECIFIED",
)
# What Vertex AI calls traffic, as a service tier; numbers as in the googleapis protos.
_TRAFFIC: Final[Mapping[Any, str]] = {
    2: "provisioned_throughput",
    "PROVISIONED_THROUGHPUT": "provisioned_throughput",
    "ON_DEMAND_PRIORITY": "priority",
    "ON_DEMAND_FLEX": "flex",
}
# Models up to 2.5 pay for a prompt that was grounded, later ones for each search.
_PAID_BY_PROMPT: Final = ("gemini-1", "gemini-2")


class GeminiGenerate(Dialect):
    """POST .../models/MODEL:generateContent and :streamGenerateContent"""

    operation: ClassVar[str] = "generate_content"
    flavour: ClassVar[str] = "gcp.gemini"
    style: ClassVar[Style] = Style.ARRAY
    request_tree: ClassVar[Tree] = {
        "contents": PRESENT,
        "serviceTier": VALUE,
        "service_tier": VALUE,
        "model": VALUE,
        "request": {"contents": PRESENT, "session_id": VALUE},
    }
    response_tree: ClassVar[Tree] = {**_ANSWER, "response": _ANSWER}
    event_tree: ClassVar[Tree] = response_tree

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._usage = RunningUsage()
        self._blocked = False
        self._searches: set[int] = set()
        # The last chunks that tell no more than the usage so far, the last of which the end may have cut.
        self._held: deque[Event] = deque(maxlen=2)
        streams = asked.path.rpartition(":")[2].startswith("stream")
        self.facts.stream_requested = self.facts.streamed = streams

    def read_request_head(self, headers: Mapping[str, str]) -> None:
        """On Vertex AI the tier that is wanted is a header."""
        self.facts.request_tier = text(headers.get("x-vertex-ai-llm-shared-request-type"))

    def read_request(self, document: Any) -> None:
        """Takes the request; the model in the path counts, if there is one."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.request_model = facts.request_model or text(document.get("model"))
        tier = text(document.get("serviceTier")) or text(document.get("service_tier"))
        facts.request_tier = tier.lower() or facts.request_tier
        inner = document.get("request")
        inner = inner if isinstance(inner, dict) else {}
        facts.session = text(inner.get("session_id"))
        facts.request_shaped = "contents" in document or "contents" in inner

    def read_response(self, document: Any) -> None:
        """Takes an answer or an error."""
        if isinstance(document, dict):
            self.take_event("", document)
            self.facts.terminated = True

    def tells(self, data: bytes) -> bool:
        """Nearly every chunk has the usage so far, but for the first ones of Vertex AI."""
        return not self.facts.response_id or any(mark in data for mark in _TELLING)

    def read_event(self, event: Event) -> None:
        """Takes a chunk. Each repeats the usage so far: reading all of them would be most of the work."""
        if event.last and self.facts.response_id and self._large is None and not _decides(event.data):
            if not self._held or _ANSWERED in event.data:
                self._held.append(event)
            return
        self._read_held()
        super().read_event(event)

    def _read_held(self) -> None:
        while self._held:
            super().read_event(self._held.popleft())

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a chunk, a whole answer, or an error."""
        inner = document.get("response")
        if isinstance(inner, dict):
            document = inner
        facts = self.facts
        facts.response_id = text(document.get("responseId")) or facts.response_id
        facts.response_model = text(document.get("modelVersion")) or facts.response_model
        usage = document.get("usageMetadata")
        if isinstance(usage, dict):
            facts.response_shaped = True
            self._usage.take(usage)
            tier = text(usage.get("serviceTier")).lower() or _traffic(usage.get("trafficType"))
            facts.response_tier = tier or facts.response_tier
        for candidate in _dicts(document.get("candidates")):
            facts.response_shaped = True
            self._take_candidate(candidate)
        feedback = document.get("promptFeedback")
        if isinstance(feedback, dict) and (reason := _reason(feedback.get("blockReason"), {})):
            self._blocked = facts.terminated = facts.response_shaped = True
            facts.finish_reasons = [reason]
        if document.get("error"):
            self.take_error(document["error"])
            facts.terminated = True

    def _take_candidate(self, candidate: dict[str, Any]) -> None:
        if reason := _reason(candidate.get("finishReason"), _FINISH):
            self.facts.finish_reasons.append(reason)
            self.facts.terminated = True
        grounding = candidate.get("groundingMetadata")
        queries = grounding.get("webSearchQueries") if isinstance(grounding, dict) else None
        if isinstance(queries, list):
            # Chunks repeat the queries, and empty ones are not paid for.
            self._searches.update(hash(query) for query in queries if isinstance(query, str) and query)

    def close(self, *, complete: bool) -> None:
        """Knows now what the last chunk told, and who pays."""
        self._read_held()
        plans.mark(self.asked, self.facts)

    def measured(self, *, complete: bool) -> Measured:
        """The last usage. A stream that was cut off has its input, and as much output as it told of."""
        measured = self._usage.measure(self.facts, finished=self.facts.terminated, blocked=self._blocked)
        if self._searches:
            by_prompt = (self.facts.response_model or self.facts.request_model).startswith(_PAID_BY_PROMPT)
            measured.units["web_searches"] = 1.0 if by_prompt else float(len(self._searches))
        return measured


_ANSWERED: Final = b"candidatesTokenCount"
# What a chunk may hold besides text and the usage so far.
_DECIDING: Final = (b'"finishReason"', b'"error"', b"Feedback", b"webSearchQueries")
_TELLING: Final = (b"TokenCount", *_DECIDING)


def _decides(data: bytes) -> bool:
    return any(mark in data for mark in _DECIDING)


def _dicts(values: Any) -> list[dict[str, Any]]:
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _traffic(kind: Any) -> str:
    return _TRAFFIC.get(kind, "") if isinstance(kind, int | str) else ""


def _reason(reason: Any, names: Mapping[int, str]) -> str:
    """Name of an enum that may be a number; "" where it says nothing."""
    if isinstance(reason, int) and not isinstance(reason, bool):
        reason = names.get(reason, str(reason))
    return "" if (name := text(reason)) in _UNSPECIFIED else name


ROUTES: Final = (
    Route(
        r".*/(?:models|tunedModels|endpoints)/(?P<model>[^/:]+):(?:stream)?(?i:generateContent)",
        GeminiGenerate,
    ),
    Route(r".*/models/(?P<model>[^/:]+):(?:generateAnswer|generateText|generateMessage)", GeminiGenerate),
    Route(r".*/v1internal:(?:stream)?(?i:generateContent)", GeminiGenerate),
)
