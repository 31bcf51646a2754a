"""DashScope's own API (Alibaba Cloud Model Studio); `/compatible-mode` is OpenAI's dialect.

`usage` has `input_tokens` with images, video and sound inside, and `output_tokens` with reasoning inside.
In a stream (`X-DashScope-SSE: enable`) every event has the usage so far: the last one counts, and it is
final once there is a finish reason, which is the text "null" until then. Embeddings and reranking have a
total alone.

Images and videos are made by tasks that are begun here and looked at later (`/tasks/{id}`), which costs
nothing; pictures that come at once are counted (`image_count`), speech in `characters`, sound in `duration`
or seconds. Applications (`/apps/{id}/completion`) list the tokens of each model that took part: each is a
call.

Source: the API reference of Model Studio.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree
from mmproto.providers.counts import Counts, divide
from mmproto.providers.dialect import Dialect
from mmproto.providers.facts import Facts, Measured, Portion, text
from mmproto.providers.route import GET, POST, Route

_TREE: Final[Tree] = {
    "request_id": VALUE,
    "code": VALUE,
    "message": PRESENT,
    "usage": VALUE,
    "output": {"finish_reason": VALUE, "choices": {EVERY: {"finish_reason": VALUE}}, "task_id": VALUE},
}
_UNFINISHED: Final = frozenset({"", "null"})
# Our unit: the names it goes by.
_UNITS: Final = {
    "images": ("image_count",),
    "characters": ("characters",),
    "audio_seconds": ("seconds", "duration"),
}


class DashScopeGeneration(Dialect):
    """POST /api/v1/services/aigc/..."""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "alibaba"
    has_output: ClassVar[bool] = True
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _usage: Any = None

    def read_response(self, document: Any) -> None:
        """Takes an answer or an error."""
        if isinstance(document, dict):
            self.take_event("", document)
            self.facts.terminated = True

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes an event of a stream, or a whole answer."""
        facts = self.facts
        facts.response_id = text(document.get("request_id")) or facts.response_id
        output, usage = document.get("output"), document.get("usage")
        facts.response_shaped = facts.response_shaped or isinstance(output, dict)
        if isinstance(usage, dict):
            self._usage = usage
        if isinstance(output, dict):
            choices = output.get("choices")
            found = [output, *(choices if isinstance(choices, list) else ())]
            reasons = [text(part.get("finish_reason")) for part in found if isinstance(part, dict)]
            facts.finish_reasons = [reason for reason in reasons if reason not in _UNFINISHED]
            facts.terminated = facts.terminated or bool(facts.finish_reasons)
        if document.get("code"):
            self.take_error(document, document.get("code"))

    def close(self, *, complete: bool) -> None:
        """An application's models beside the first are calls of their own."""
        for number, used in enumerate(self._models()[1:], 2):
            facts = Facts(request_model=text(used.get("model_id")), response_id=self.facts.response_id)
            facts.response_model, facts.terminated = facts.request_model, True
            measured = self._measure(used, Counts(facts), final=True)
            self.portions.append(Portion(facts, measured, suffix=f"#model-{number}"))

    def _models(self) -> list[dict[str, Any]]:
        models = self._usage.get("models") if isinstance(self._usage, dict) else None
        return [used for used in models if isinstance(used, dict)] if isinstance(models, list) else []

    def measured(self, *, complete: bool) -> Measured:
        """The last usage; of a stream that was cut off the input only, since the output was still growing."""
        usage = self._usage
        for used in self._models()[:1]:
            usage = used
            self.facts.response_model = text(used.get("model_id"))
        return self._measure(usage, Counts(self.facts), final=self.facts.terminated)

    def _measure(self, usage: Any, counts: Counts, *, final: bool) -> Measured:
        tokens: dict[str, int] = {}
        whole_input = counts.get(usage, "input_tokens", "prompt_tokens")
        if whole_input is None and not self.has_output:
            whole_input = counts.get(usage, "total_tokens")
        if whole_input is not None:
            divide(counts, tokens, "input", whole_input, _inside_input(counts, usage))
        output = counts.get(usage, "output_tokens") if self.has_output and final else None
        if output is not None:
            details = usage.get("output_tokens_details")
            subsets = {
                "output_reasoning": counts.get(details, "reasoning_tokens"),
                "output_audio": counts.get(details, "audio_tokens"),
            }
            divide(counts, tokens, "output", output, subsets)
        units: dict[str, float] = {}
        if not tokens:
            for unit, names in _UNITS.items():
                if amount := counts.units(usage, *names):
                    units[unit] = amount
        whole = bool(units) or (whole_input is not None and (output is not None or not self.has_output))
        return Measured(tokens, units, counts.quality(whole=whole)) if tokens or units else Measured()


def _inside_input(counts: Counts, usage: dict[str, Any]) -> dict[str, int | None]:
    """Buckets of what the input includes; older models put the modalities beside the totals."""
    details, cache = usage.get("input_tokens_details"), usage.get("prompt_tokens_details")
    return {
        "input_cache_read": counts.get(cache, "cached_tokens"),
        "input_cache_write_5m": counts.get(cache, "cache_creation_input_tokens"),
        "input_image": _first(counts.get(details, "image_tokens"), counts.get(usage, "image_tokens")),
        "input_video": _first(counts.get(details, "video_tokens"), counts.get(usage, "video_tokens")),
        "input_audio": _first(counts.get(details, "audio_tokens"), counts.get(usage, "audio_tokens")),
    }


def _first(*counts: int | None) -> int | None:
    return next((count for count in counts if count is not None), None)


class DashScopeImages(DashScopeGeneration):
    """POST .../services/aigc/text2image/image-synthesis and its kin"""

    operation: ClassVar[str] = "image_generation"


class DashScopeVideo(DashScopeGeneration):
    """POST .../services/aigc/video-generation/video-synthesis and its kin"""

    operation: ClassVar[str] = "video_generation"


class DashScopeAudio(DashScopeGeneration):
    """POST .../services/audio/..."""

    operation: ClassVar[str] = "transcription"


class DashScopeEmbeddings(DashScopeGeneration):
    """POST .../services/embeddings/..."""

    operation: ClassVar[str] = "embeddings"
    has_output: ClassVar[bool] = False


class DashScopeRerank(DashScopeEmbeddings):
    """POST .../services/rerank/text-rerank/text-rerank"""

    operation: ClassVar[str] = "rerank"


_ALIBABA: Final = frozenset({DashScopeGeneration.flavour})
_SERVICES: Final = r".*/api/v1/services"
ROUTES: Final = (
    Route(rf"{_SERVICES}/embeddings/.*", DashScopeEmbeddings),
    Route(rf"{_SERVICES}/rerank/.*", DashScopeRerank),
    Route(rf"{_SERVICES}/audio/.*", DashScopeAudio),
    Route(rf"{_SERVICES}/aigc/(.*video.*)", DashScopeVideo),
    Route(rf"{_SERVICES}/aigc/((text2|image2|image-|background).*)", DashScopeImages),
    Route(rf"{_SERVICES}/aigc/.*", DashScopeGeneration),
    Route(r".*/api/v1/apps/[^/]+/completion", DashScopeGeneration, providers=_ALIBABA),
    Route(r".*/api/v1/tokenizer", DashScopeGeneration, POST, _ALIBABA, "token_counting"),
    Route(r".*/api/v1/tasks/[^/]+", DashScopeGeneration, GET, _ALIBABA, "retrieval"),
)
