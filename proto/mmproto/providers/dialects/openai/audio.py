"""OpenAI's speech to text and text to speech, and those of its copies.

A transcription's usage says its own type: `tokens` (the gpt-4o family) or `duration`, in seconds. Without a
usage the length of the recording counts where it is told (`verbose_json`, Groq); answers in plain text, SRT
or VTT tell nothing. Speech is sound: what is paid for is the number of characters that were asked to be
spoken, except where the model is priced by tokens, which only its event stream reports.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.facts import Facts, Measured, text
from mmproto.providers.route import Route
from mmproto.v1.usage_pb2 import QUALITY_EXACT, QUALITY_PARTIAL

_TREE: Final[Tree] = {
    "id": VALUE,
    "type": VALUE,
    "model": VALUE,
    "text": PRESENT,
    "duration": VALUE,
    "usage": VALUE,
    "x_groq": {"id": VALUE},
    "error": VALUE,
    "code": VALUE,
}
# Models of OpenAI that are priced by tokens: neither seconds nor characters say what they cost.
_BY_TOKENS: Final = re.compile(r"(.*/)?gpt-.*|.*gemini.*")
_LAST_EVENTS: Final = ("transcript.text.done", "speech.audio.done")


def measure_sound(usage: Any, facts: Facts) -> Measured:
    """The usage of a transcription: tokens, or seconds of sound."""
    if isinstance(usage, dict) and (usage.get("type") == "duration" or "seconds" in usage):
        counts = Counts(facts)
        seconds = counts.units(usage, "seconds")
        return Measured({}, {"audio_seconds": seconds}, QUALITY_EXACT) if seconds is not None else Measured()
    return openai_usage.measure(usage, facts, frozenset())


class _Audio(Dialect):
    """What both directions have in common."""

    flavour: ClassVar[str] = "openai"
    answers_bytes: ClassVar[bool] = True
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _usage: Any = None

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """As every response; sound or text may begin like an event stream, so its type has to say so."""
        super().read_response_head(status, headers)
        self.facts.streamed = "text/event-stream" in headers.get("content-type", "")

    def read_response(self, document: Any) -> None:
        """Takes an answer in JSON, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.terminated = True
        groq = document.get("x_groq")
        facts.response_id = text(document.get("id")) or text(groq.get("id") if isinstance(groq, dict) else "")
        facts.response_model = text(document.get("model")) or facts.response_model
        facts.response_shaped = "text" in document
        self._usage = document.get("usage")
        if document.get("error"):
            self.take_error(document["error"], document.get("code"))

    def tells(self, data: bytes) -> bool:
        """The last events and errors; all others are deltas."""
        return b'.done"' in data or b'"error"' in data

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes an event of a stream."""
        facts = self.facts
        kind = text(document.get("type")) or name
        self._usage = document.get("usage") or self._usage
        if kind in _LAST_EVENTS:
            facts.response_shaped = facts.terminated = True
        elif document.get("error"):
            self.take_error(document["error"], document.get("code"))
            facts.terminated = True

    def _is_by_tokens(self) -> bool:
        return _BY_TOKENS.fullmatch(self.facts.response_model or self.facts.request_model) is not None


class OpenAITranscription(_Audio):
    """POST .../audio/transcriptions, .../audio/translations"""

    operation: ClassVar[str] = "transcription"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "file": PRESENT}

    _duration: float | None = None

    def read_request(self, document: Any) -> None:
        """Takes the fields of the form."""
        super().read_request(document)
        self.facts.request_shaped = isinstance(document, dict) and ("model" in document or "file" in document)

    def read_response(self, document: Any) -> None:
        """Takes a transcript, or an error."""
        super().read_response(document)
        if isinstance(document, dict):
            self._duration = Counts(self.facts).units(document, "duration")

    def measured(self, *, complete: bool) -> Measured:
        """Tokens or seconds, as the provider bills them; else the length of the recording."""
        measured = measure_sound(self._usage, self.facts)
        if measured.tokens or measured.units or self._duration is None:
            return measured
        quality = QUALITY_PARTIAL if self._is_by_tokens() else QUALITY_EXACT
        return Measured({}, {"audio_seconds": self._duration}, quality)


class OpenAISpeech(_Audio):
    """POST .../audio/speech"""

    operation: ClassVar[str] = "speech"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "input": VALUE, "voice": PRESENT, "stream_format": VALUE}

    _characters: int | None = None

    def read_request(self, document: Any) -> None:
        """Takes a request; of the text that is to be spoken only its length."""
        super().read_request(document)
        if not isinstance(document, dict):
            return
        spoken = document.get("input")
        self._characters = len(spoken) if isinstance(spoken, str) else None
        self.facts.stream_requested |= document.get("stream_format") == "sse"

    def measured(self, *, complete: bool) -> Measured:
        """The tokens that a stream reported, or the characters that were asked for."""
        measured = openai_usage.measure(self._usage, self.facts, frozenset())
        tokens = measured.tokens
        if "output" in tokens:  # all of it is sound
            tokens["output_audio"] = tokens.pop("output") + tokens.get("output_audio", 0)
        if tokens or self._characters is None or self._is_by_tokens():
            return measured
        return Measured({}, {"characters": float(self._characters)}, QUALITY_EXACT)


ROUTES: Final = (
    Route(
        r".*/deployments/(?P<deployment>[^/]+)/audio/(transcriptions|translations)",
        OpenAITranscription,
    ),
    Route(r".*/deployments/(?P<deployment>[^/]+)/audio/speech", OpenAISpeech),
    Route(r".*/audio/(transcriptions|translations)", OpenAITranscription),
    Route(r".*/audio/speech", OpenAISpeech),
    Route(r".*/audio/generations", OpenAISpeech, providers=frozenset({"together"})),
)
