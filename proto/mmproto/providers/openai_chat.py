"""OpenAI chat completions and the older text completions: one shape of response, two operations.

Streams carry usage only where the client asked for it or the provider gives it anyway: on the last chunk, on
every chunk as a running sum, or twice (Groq). So the LAST usage that is not null counts and nothing is
summed. Azure opens a stream with a chunk whose model is "".
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, VALUE, Tree
from mmproto.providers import openai_usage
from mmproto.providers.dialect import Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route
from mmproto.v1.usage_pb2 import QUALITY_PARTIAL

_TREE: Tree = {
    "id": VALUE,
    "object": VALUE,
    "model": VALUE,
    "service_tier": VALUE,
    "usage": VALUE,
    "error": VALUE,
    "code": VALUE,
    "x_groq": {"usage": VALUE, "error": VALUE},
    "choices": {EVERY: {"index": VALUE, "finish_reason": VALUE, "usage": VALUE}},
}


class OpenAIChat(Dialect):
    """POST .../chat/completions"""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "openai"
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _usage: dict[str, Any] | None = None
    _finished: bool = False  # a finish reason was seen
    # The usage came with or after it, or in a chunk of its own: it is no running sum any more.
    _usage_is_final: bool = False

    def read_response(self, document: Any) -> None:
        """Takes a `chat.completion` or an error."""
        if isinstance(document, dict):
            self.take_event("", document)
            self.facts.terminated = self._usage_is_final = True

    def tells(self, data: bytes) -> bool:
        """The first chunks say who answers; later ones count when they finish, fail or carry usage."""
        if not (self.facts.response_model and self.facts.response_id):
            return True
        if b'_tokens"' in data or b'"error"' in data or b"[DONE]" in data:
            return True
        reasons = data.count(b'"finish_reason"')
        if not reasons:
            return False
        unfinished = data.count(b'"finish_reason":null') or data.count(b'"finish_reason": null')
        return reasons != unfinished

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a chunk, a whole completion, or an error."""
        facts = self.facts
        facts.response_id = facts.response_id or text(document.get("id"))
        facts.response_model = facts.response_model or text(document.get("model"))
        facts.response_tier = text(document.get("service_tier")) or facts.response_tier
        groq = document.get("x_groq")
        groq = groq if isinstance(groq, dict) else {}
        usage = document.get("usage") or groq.get("usage")
        choices = document.get("choices")
        if isinstance(choices, list):
            facts.response_shaped = True
            for choice in choices:
                if isinstance(choice, dict):
                    usage = usage or choice.get("usage")
                    self._take_finish(choice.get("finish_reason"))
        if isinstance(usage, dict):
            self._usage = usage
            self._usage_is_final = self._finished or choices == []
        error = document.get("error") or groq.get("error")
        if error:
            self.take_error(error, document.get("code"))
            facts.terminated = True

    def _take_finish(self, reason: Any) -> None:
        if reason := text(reason):
            self._finished = True
            self.facts.finish_reasons.append(reason)

    def measured(self, *, complete: bool) -> Measured:
        """The last usage; of a stream that was cut off the input only, since the output was still growing."""
        result = openai_usage.measure(self._usage, self.facts, self.quirks)
        if complete or self._usage_is_final or not result.tokens:
            return result
        tokens = {bucket: n for bucket, n in result.tokens.items() if bucket.startswith("input")}
        return Measured(tokens, {}, QUALITY_PARTIAL)


class OpenAICompletions(OpenAIChat):
    """POST .../completions, the legacy endpoint that many local servers still offer."""

    operation: ClassVar[str] = "text_completion"


ROUTES: Final = (
    Route(r".*/deployments/(?P<deployment>[^/]+)/chat/completions", OpenAIChat),
    Route(r".*/deployments/(?P<deployment>[^/]+)/completions", OpenAICompletions),
    Route(r".*/chat/completions", OpenAIChat),
    Route(r".*/prompts/[^/]+/completions", OpenAIChat),  # Portkey's stored prompts
    Route(r".*/completions", OpenAICompletions),
)
