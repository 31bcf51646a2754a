"""OpenAI chat completions and the older text completions: one shape of response, two operations.

Streams carry usage only where the client asked for it or the provider gives it anyway: on the last chunk, on
every chunk as a running sum, or twice (Groq). So the LAST usage that is not null counts and nothing is
summed. Azure opens a stream with a chunk whose model is "". llama.cpp, where it was not asked for usage,
still says what it read and wrote in `timings`.

One request to Groq's compound systems makes calls to several models: `usage_breakdown` tells them apart, and
each is a call at the price of its own model.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, VALUE, Tree
from mmproto.providers import cost, plans
from mmproto.providers.dialect import Dialect
from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.facts import Facts, Measured, Portion, text
from mmproto.providers.reasons import RETRIEVAL
from mmproto.providers.route import GET, Route
from mmproto.v1.usage_pb2 import QUALITY_PARTIAL

TREE: Final[Tree] = {
    "id": VALUE,
    "object": VALUE,
    "model": VALUE,
    "service_tier": VALUE,
    "usage": VALUE,
    "error": VALUE,
    "code": VALUE,
    "timings": VALUE,
    "usage_breakdown": VALUE,
    "copilot_usage": VALUE,
    "x_groq": {"id": VALUE, "usage": VALUE, "usage_breakdown": VALUE, "error": VALUE},
    "choices": {EVERY: {"index": VALUE, "finish_reason": VALUE, "usage": VALUE}},
}


class OpenAIChat(Dialect):
    """POST .../chat/completions"""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "openai"
    response_tree: ClassVar[Tree] = TREE
    event_tree: ClassVar[Tree] = TREE

    _model: str = ""
    _usage: dict[str, Any] | None = None
    _breakdown: Any = None
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
        if not (self._model and self.facts.response_id):
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
        if not self._model:  # the body knows better than a header
            self._model = text(document.get("model"))
            facts.response_model = self._model or facts.response_model
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
        usage = usage or _of_timings(document.get("timings"))
        if isinstance(usage, dict):
            self._usage = usage
            self._usage_is_final = self._finished or choices == []
        self._breakdown = document.get("usage_breakdown") or groq.get("usage_breakdown") or self._breakdown
        if (amount := cost.of_copilot(document.get("copilot_usage"))) is not None:
            facts.reported_cost_nano_usd = amount
        error = document.get("error") or groq.get("error")
        if error:
            self.take_error(error, document.get("code"))
            facts.terminated = True

    def _take_finish(self, reason: Any) -> None:
        if reason := text(reason):
            self._finished = True
            self.facts.finish_reasons.append(reason)

    def close(self, *, complete: bool) -> None:
        """Knows now which models took part, and who pays."""
        plans.mark(self.asked, self.facts)
        if self._is_settled(complete):
            self.portions += _by_model(self._breakdown, self._usage, self.facts)
            self.is_container = bool(self.portions)

    def _is_settled(self, complete: bool) -> bool:
        """Whether the last usage is no running sum any more.

        A stream that just stops is cut off, too: the end of a connection may be the end of its body.
        """
        return self._usage_is_final or (complete and (self._finished or self.facts.terminated))

    def measured(self, *, complete: bool) -> Measured:
        """The last usage; of a stream that was cut off the input only, since the output was still growing."""
        result = openai_usage.measure(self._usage, self.facts, self.quirks)
        if self._is_settled(complete) or not result.tokens:
            return result
        tokens = {bucket: n for bucket, n in result.tokens.items() if bucket.startswith("input")}
        return Measured(tokens, {}, QUALITY_PARTIAL)


class OpenAICompletions(OpenAIChat):
    """POST .../completions, the legacy endpoint that many local servers still offer."""

    operation: ClassVar[str] = "text_completion"


def _of_timings(timings: Any) -> dict[str, Any] | None:
    """The counts of llama.cpp: `cache_n` tokens of the prompt were in memory, `prompt_n` had to be read."""
    if not isinstance(timings, dict):
        return None
    read, cached = timings.get("prompt_n"), timings.get("cache_n", 0)
    if not (isinstance(read, int) and isinstance(cached, int)):
        return None
    found = {"prompt_tokens": read + cached, "completion_tokens": timings.get("predicted_n")}
    return {**found, "cached_tokens": cached} if "cache_n" in timings else found


def _by_model(breakdown: Any, whole: Any, facts: Facts) -> list[Portion]:
    """The calls of a compound system by the models that answered them.

    None where the breakdown names nobody but the model that the answer names, or does not add up to `whole`.
    """
    models = breakdown.get("models") if isinstance(breakdown, dict) else None
    parts = [part for part in models if isinstance(part, dict)] if isinstance(models, list) else []
    if not parts or all(part.get("model") == facts.response_model for part in parts):
        return []
    portions: list[Portion] = []
    for number, part in enumerate(parts):
        own = Facts(
            request_model=facts.request_model,
            streamed=facts.streamed,
            response_id=facts.response_id,
            response_model=text(part.get("model")),
            response_tier=facts.response_tier or facts.request_tier,
            end_user=facts.end_user,
            session=facts.session,
            finish_reasons=list(facts.finish_reasons),
        )
        measured = openai_usage.measure(part.get("usage"), own, frozenset())
        portions.append(Portion(own, measured, suffix=f"#{number}"))
    return portions if _total(portions) == _whole_of(whole) else []


def _total(portions: list[Portion]) -> int:
    return sum(sum(portion.measured.tokens.values()) for portion in portions)


def _whole_of(usage: Any) -> int:
    return sum(openai_usage.measure(usage, Facts(), frozenset()).tokens.values())


ROUTES: Final = (
    Route(r".*/deployments/(?P<deployment>[^/]+)/chat/completions", OpenAIChat),
    Route(r".*/deployments/(?P<deployment>[^/]+)/completions", OpenAICompletions),
    Route(r".*/chat/completions", OpenAIChat),
    Route(r".*/prompts/[^/]+/completions", OpenAIChat),  # Portkey's stored prompts
    Route(r".*/v1/chat", OpenAIChat, providers=frozenset({"writer"})),
    Route(r".*/v1/sonar", OpenAIChat, providers=frozenset({"perplexity"})),
    Route(r".*/engines/(?P<model>[^/]+)/completions", OpenAICompletions),
    Route(r".*/completions", OpenAICompletions),
    Route(r".*/v1/chat/completions/[^/]+", OpenAIChat, methods=GET, free=RETRIEVAL),
)
