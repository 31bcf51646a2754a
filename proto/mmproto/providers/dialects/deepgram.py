"""Deepgram: speech to text, text to speech, and the reading of texts.

Speech that is listened to is billed by `metadata.duration`, in seconds, and with `multichannel=true` for
each channel; a live session says the same at its end. What is spoken is billed by the character
(`dg-char-count`). What is read out of texts (`summarize`, `topics`, ...) counts tokens in
`metadata.*_info`, of the same models whether the text was written or heard; other models bill nothing of
their own.

The model stands in the query. An answer names the model's parts by id, with a name for each.

Source: Deepgram's API reference and price list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs

from mmproto.framing.events import Event
from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.facts import Measured, Portion, text
from mmproto.providers.route import GET, Route

_TREE: Final[Tree] = {
    "type": VALUE,
    "request_id": VALUE,
    "duration": VALUE,
    "channels": VALUE,
    "model_info": VALUE,
    "metadata": {
        "request_id": VALUE,
        "duration": VALUE,
        "channels": VALUE,
        "model_info": VALUE,
        "summary_info": VALUE,
        "topics_info": VALUE,
        "intents_info": VALUE,
        "sentiment_info": VALUE,
    },
    "results": PRESENT,
    "err_code": VALUE,
    "err_msg": PRESENT,
    "category": VALUE,
}
_SWITCHING: Final = 101
_READINGS: Final = ("summary_info", "topics_info", "intents_info", "sentiment_info")


class DeepgramListen(Dialect):
    """POST /v1/listen"""

    operation: ClassVar[str] = "transcription"
    flavour: ClassVar[str] = "deepgram"
    takes_bytes: ClassVar[bool] = True
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _metadata: dict[str, Any] | None = None

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        query = parse_qs(asked.query)
        self.facts.request_model = text(query.get("model", [""])[0])
        self._each_channel = query.get("multichannel") == ["true"]

    def read_response(self, document: Any) -> None:
        """Takes a transcript, what ends a session, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        metadata = document if document.get("type") == "Metadata" else document.get("metadata")
        if isinstance(metadata, dict):
            facts.response_id = text(metadata.get("request_id"))
            facts.response_shaped = "duration" in metadata
            facts.terminated = True
            facts.response_model = facts.response_model or _model(metadata)
            self._metadata = metadata
        if "err_code" in document or "category" in document:
            self.take_error(document, document.get("err_code") or document.get("category"))

    def measured(self, *, complete: bool) -> Measured:
        """Seconds, and the tokens of what was read out of them."""
        counts, metadata = Counts(self.facts), self._metadata or {}
        units: dict[str, float] = {}
        seconds = counts.units(metadata, "duration")
        if seconds is not None:
            channels = counts.get(metadata, "channels") if self._each_channel else 1
            units["audio_seconds"] = seconds * (channels or 1)
        tokens: dict[str, int] = {}
        for reading in _READINGS:
            for bucket, name in (("input", "input_tokens"), ("output", "output_tokens")):
                if (count := counts.get(metadata.get(reading), name)) is not None:
                    tokens[bucket] = tokens.get(bucket, 0) + count
        return Measured(tokens, units, counts.quality()) if tokens or units else Measured()


class DeepgramSession(DeepgramListen):
    """GET /v1/listen, upgraded to WebSocket: sound one way, transcripts the other, their cost at the end"""

    speaks_websocket: ClassVar[bool] = True

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.is_container = True  # what was upgraded is no call; what went on afterwards is one
        self._upgraded = False

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Whether there is a session at all."""
        super().read_response_head(status, headers)
        self._upgraded = status == _SWITCHING

    def tells(self, data: bytes) -> bool:
        """What ends a session, and errors."""
        return b"Metadata" in data or b"err_" in data

    def read_event(self, event: Event) -> None:
        """Takes a message of the server."""
        if event.name == "text":
            super().read_event(event._replace(name=""))

    def close(self, *, complete: bool) -> None:
        """A session that never told its end has a cost that nobody knows."""
        if self._upgraded:
            self.facts.streamed = True
            self.portions.append(Portion(self.facts, self.measured(complete=complete)))


class DeepgramRead(DeepgramListen):
    """POST /v1/read"""

    operation: ClassVar[str] = "text_analysis"


class DeepgramSpeak(DeepgramListen):
    """POST /v1/speak"""

    operation: ClassVar[str] = "speech"
    answers_bytes: ClassVar[bool] = True

    _characters: str | None = None

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """All that is counted stands in the headers."""
        super().read_response_head(status, headers)
        if 200 <= status < 300:
            self._characters = headers.get("dg-char-count")
            self.facts.response_id = text(headers.get("dg-request-id"))
            self.facts.response_shaped = self._characters is not None

    def measured(self, *, complete: bool) -> Measured:
        """Characters."""
        counts = Counts(self.facts)
        characters = counts.of_text(self._characters)
        if characters is None:
            return Measured()
        return Measured({}, {"characters": float(characters)}, counts.quality())


def _model(metadata: dict[str, Any]) -> str:
    """The architecture of the first of the models, which is what prices are given for."""
    models = metadata.get("model_info")
    if not isinstance(models, dict):
        return ""
    named = [model.get("arch") or model.get("name") for model in models.values() if isinstance(model, dict)]
    return next((text(name) for name in named if text(name)), "")


_DEEPGRAM: Final = frozenset({DeepgramListen.flavour})
ROUTES: Final = (
    Route(r".*/v1/listen", DeepgramListen),
    Route(r".*/v1/listen", DeepgramSession, methods=GET, providers=_DEEPGRAM),
    Route(r".*/v1/read", DeepgramRead, providers=_DEEPGRAM),
    Route(r".*/v1/speak", DeepgramSpeak),
)
