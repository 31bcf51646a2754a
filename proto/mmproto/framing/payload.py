"""The body of a message on its way through: content decoding, then events, one document, or a form.

Binary framings are known by their content type alone. For everything that is text the first byte tells better
than `content-type`: an event stream never begins with a brace, and an error in place of a stream often keeps
the stream's type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum, auto
from typing import Any, Final

from mmproto.framing.bodies import BodyDecoder
from mmproto.framing.documents import DocumentReader
from mmproto.framing.events import Event, EventFraming
from mmproto.framing.eventstream import FrameReader
from mmproto.framing.grpc import GrpcReader
from mmproto.framing.jsonarray import ArrayReader
from mmproto.framing.jsonpick import JsonBody, MalformedJson
from mmproto.framing.multipart import FormReader
from mmproto.framing.sse import EventReader

_EVENT_STARTS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")
_IGNORED: Final = b"\xef\xbb\xbf \t\r\n"

# Content types (without parameters) whose bytes can be nothing else.
_BINARY: Final[Mapping[str, Callable[[Mapping[str, str]], EventFraming]]] = {
    "application/vnd.amazon.eventstream": lambda _headers: FrameReader(),
    "application/grpc": lambda headers: GrpcReader(headers.get("grpc-encoding", "")),
    "application/grpc+proto": lambda headers: GrpcReader(headers.get("grpc-encoding", "")),
}
# What is sound or a picture may begin like anything, and is not read.
_MEDIA: Final = frozenset({"audio", "image", "video"})
_LINES: Final = frozenset(
    {
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonl",
        "application/jsonlines",
        "application/x-jsonlines",
        "application/stream+json",
        "application/json-seq",
    }
)


class Style(Enum):
    """What the text of an answer may be besides server-sent events."""

    DOCUMENT = auto()  # one JSON document
    DOCUMENTS = auto()  # JSON documents, one after another
    ARRAY = auto()  # one document, or an array whose elements are events
    FRAMES = auto()  # one document, or an AWS event stream, whose type not every proxy passes on


class Payload:
    """Reads one body. Once `decided`, `events` is the framing of a stream, None for anything else."""

    def __init__(self, headers: Mapping[str, str], document: JsonBody, style: Style = Style.DOCUMENT) -> None:
        self.decoder = BodyDecoder(headers.get("content-encoding", ""))
        self.document = document
        self.events: EventFraming | None = None
        self.decided = False
        self.is_json = False  # begins as JSON does
        self._form: FormReader | None = None
        self._is_media = False
        self._first = b""
        content_type = headers.get("content-type", "")
        kind = content_type.partition(";")[0].strip().lower()
        self._stream_expected = kind == "text/event-stream"
        self._style = Style.DOCUMENTS if kind in _LINES else style
        if (binary := _BINARY.get(kind)) is not None:
            self.events, self.decided = binary(headers), True
        elif kind == "multipart/form-data":
            self._form, self.decided = FormReader(content_type), True
        elif kind.partition("/")[0] in _MEDIA:
            self._is_media = self.decided = True

    def become(self, events: EventFraming) -> None:
        """The body goes on as these events whatever its headers say: after an upgrade."""
        self.events, self.decided = events, True

    @property
    def has_lines(self) -> bool:
        """Whether it is a stream of server-sent events, which may be told from deltas unread."""
        return type(self.events) is EventReader

    def read(self, piece: bytes) -> list[Event]:
        """The events that the next decoded bytes complete; none of a document or a form."""
        if not self.decided:
            piece = self.sniff(piece)
        if self.events is not None:
            return self.events.feed(piece)
        if self._form is not None:
            self._form.feed(piece)
        elif piece and not self._is_media:
            self.document.feed(piece)
        return []

    def sniff(self, piece: bytes) -> bytes:
        """Decides what the body is; returns the bytes to read, b"" while undecided."""
        self._first += piece
        start = self._first.lstrip(_IGNORED)
        if not start:
            # White space before JSON is padding that may go on for long: keep none of it.
            self._first = b""
            return b""
        beginning = start[:6]
        if beginning[:1] in (b"{", b"["):
            self._decide_json(is_array=beginning[:1] == b"[")
        elif beginning.startswith(_EVENT_STARTS):
            self.events = EventReader()
        elif any(mark.startswith(beginning) for mark in _EVENT_STARTS):
            return b""
        elif self._stream_expected:
            self.events = EventReader()
        elif self._style is Style.FRAMES and beginning[:1] == b"\0":
            self.events = FrameReader()
        self.decided = True
        self._first = b""
        return start

    def _decide_json(self, *, is_array: bool) -> None:
        self.is_json = True
        if self._style is Style.DOCUMENTS:
            self.events = DocumentReader()
        elif self._style is Style.ARRAY and is_array:
            self.events = ArrayReader()

    def lose(self) -> None:
        """Bytes are missing."""
        self.decoder.lose()
        self._first = b""
        if not self.decided and self._stream_expected:
            self.decided, self.events = True, EventReader()
        elif not self.decided and self._style is Style.DOCUMENTS:
            self.decided, self.events = True, DocumentReader()
        if self.events is not None:
            self.events.lose()
        elif self._form is not None:
            self._form.lose()
        else:
            self.document.lose()

    @property
    def is_empty(self) -> bool:
        """Whether nothing of a document or a form has come."""
        if self._is_media:
            return False
        return self.document.is_empty if self._form is None else self._form.is_empty

    def finish(self) -> Any:
        """The document, or the form as one; what a damaged form held stands. Raises MalformedJson."""
        if self._form is not None:
            self._form.finish()
            return self._form.form.document()
        return self.document.finish()

    def partial(self) -> Any:
        """What can be had of a document that was cut short."""
        return self.document.partial()


__all__ = ["MalformedJson", "Payload", "Style"]
