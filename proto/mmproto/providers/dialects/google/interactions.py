"""Gemini's Interactions API: typed events, the usage on the last one, totals under names of their own.

Input and output are told apart as in `usageMetadata`: thoughts are outside the output and tool use outside
the input, both inside the total. An interaction with a model is answered at once. An agent (deep research)
works in the background: the POST that starts it has no usage and costs nothing yet, and the GET that finds
it complete is what shows the spend. Polling repeats it under one id, so it counts once. A GET of an
interaction with a model repeats a call that was already seen and costs nothing.

Source: ai.google.dev/api/interactions-api.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.dialects.google.usage import RunningUsage
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import RESPONSE_PENDING, RETRIEVAL
from mmproto.providers.route import GET, Route

_INTERACTION: Final[Tree] = {
    "id": VALUE,
    "object": VALUE,
    "status": VALUE,
    "model": VALUE,
    "agent": VALUE,
    "service_tier": VALUE,
    "usage": VALUE,
    "error": VALUE,
}
_PENDING: Final = frozenset({"in_progress", "queued"})
# The first names of the API are still in use: `interaction.start`, `interaction.complete`.
_TELLING: Final = frozenset(
    {
        "interaction.created",
        "interaction.start",
        "interaction.completed",
        "interaction.complete",
        "interaction.failed",
        "interaction.cancelled",
        "error",
    }
)
_OPENING: Final = ("interaction.created", "interaction.start")
# Its names for what `usageMetadata` calls otherwise.
_NAMES: Final[Mapping[str, str]] = {
    "total_input_tokens": "promptTokenCount",
    "total_cached_tokens": "cachedContentTokenCount",
    "total_output_tokens": "candidatesTokenCount",
    "total_thought_tokens": "thoughtsTokenCount",
    "total_reasoning_tokens": "thoughtsTokenCount",
    "total_tool_use_tokens": "toolUsePromptTokenCount",
    "total_tokens": "totalTokenCount",
    "input_tokens_by_modality": "promptTokensDetails",
    "cached_tokens_by_modality": "cacheTokensDetails",
    "output_tokens_by_modality": "candidatesTokensDetails",
    "tool_use_tokens_by_modality": "toolUsePromptTokensDetails",
}


class GeminiInteractions(Dialect):
    """POST .../interactions and GET .../interactions/ID"""

    operation: ClassVar[str] = "generate_content"
    flavour: ClassVar[str] = "gcp.gemini"
    request_tree: ClassVar[Tree] = {"model": VALUE, "stream": VALUE, "service_tier": VALUE, "input": PRESENT}
    response_tree: ClassVar[Tree] = _INTERACTION
    event_tree: ClassVar[Tree] = {"event_type": VALUE, "interaction": _INTERACTION, "error": VALUE}
    telling_names: ClassVar[frozenset[str]] = _TELLING

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._usage = RunningUsage()
        self._pending = False
        self._whole = False  # the answer was a document, which says all there is to say for now
        self._agent = False

    def read_response(self, document: Any) -> None:
        """Takes an interaction or an error."""
        if isinstance(document, dict):
            self._take(document)
            self._whole = True
            self.facts.terminated = not self._pending

    def tells(self, data: bytes) -> bool:
        """The events that carry an interaction, and errors; all others are deltas."""
        return b'"interaction":' in data or b'"interaction" :' in data or b'"error"' in data

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a typed event."""
        interaction = document.get("interaction")
        if isinstance(interaction, dict):
            self._take(interaction)
            if (text(document.get("event_type")) or name) not in _OPENING and not self._pending:
                self.facts.terminated = True
        if document.get("error"):
            self.take_error(document["error"])
            self.facts.terminated = True

    def _take(self, document: dict[str, Any]) -> None:
        facts = self.facts
        facts.response_shaped = facts.response_shaped or document.get("object") == "interaction"
        facts.response_id = text(document.get("id")) or facts.response_id
        facts.response_model = text(document.get("model")) or facts.response_model
        facts.response_tier = text(document.get("service_tier")) or facts.response_tier
        self._agent = self._agent or bool(document.get("agent"))
        usage = document.get("usage")
        if isinstance(usage, dict):
            self._usage.take({_NAMES[name]: value for name, value in usage.items() if name in _NAMES})
        status = text(document.get("status"))
        self._pending = status in _PENDING
        if document.get("error") or status in ("failed", "cancelled"):
            self.take_error(document.get("error"), status)
        elif status and not self._pending:
            facts.finish_reasons = [status]

    def close(self, *, complete: bool) -> None:
        """Knows now whether this exchange showed a spend."""
        if self._pending and self._whole:
            self.facts.free = RESPONSE_PENDING
        elif self.asked.method == "GET" and not self._agent:
            self.facts.free = RETRIEVAL

    def measured(self, *, complete: bool) -> Measured:
        """The usage of the finished interaction."""
        return self._usage.measure(self.facts, finished=self.facts.terminated)


ROUTES: Final = (
    Route(r".*/interactions", GeminiInteractions),
    Route(r".*/interactions/[^/:]+", GeminiInteractions, methods=GET),
)
