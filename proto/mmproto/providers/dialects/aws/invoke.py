"""Bedrock's InvokeModel: the body is the model's own, and every family counts in a shape of its own.

Claude answers in Anthropic's dialect, gpt-oss and most newer models in OpenAI's, Nova as Converse does;
Titan and Llama count beside the text; Cohere's and Mistral's older models count in the headers alone. A
stream is AWS frames, `{"bytes": base64}` each, of which the last one carries
`amazon-bedrock-invocationMetrics`.

The body is believed before metrics and headers, because it is what the model's maker bills by; where they
differ (with tools, Claude's own count is larger), it is flagged. A guardrail that blocked the request
answers in the model's place, without metrics: the counts in its body are those of the refusal, and no model
was paid.

Source: docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any, ClassVar, Final

import orjson

from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree, prune
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import MALFORMED_EVENT, Asked
from mmproto.providers.dialects.anthropic.messages import AnthropicMessages
from mmproto.providers.dialects.aws import usage as bedrock_usage
from mmproto.providers.dialects.aws.bedrock import MODEL, Bedrock, tier_in
from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL

_METRICS: Final = "amazon-bedrock-invocationMetrics"
_GUARDRAIL: Final = "amazon-bedrock-guardrailAction"
BLOCKED: Final = "guardrail_intervened"
# Counts that lie open in a body, and the names under which a stop is told.
_OPEN: Final = (
    "inputTextTokenCount",
    "totalOutputTextTokenCount",
    "prompt_token_count",
    "generation_token_count",
)
_STOPS: Final = ("stop_reason", "stopReason", "completionReason", "finish_reason", "finishReason")
_BODY: Final[Tree] = {
    **AnthropicMessages.event_tree,
    **AnthropicMessages.response_tree,
    **dict.fromkeys((*_OPEN, *_STOPS, _METRICS, _GUARDRAIL), VALUE),
    "service_tier": VALUE,
    "serviceTier": {"type": VALUE},
    "metadata": {"usage": VALUE},
    "messageStop": {"stopReason": VALUE},
    "results": {EVERY: {"tokenCount": VALUE, "completionReason": VALUE}},
    "choices": {EVERY: {"finish_reason": VALUE, "stop_reason": VALUE}},
    "outputs": {EVERY: {"stop_reason": VALUE}},
    "generations": {EVERY: {"finish_reason": VALUE}},
    "images": {EVERY: PRESENT},
    "artifacts": {EVERY: PRESENT},
    "__type": VALUE,
}
_CLAUDE: Final = frozenset({"message_start", "message_delta", "message_stop", "message", "error"})
_DELTA: Final = b'{"type":"content_block'


class BedrockInvoke(Bedrock):
    """POST .../model/MODEL/invoke and /invoke-with-response-stream of a model that generates text"""

    operation: ClassVar[str] = "chat"
    has_output: ClassVar[bool] = True
    request_tree: ClassVar[Tree] = {
        **AnthropicMessages.request_tree,
        **Bedrock.request_tree,
        "inputText": PRESENT,
    }
    response_tree: ClassVar[Tree] = _BODY
    event_tree: ClassVar[Tree] = {"bytes": VALUE}

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._claude = AnthropicMessages(asked)
        self._claude.facts, self._claude.portions = self.facts, self.portions
        self._counts = Counts(self.facts)
        self._headers: dict[str, int] = {}
        self._metrics: dict[str, Any] = {}
        self._usage: dict[str, Any] = {}
        self._images = 0
        self._guarded = False

    def read_request(self, document: Any) -> None:
        """Takes the request of any family."""
        super().read_request(document)
        if isinstance(document, dict) and "inputText" in document:
            self.facts.request_shaped = True

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Takes the counts that headers tell."""
        super().read_response_head(status, headers)
        self._headers = bedrock_usage.of_headers(headers, self._counts)

    def read_response(self, document: Any) -> None:
        """Takes a model's answer or an error."""
        if not isinstance(document, dict):
            return
        self._take(document)
        self.facts.terminated = True
        if document.get("__type"):
            self.take_error(None, text(document["__type"]).rpartition("#")[2])

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a frame: a chunk of the model's own stream."""
        try:
            chunk = base64.b64decode(_text_of(document.get("bytes")))
            if chunk.startswith(_DELTA):
                return
            inner = prune(orjson.loads(chunk), _BODY)
        except (binascii.Error, ValueError):
            self.facts.anomaly(MALFORMED_EVENT)
            return
        if isinstance(inner, dict):
            self._take(inner)

    def _take(self, body: dict[str, Any]) -> None:
        facts = self.facts
        kind = text(body.get("type"))
        if kind == "message":
            self._claude.read_response(body)
        elif kind in _CLAUDE:
            self._claude.take_event(kind, body)
        else:
            self._take_other(body)
        metrics = body.get(_METRICS)
        if isinstance(metrics, dict):
            self._metrics = metrics
            facts.terminated = facts.response_shaped = True
        facts.response_tier = tier_in(body) or facts.response_tier
        self._guarded = self._guarded or body.get(_GUARDRAIL) == "INTERVENED"

    def _take_other(self, body: dict[str, Any]) -> None:
        """An answer, or a chunk of one, of any family but Claude."""
        facts = self.facts
        facts.response_id = text(body.get("id")) or facts.response_id
        facts.response_model = text(body.get("model")) or facts.response_model
        facts.response_tier = text(body.get("service_tier")) or facts.response_tier
        metadata = body.get("metadata")
        usage = body.get("usage") or (metadata.get("usage") if isinstance(metadata, dict) else None)
        found = dict(usage) if isinstance(usage, dict) else {}
        found.update({name: body[name] for name in _OPEN if body.get(name) is not None})
        results = [one for one in _list(body, "results") if isinstance(one, dict)]
        if written := [one for one in results if one.get("tokenCount") is not None]:
            counted = [self._counts.get(one, "tokenCount") or 0 for one in written]
            found["totalOutputTextTokenCount"] = sum(counted)
        self._usage.update(found)
        self._images += len(_list(body, "images")) + len(_list(body, "artifacts"))
        facts.response_shaped = facts.response_shaped or bool(found or self._images)
        endings = [body, body.get("messageStop"), *results]
        endings += [one for name in ("choices", "outputs", "generations") for one in _list(body, name)]
        if reasons := [reason for one in endings if (reason := _stop(one))]:
            facts.finish_reasons = reasons
        if body.get("error"):
            self.take_error(body["error"], body.get("code"))

    def close(self, *, complete: bool) -> None:
        """Tells a refusal in the model's place from an answer."""
        self._claude.close(complete=complete)
        if self._guarded and not self._metrics and not self._headers:
            self.facts.error_type = BLOCKED
            self._usage = {}

    def measured(self, *, complete: bool) -> Measured:
        """What body, metrics and headers agree upon."""
        counts = self._counts
        body = self._claude.measured(complete=complete)
        own = self._own_buckets() if not body.tokens else {}
        sources = (body.tokens or own, bedrock_usage.buckets(self._metrics, counts))
        tokens = bedrock_usage.agreed((*sources, bedrock_usage.buckets(self._headers, counts)), counts)
        if not self.has_output:
            tokens = {bucket: n for bucket, n in tokens.items() if bucket.startswith("input")}
        if not tokens:
            return Measured({}, body.units)
        whole = "input" in tokens and ("output" in tokens or not self.has_output)
        ended = self.facts.terminated and (not body.tokens or body.quality == QUALITY_EXACT)
        exact = whole and ended and counts.sound
        return Measured(tokens, body.units, QUALITY_EXACT if exact else QUALITY_PARTIAL)

    def _own_buckets(self) -> dict[str, int]:
        """Of the usage object, whichever shape it has."""
        if "prompt_tokens" in self._usage or "input_tokens" in self._usage:
            measured = openai_usage.measure(self._usage, self.facts, self.quirks, has_output=self.has_output)
            if measured.quality != QUALITY_EXACT:
                self._counts.sound = False
            return measured.tokens
        return bedrock_usage.buckets(self._usage, self._counts)


class BedrockEmbeddings(BedrockInvoke):
    """POST .../model/MODEL/invoke of a model that embeds"""

    operation: ClassVar[str] = "embeddings"
    has_output: ClassVar[bool] = False


class BedrockRerank(BedrockInvoke):
    """POST .../model/MODEL/invoke of a model that ranks, which is paid for by the query"""

    operation: ClassVar[str] = "rerank"
    has_output: ClassVar[bool] = False


class BedrockImages(BedrockInvoke):
    """POST .../model/MODEL/invoke of a model that draws"""

    operation: ClassVar[str] = "image_generation"

    def measured(self, *, complete: bool) -> Measured:
        """The images themselves are what is paid for."""
        if not self._images or self.facts.error_type is not None:
            return Measured()
        return Measured({}, {"images": float(self._images)}, QUALITY_EXACT)


def _text_of(value: Any) -> str:
    """A text of any length."""
    return value if isinstance(value, str) else ""


def _list(body: Mapping[str, Any], name: str) -> list[Any]:
    found = body.get(name)
    return found if isinstance(found, list) else []


def _stop(ending: Any) -> str:
    if not isinstance(ending, dict):
        return ""
    return next((reason for name in _STOPS if (reason := text(ending.get(name)))), "")


# What a model does shows in its name, be it an id or part of an ARN.
_EMBEDS: Final = r"[^/]*(?:embed|marengo)[^/]*"
_RANKS: Final = r"[^/]*rerank[^/]*"
_DRAWS: Final = r"[^/]*(?:titan-image|nova-canvas|stability\.|stable-)[^/]*"
_INVOKE: Final = r"/(?:invoke|invoke-with-response-stream)"
ROUTES: Final = (
    Route(rf".*/model/(?P<model>{_EMBEDS}){_INVOKE}", BedrockEmbeddings),
    Route(rf".*/model/(?P<model>{_RANKS}){_INVOKE}", BedrockRerank),
    Route(rf".*/model/(?P<model>{_DRAWS}){_INVOKE}", BedrockImages),
    Route(rf"{MODEL}{_INVOKE}", BedrockInvoke),
)
