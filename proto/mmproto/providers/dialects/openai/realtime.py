"""Realtime sessions over WebSocket: every response is a call, every transcription of what was heard another.

`response.done` carries the usage of one response, of that response alone; a session costs their sum. What
the caller said is transcribed by a model of its own, at its own price, and
`...input_audio_transcription.completed` carries that usage: tokens, or seconds of sound. The models stand in
the session, which the server repeats with every change, and before that in the query. A response that was
begun and never told its end has a cost that nobody knows. Azure, xAI and Alibaba speak the same; over WebRTC
a session is no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs

from mmproto.framing.events import Event
from mmproto.framing.jsonpick import VALUE, JsonBody, MalformedJson, Tree
from mmproto.providers.dialect import Asked, Dialect
from mmproto.providers.dialects.openai import usage as openai_usage
from mmproto.providers.dialects.openai.audio import measure_sound
from mmproto.providers.facts import Facts, Measured, Portion, text
from mmproto.providers.route import GET, Route

_TRANSCRIPTION: Final[Tree] = {"model": VALUE}
_SESSION: Final[Tree] = {
    "model": VALUE,
    "audio": {"input": {"transcription": _TRANSCRIPTION}},
    "input_audio_transcription": _TRANSCRIPTION,
}
_EVENT: Final[Tree] = {
    "type": VALUE,
    "item_id": VALUE,
    "session": _SESSION,
    "response": {"id": VALUE, "status": VALUE, "status_details": VALUE, "model": VALUE, "usage": VALUE},
    "usage": VALUE,
    "error": VALUE,
    "code": VALUE,
}
_HEARD: Final = "input_audio_transcription.completed"
_MARKS: Final = (b'"response.done"', b'"response.created"', b"session.", b"_transcription.completed")
# Far more than answer at a time: those whose end never comes must not pile up.
_MAX_OPEN: Final = 64
UNFINISHED: Final = "response_unfinished"


class OpenAIRealtime(Dialect):
    """GET .../realtime, upgraded to WebSocket"""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "openai"
    speaks_websocket: ClassVar[bool] = True
    response_tree: ClassVar[Tree] = {"error": VALUE, "code": VALUE}
    event_tree: ClassVar[Tree] = _EVENT

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self.is_container = True
        query = parse_qs(asked.query)
        named = query.get("model") or query.get("deployment") or [""]
        self.facts.request_model = text(named[0])
        self._model = ""
        self._transcriber = ""
        self._open: dict[str, None] = {}
        self._request: JsonBody | None = None

    def read_response(self, document: Any) -> None:
        """Takes an error in place of a session."""
        if isinstance(document, dict) and document.get("error"):
            self.take_error(document["error"], document.get("code"))

    def tells(self, data: bytes) -> bool:
        """Sessions, beginnings and ends; nearly all messages are pieces of sound."""
        return any(mark in data for mark in _MARKS)

    def read_request_event(self, event: Event) -> None:
        """Takes a message of the client: it may ask for another model, of which the server need not speak."""
        if self._request is None:
            if event.last and b'"session.update"' not in event.data:
                return  # sound, nearly always
            self._request = JsonBody({"type": VALUE, "session": _SESSION})
        self._request.feed(event.data)
        if not event.last:
            return
        request, self._request = self._request, None
        try:
            document = request.finish()
        except MalformedJson:
            return
        if isinstance(document, dict) and document.get("type") == "session.update":
            self._take_session(document.get("session"), asked_for=True)

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a message of the server."""
        facts = self.facts
        kind = text(document.get("type"))
        self._take_session(document.get("session"), asked_for=False)
        response = document.get("response")
        if kind == "response.created" and isinstance(response, dict):
            if len(self._open) < _MAX_OPEN:
                self._open[text(response.get("id"))] = None
        elif kind == "response.done" and isinstance(response, dict):
            facts.response_shaped = True
            self._open.pop(text(response.get("id")), None)
            self._tell_response(response)
        elif kind.endswith(_HEARD):
            facts.response_shaped = True
            self._tell_transcription(document)

    def _take_session(self, session: Any, *, asked_for: bool) -> None:
        if not isinstance(session, dict):
            return
        facts = self.facts
        if model := text(session.get("model")):
            facts.request_model = facts.request_model or model
            self._model = self._model if asked_for else model
        sound = session.get("audio")
        heard = sound.get("input") if isinstance(sound, dict) else None
        places = (heard.get("transcription") if isinstance(heard, dict) else None,)
        for place in (*places, session.get("input_audio_transcription")):
            if isinstance(place, dict):
                self._transcriber = text(place.get("model")) or self._transcriber

    def _tell_response(self, response: dict[str, Any]) -> None:
        own = self._own(self.facts.request_model, text(response.get("model")) or self._model)
        own.response_id = text(response.get("id"))
        status = text(response.get("status"))
        measured = openai_usage.measure(response.get("usage"), own, self.quirks)
        if status == "failed":
            details = response.get("status_details")
            self.take_error(details.get("error") if isinstance(details, Mapping) else None, status)
            own.error_type, self.facts.error_type = self.facts.error_type, None
        elif status:
            own.finish_reasons = [status]
        self.portions.append(Portion(own, measured))

    def _tell_transcription(self, document: dict[str, Any]) -> None:
        own = self._own(self._transcriber, "")
        own.response_id = text(document.get("item_id"))
        measured = measure_sound(document.get("usage"), own)
        self.portions.append(Portion(own, measured, "transcription", suffix="#transcription"))

    def _own(self, asked: str, answered: str) -> Facts:
        facts = self.facts
        return Facts(
            request_model=asked,
            response_model=answered,
            streamed=True,
            response_tier=facts.response_tier,
            end_user=facts.end_user,
            session=facts.session,
        )

    def close(self, *, complete: bool) -> None:
        """What was begun and did not end was served, for a price that is not known."""
        for response_id in self._open:
            own = self._own(self.facts.request_model, self._model)
            own.response_id = response_id
            own.anomaly(UNFINISHED)
            self.portions.append(Portion(own, Measured()))
        self._open.clear()

    def measured(self, *, complete: bool) -> Measured:
        """All is in the portions."""
        return Measured()


ROUTES: Final = (Route(r".*/realtime(/translations)?", OpenAIRealtime, methods=GET),)
