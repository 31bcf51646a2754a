"""What Mistral offers besides chat completions and embeddings, which are OpenAI's dialect.

- OCR is billed by the page: `usage_info.pages_processed`. Pages read with an annotation cost more, and
  nothing in the answer tells them apart: they are a unit of their own, known by the request.
- A transcription reports tokens as a completion does, with the sound's tokens beside `prompt_tokens`, and the
  seconds it is billed by: `usage.prompt_audio_seconds`.
- Speech is billed by the character, which only a header counts.
- Agents answer like chat completions. Conversations have `usage` with tokens that tools fed in beside the
  prompt (`connector_tokens`) and the number of times that each tool ran (`connectors`).
- Moderation and classification are billed by tokens that no answer counts.
- Batch jobs cost nothing to create and look at; their results are files.

Sources: the API reference and the types of Mistral's SDKs.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, PRESENT, VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.dialects.openai.chat import OpenAIChat
from mmproto.providers.dialects.speech import SpeechByHeader
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import PREPARATION, RETRIEVAL
from mmproto.providers.route import GET, Route

_TREE: Final[Tree] = {
    "id": VALUE,
    "type": VALUE,
    "object": VALUE,
    "conversation_id": VALUE,
    "model": VALUE,
    "usage": VALUE,
    "usage_info": VALUE,
    "finish_reason": VALUE,
    "outputs": {EVERY: {"model": VALUE}},
    "pages": PRESENT,
    "audio_data": PRESENT,
    "code": VALUE,
    "error": VALUE,
    "detail": VALUE,
}
# What a batch job has that means an answer elsewhere.
_OF_ANSWERS: Final = frozenset({"model", "outputs", "usage"})


class _Mistral(Dialect):
    """What the answers have in common: a document, or events of which the last has the usage."""

    flavour: ClassVar[str] = "mistral_ai"
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _usage: Any = None

    def read_response(self, document: Any) -> None:
        """Takes an answer, an event of one, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.response_id = text(document.get("id") or document.get("conversation_id")) or facts.response_id
        facts.response_model = _model(document) or facts.response_model
        self._usage = document.get("usage") or document.get("usage_info") or self._usage
        facts.response_shaped = facts.response_shaped or isinstance(self._usage, dict)
        if isinstance(self._usage, dict):
            facts.response_tier = text(self._usage.get("service_tier")) or facts.response_tier
        kind = text(document.get("type"))
        if not kind or kind.endswith((".done", ".error")):
            facts.terminated = True
        if reason := text(document.get("finish_reason")):
            facts.finish_reasons = [reason]
        if document.get("error") or kind.endswith(".error"):
            self.take_error(document.get("error"), str(document.get("code") or ""))


class MistralOcr(_Mistral):
    """POST .../v1/ocr"""

    operation: ClassVar[str] = "ocr"
    request_tree: ClassVar[Tree] = {
        **REQUEST_TREE,
        "bbox_annotation_format": VALUE,
        "document_annotation_format": VALUE,
    }

    _unit: str = "pages"

    def read_request(self, document: Any) -> None:
        """As every request; an annotation that is asked for changes the price of every page."""
        super().read_request(document)
        if isinstance(document, dict):
            self.facts.request_shaped = False  # there are other APIs to read documents
            if any(document.get(f"{what}_annotation_format") for what in ("bbox", "document")):
                self._unit = "annotated_pages"

    def read_response(self, document: Any) -> None:
        """As the others; the model that was asked for is repeated, whatever served."""
        super().read_response(document)
        if self.facts.response_model == self.facts.request_model:
            self.facts.response_model = ""

    def measured(self, *, complete: bool) -> Measured:
        """Pages."""
        counts = Counts(self.facts)
        pages = counts.units(self._usage, "pages_processed")
        return Measured() if pages is None else Measured({}, {self._unit: pages}, counts.quality())


class MistralTranscription(_Mistral):
    """POST .../v1/audio/transcriptions"""

    operation: ClassVar[str] = "transcription"

    def measured(self, *, complete: bool) -> Measured:
        """Tokens, and the seconds that are billed."""
        result = openai_usage.measure(self._usage, self.facts, self.quirks)
        seconds = Counts(self.facts).units(self._usage, "prompt_audio_seconds")
        if seconds is not None:
            result.units["audio_seconds"] = seconds
        return result


class MistralSpeech(SpeechByHeader, _Mistral):
    """POST .../v1/audio/speech"""

    # What the request takes of the rate limit.
    characters_header: ClassVar[str] = "x-ratelimit-input-characters-query-cost"


class MistralConversation(_Mistral):
    """POST .../v1/conversations and what continues one"""

    operation: ClassVar[str] = "chat"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "inputs": PRESENT, "agent_id": VALUE}

    def read_request(self, document: Any) -> None:
        """As every request."""
        super().read_request(document)
        if isinstance(document, dict):
            self.facts.request_shaped = "inputs" in document

    def tells(self, data: bytes) -> bool:
        """All events but the pieces of the answer."""
        return b".delta" not in data or b'"usage"' in data or b".error" in data

    def measured(self, *, complete: bool) -> Measured:
        """The tokens of all turns, with those that tools put in."""
        usage = self._usage if isinstance(self._usage, dict) else {}
        counts = Counts(self.facts)
        fed = counts.get(usage, "connector_tokens") or 0
        total = counts.get(usage, "total_tokens")
        plain = {**usage, "total_tokens": total - fed if total is not None and total >= fed else total}
        result = openai_usage.measure(plain, self.facts, self.quirks)
        if fed and "input" in result.tokens:
            result.tokens["input"] += fed
        if searches := counts.units(usage.get("connectors"), "web_search", "web_search_premium"):
            result.units["web_searches"] = searches
        return result


class MistralModeration(_Mistral):
    """POST .../v1/moderations, .../v1/classifications, and the same of chats"""

    operation: ClassVar[str] = "moderation"

    def measured(self, *, complete: bool) -> Measured:
        """Nothing is reported."""
        return Measured()


class MistralBatch(_Mistral):
    """.../v1/batch/jobs and what is below it. The model of a job is the one that is asked for."""

    operation: ClassVar[str] = "batch"
    response_tree: ClassVar[Tree] = {name: want for name, want in _TREE.items() if name not in _OF_ANSWERS}

    def measured(self, *, complete: bool) -> Measured:
        """The job itself generates nothing."""
        return Measured()


def _model(document: dict[str, Any]) -> str:
    """The model of the answer; conversations name one in every output."""
    outputs = document.get("outputs")
    named = [output.get("model") for output in outputs or () if isinstance(output, dict)]
    return text(document.get("model")) or next((text(model) for model in named if model), "")


_MISTRAL: Final = frozenset({"mistral_ai"})
ROUTES: Final = (
    Route(r".*/(v1|mistral/azure)/ocr", MistralOcr),
    Route(r".*/audio/transcriptions", MistralTranscription, providers=_MISTRAL),
    Route(r".*/audio/speech", MistralSpeech, providers=_MISTRAL),
    Route(r".*/v1/(chat/)?(moderations|classifications)", MistralModeration, providers=_MISTRAL),
    Route(r".*/agents/completions", OpenAIChat, providers=_MISTRAL),
    Route(r".*/v1/conversations(/[^/]+(/restart)?)?(#stream)?", MistralConversation, providers=_MISTRAL),
    Route(r".*/v1/batch/jobs", MistralBatch, providers=_MISTRAL, free=PREPARATION),
    Route(r".*/v1/batch/jobs(/[^/]+)?", MistralBatch, methods=GET, providers=_MISTRAL, free=RETRIEVAL),
    Route(r".*/v1/batch/jobs/[^/]+/cancel", MistralBatch, providers=_MISTRAL, free=RETRIEVAL),
)
