"""Speech and transcripts of providers that offer nothing but sound: ElevenLabs and AssemblyAI.

ElevenLabs counts the characters that it bills in a header (`character-cost`), for what it speaks as for
what it converts or composes; a transcript may say how long its sound was. AssemblyAI begins a transcript
that is looked at later, for nothing; what its models then say about transcripts (LeMUR) counts tokens.

Sources: the API references of both.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.dialects.speech import SpeechByHeader
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import RETRIEVAL
from mmproto.providers.route import GET, POST, Route

_TREE: Final[Tree] = {
    "id": VALUE,
    "request_id": VALUE,
    "transcription_id": VALUE,
    "status": VALUE,
    "audio_duration": VALUE,
    "audio_duration_secs": VALUE,
    "usage": {"input_tokens": VALUE, "output_tokens": VALUE},
    "text": PRESENT,
    "detail": {"status": VALUE, "code": VALUE},
    "error": VALUE,
}


class Transcript(Dialect):
    """POST /v1/speech-to-text (ElevenLabs), POST /v2/transcript (AssemblyAI)"""

    operation: ClassVar[str] = "transcription"
    flavour: ClassVar[str] = "elevenlabs"
    request_tree: ClassVar[Tree] = {
        **REQUEST_TREE,
        "model_id": VALUE,
        "speech_model": VALUE,
        "final_model": VALUE,
    }
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _answer: dict[str, Any] | None = None

    def read_request(self, document: Any) -> None:
        """As every request, with other names for the model."""
        super().read_request(document)
        if isinstance(document, dict):
            named = (document.get(name) for name in ("model_id", "speech_model", "final_model"))
            self.facts.request_model = next((text(name) for name in named if text(name)), "")

    def read_response(self, document: Any) -> None:
        """Takes a transcript, what has been begun, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.terminated = True
        identifier = document.get("id") or document.get("request_id") or document.get("transcription_id")
        facts.response_id = text(identifier)
        self._answer = document
        detail = document.get("detail")
        if document.get("error") or isinstance(detail, dict):
            self.take_error(detail if isinstance(detail, dict) else document["error"])

    def measured(self, *, complete: bool) -> Measured:
        """Seconds, where the answer says how many."""
        counts = Counts(self.facts)
        seconds = counts.units(self._answer, "audio_duration_secs", "audio_duration")
        return Measured() if seconds is None else Measured({}, {"audio_seconds": seconds}, counts.quality())


class LeMUR(Transcript):
    """POST /lemur/v3/generate/..."""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "assemblyai"

    def measured(self, *, complete: bool) -> Measured:
        """Tokens."""
        counts, usage = Counts(self.facts), (self._answer or {}).get("usage")
        found = {"input": counts.get(usage, "input_tokens"), "output": counts.get(usage, "output_tokens")}
        tokens = {bucket: count for bucket, count in found.items() if count is not None}
        return Measured(tokens, {}, counts.quality(whole=len(tokens) == len(found))) if tokens else Measured()


class ElevenLabsSpeech(SpeechByHeader, Transcript):
    """POST /v1/text-to-speech/{voice} and other ways to sound"""

    characters_header: ClassVar[str] = "character-cost"


_ELEVENLABS: Final = frozenset({"elevenlabs"})
_ASSEMBLYAI: Final = frozenset({"assemblyai"})
ROUTES: Final = (
    Route(
        r"/v1/(text-to-speech|speech-to-speech|text-to-dialogue|sound-generation|music|audio-isolation)(/.*)?",
        ElevenLabsSpeech,
        POST,
        _ELEVENLABS,
    ),
    Route(r"/v1/speech-to-text", Transcript, POST, _ELEVENLABS),
    Route(r"/v2/transcript", Transcript, POST, _ASSEMBLYAI),
    Route(r"/v2/transcript(/[^/]+)?", Transcript, GET, _ASSEMBLYAI, free=RETRIEVAL),
    Route(r"/lemur/v3/generate/.*", LeMUR, POST, _ASSEMBLYAI),
)
