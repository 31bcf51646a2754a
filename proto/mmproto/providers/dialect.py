"""What every dialect file fills in: how an exchange of one API is read.

A `Dialect` object reads ONE exchange. It is given what the request line says, the headers and the request
document, then either the response document or the events of the response stream, documents and events pruned
to the trees it asked for, and it accumulates `Facts`. It never sees sockets, and keeps no text of a prompt or
an answer.

Most exchanges are one call. Where one holds several (the responses of a session, the lines of a batch, a pass
of another model), the dialect appends a `Portion` to `portions` for each; where the exchange is nothing but
its portions, it sets `is_container`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import orjson

from mmproto.framing.events import Event
from mmproto.framing.jsonpick import PRESENT, VALUE, JsonBody, MalformedJson, Tree, prune
from mmproto.framing.payload import Style
from mmproto.providers import headers as response_headers
from mmproto.providers.facts import Facts, Measured, Portion, error_name, text
from mmproto.providers.hosts import Quirk

MALFORMED_EVENT: Final = "malformed_json"
# The name that `framing.eventstream` gives to a frame that is an error.
_EXCEPTION: Final = "exception:"

REQUEST_TREE: Final[Tree] = {
    "model": VALUE,
    "stream": VALUE,
    "stream_options": VALUE,
    "user": VALUE,
    "safety_identifier": VALUE,
    "service_tier": VALUE,
    "conversation": VALUE,
    "metadata": {"user_id": VALUE, "session_id": VALUE},
    "messages": PRESENT,
    "input": PRESENT,
    "prompt": PRESENT,
    "max_tokens": PRESENT,
}


@dataclass(frozen=True, slots=True)
class Asked:
    """What host and request line say. `names` are the groups of the route; `query` is undecoded."""

    provider: str = ""
    method: str = "POST"
    path: str = ""
    query: str = ""
    names: Mapping[str, str] = field(default_factory=dict)
    quirks: frozenset[Quirk] = frozenset()
    free: str = ""


class Dialect(ABC):
    """Reads one exchange of one API."""

    operation: ClassVar[str]
    # `gen_ai.provider.name` where the host says nothing: that of the API's flavour, as OpenTelemetry
    # prescribes.
    flavour: ClassVar[str]
    # How answers come besides one document or server-sent events.
    style: ClassVar[Style] = Style.DOCUMENT
    # Whether a served call is paid for.
    costs: ClassVar[bool] = True
    # Whether a request may be no JSON at all: sound, a file.
    takes_bytes: ClassVar[bool] = False
    # Whether an answer may be no JSON at all: sound, an image, plain text.
    answers_bytes: ClassVar[bool] = False
    # Whether what is asked and answered stands in the bodies as text, and could be estimated by it.
    has_text: ClassVar[bool] = True
    # Whether an upgrade to WebSocket goes on in this exchange; then both directions are events.
    speaks_websocket: ClassVar[bool] = False
    request_tree: ClassVar[Tree] = REQUEST_TREE
    response_tree: ClassVar[Tree]
    event_tree: ClassVar[Tree]
    # Names of the events that count, for APIs whose events have names.
    telling_names: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.quirks = asked.quirks
        self.facts = Facts(request_model=text(asked.names.get("model")), free=asked.free)
        self.portions: list[Portion] = []
        self.is_container = False
        # Whether the portions are all that is paid for, the exchange being a call without a cost of its own.
        self.paid_by_portions = False
        self._large: JsonBody | None = None

    # -- the request

    def read_request_head(self, headers: Mapping[str, str]) -> None:  # noqa: B027  # few need it
        """Takes the request's headers, names in lower case, without credentials."""

    def read_request(self, document: Any) -> None:
        """Takes the request, pruned to `request_tree`; the text fields of a form are a document, too."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.request_model = text(document.get("model")) or facts.request_model
        facts.stream_requested = facts.stream_requested or document.get("stream") in (True, "true")
        facts.request_tier = text(document.get("service_tier"))
        metadata = document.get("metadata")
        metadata = metadata if isinstance(metadata, dict) else {}
        facts.end_user = (
            text(document.get("safety_identifier"))
            or text(document.get("user"))
            or text(metadata.get("user_id"))
        )
        conversation = document.get("conversation")
        if isinstance(conversation, dict):
            conversation = conversation.get("id")
        facts.session = text(metadata.get("session_id")) or text(conversation)
        facts.request_shaped = any(name in document for name in ("messages", "input", "prompt"))

    def read_request_event(self, event: Event) -> None:  # noqa: B027  # few need it
        """Takes a message of the client, where requests are events: WebSocket, gRPC."""

    # -- the response

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Takes the response's status and headers, names in lower case."""
        response_headers.take(headers, self.facts)

    def read_trailers(self, headers: Mapping[str, str]) -> None:
        """Takes headers that came after the body."""
        response_headers.take_grpc_status(headers, self.facts)

    @abstractmethod
    def read_response(self, document: Any) -> None:
        """Takes a response that is one document, pruned to `response_tree`."""

    def read_event(self, event: Event) -> None:
        """Takes an event of the stream, or a piece of a large one."""
        if self._large is not None or not event.last:
            if self._large is None:
                self._large = JsonBody(self.event_tree)
            self._large.feed(event.data)
            if event.last:
                large, self._large = self._large, None
                self._take_large(event.name, large)
            return
        if event.data == b"[DONE]":
            self.facts.terminated = True
        elif event.name.startswith(_EXCEPTION):
            self.take_error({"type": event.name.removeprefix(_EXCEPTION)})
        elif event.name in self.telling_names or (
            (not event.name or not self.telling_names) and self.tells(event.data)
        ):
            try:
                document = prune(orjson.loads(event.data), self.event_tree)
            except orjson.JSONDecodeError:
                large = JsonBody(self.event_tree)
                large.feed(event.data)
                self._take_large(event.name, large)
                return
            if isinstance(document, dict):
                self.take_event(event.name, document)

    def lose(self) -> None:
        """Bytes of the stream are missing: a large event that was under way is lost."""
        self._large = None

    def _take_large(self, name: str, body: JsonBody) -> None:
        try:
            document = body.finish()
        except MalformedJson:
            self.facts.anomaly(MALFORMED_EVENT)
            return
        if isinstance(document, dict):
            self.take_event(name, document)

    def tells(self, data: bytes) -> bool:
        """Whether the bytes of one or more whole events may carry anything that counts.

        Asked for every piece of a stream, so it looks for a few byte strings and is rather too often true.
        """
        return True

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a telling event, pruned to `event_tree`. Without one of its own, as a whole response."""
        self.read_response(document)

    def take_error(self, error: Any, code: Any = None) -> None:
        """Notes an error object (or text) of the provider."""
        self.facts.error_type = error_name(error) or error_name({"code": code})

    # -- the end

    def close(self, *, complete: bool) -> None:  # noqa: B027  # few need it
        """Nothing more comes. `complete`: the response was read to its end, without a gap."""

    @abstractmethod
    def measured(self, *, complete: bool) -> Measured:
        """The usage of the exchange itself, portions aside. `complete` as in `close`, which came before."""
