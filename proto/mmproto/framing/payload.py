"""The body of a message on its way through: content decoding, then events or one document."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from mmproto.framing.bodies import BodyDecoder
from mmproto.framing.events import EventFraming
from mmproto.framing.jsonpick import JsonBody
from mmproto.framing.sse import EventReader

_EVENT_STARTS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
_IGNORED: Final = b"\xef\xbb\xbf \t\r\n"


class Style(Enum):
    """What the body of an answer may be besides server-sent events."""

    DOCUMENT = auto()  # one JSON document
    DOCUMENTS = auto()  # JSON documents, one after another
    ARRAY = auto()  # one document, or an array whose elements are events


class Payload:
    """Reads one body; events and documents are told apart by the first byte.

    The first byte tells better than `content-type`: an event stream never begins with a brace, and an error
    in place of a stream often keeps the stream's type.
    """

    def __init__(self, headers: Mapping[str, str], document: JsonBody, style: Style = Style.DOCUMENT) -> None:
        self.decoder = BodyDecoder(headers.get("content-encoding", ""))
        self.document = document
        self.events: EventFraming | None = None
        self.decided = False
        self._style = style
        self._stream_expected = "text/event-stream" in headers.get("content-type", "")
        self._first = b""

    def sniff(self, piece: bytes) -> bytes:
        """Decides between events and a document; returns the bytes to read, b"" while undecided."""
        self._first += piece
        start = self._first.lstrip(_IGNORED)
        if not start:
            # White space before JSON is padding that may go on for long: keep none of it.
            self._first = b""
            return b""
        beginning = start[:6]
        if beginning[:1] in (b"{", b"["):
            self.decided = True
        elif beginning.startswith(_EVENT_STARTS):
            self.decided, self.events = True, EventReader()
        elif any(mark.startswith(beginning) for mark in _EVENT_STARTS):
            return b""
        else:
            self.decided = True
            self.events = EventReader() if self._stream_expected else None
        self._first = b""
        return start

    def lose(self) -> None:
        """Bytes are missing."""
        self.decoder.lose()
        self._first = b""
        if self.events is not None:
            self.events.lose()
        elif not self.decided and self._stream_expected:
            self.decided, self.events = True, EventReader()
            self.events.lose()
        else:
            self.document.lose()
