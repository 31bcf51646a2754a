"""What every dialect file fills in: how an exchange of one API is read.

A `Dialect` object reads ONE exchange. It is given the request document, then either the response document or
the events of the response stream, all of them already pruned to the trees it asked for, and it accumulates
`Facts`. It never sees headers or sockets, and keeps no text of a prompt or an answer.

Numbers are handled by two rules. A count that is no plausible count (negative, fractional, boolean, beyond
`usage.MAX_TOKENS`) is not used: it becomes an anomaly and the quality drops. And what was not reported is not
in the outcome: there are no defaults.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import orjson

from mmproto import usage as limits
from mmproto.framing.events import Event
from mmproto.framing.jsonpick import PRESENT, VALUE, JsonBody, MalformedJson, Tree, prune
from mmproto.providers.hosts import Quirk
from mmproto.v1.usage_pb2 import QUALITY_UNKNOWN, Quality

# Names of anomalies: exposed by `Recognised.anomalies` and counted by reason.
BAD_COUNT: Final = "bad_count"
CONTRADICTORY_COUNTS: Final = "contradictory_counts"
MALFORMED_EVENT: Final = "malformed_json"

REQUEST_TREE: Final[Tree] = {
    "model": VALUE,
    "stream": VALUE,
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
_MAX_TEXT: Final = 512  # model names, ids and tiers are short; what is longer is damage


@dataclass(slots=True)
class Facts:
    """What is known about an exchange so far; "" and None mean not reported."""

    request_model: str = ""
    stream_requested: bool = False
    request_tier: str = ""
    end_user: str = ""
    session: str = ""
    request_shaped: bool = False  # the request looks like one of this dialect
    response_shaped: bool = False  # the response does
    response_id: str = ""
    response_model: str = ""
    response_tier: str = ""
    finish_reasons: list[str] = field(default_factory=list)
    error_type: str | None = None  # None: no error; "": an error without a name
    terminated: bool = False  # the response said itself that it is complete
    pending: bool = False  # accepted, to be fetched later: nothing has been spent that this response knows of
    anomalies: list[str] = field(default_factory=list)

    def anomaly(self, reason: str) -> None:
        """Notes a named oddity, once."""
        if reason not in self.anomalies:
            self.anomalies.append(reason)


@dataclass(slots=True)
class Measured:
    """Usage in disjoint buckets, and how far it can be trusted."""

    tokens: dict[str, int] = field(default_factory=dict)
    units: dict[str, float] = field(default_factory=dict)
    quality: Quality = QUALITY_UNKNOWN


class Dialect(ABC):
    """Reads one exchange of one API."""

    operation: ClassVar[str]
    # `gen_ai.provider.name` where the host says nothing: that of the API's flavour, as OpenTelemetry
    # prescribes.
    flavour: ClassVar[str]
    response_tree: ClassVar[Tree]
    event_tree: ClassVar[Tree]
    # Names of the events that count, for APIs whose events have names.
    telling_names: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, quirks: frozenset[Quirk]) -> None:
        self.quirks = quirks
        self.facts = Facts()
        self._large: JsonBody | None = None

    def read_request(self, document: Any) -> None:
        """Takes the request, pruned to REQUEST_TREE."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.request_model = text(document.get("model"))
        facts.stream_requested = document.get("stream") is True
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

    def read_event(self, event: Event) -> None:
        """Takes an event of the stream, or a piece of a large one."""
        if self._large is not None or not event.last:
            if self._large is None:
                self._large = JsonBody(self.event_tree)
            self._large.feed(event.data)
            if event.last:
                large, self._large = self._large, None
                self._take_large(large)
            return
        if event.data == b"[DONE]":
            self.facts.terminated = True
        elif event.name in self.telling_names or (not event.name and self.tells(event.data)):
            try:
                document = prune(orjson.loads(event.data), self.event_tree)
            except orjson.JSONDecodeError:
                large = JsonBody(self.event_tree)
                large.feed(event.data)
                self._take_large(large)
                return
            if isinstance(document, dict):
                self.take_event(event.name, document)

    def lose(self) -> None:
        """Bytes of the stream are missing: a large event that was under way is lost."""
        self._large = None

    def _take_large(self, body: JsonBody) -> None:
        try:
            document = body.finish()
        except MalformedJson:
            self.facts.anomaly(MALFORMED_EVENT)
            return
        if isinstance(document, dict):
            self.take_event("", document)

    def take_error(self, error: Any, code: Any = None) -> None:
        """Notes an error object (or text) of the provider."""
        self.facts.error_type = error_name(error) or text(code)

    @abstractmethod
    def read_response(self, document: Any) -> None:
        """Takes a response that is one document, pruned to `response_tree`."""

    @abstractmethod
    def tells(self, data: bytes) -> bool:
        """Whether the bytes of one or more whole events may carry anything that counts.

        Asked for every piece of a stream, so it looks for a few byte strings and is rather too often true.
        """

    @abstractmethod
    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes a telling event, pruned to `event_tree`."""

    @abstractmethod
    def measured(self, *, complete: bool) -> Measured:
        """The usage. `complete`: the response was read to its end."""


class Counts:
    """Reads counts out of a usage object and remembers whether all of them were plausible."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.sound = True

    def get(self, source: Any, *names: str) -> int | None:
        """The first of `names` that `source` reports, None where it reports none or nonsense."""
        if not isinstance(source, dict):
            return None
        for name in names:
            value = source.get(name)
            if value is None:
                continue
            if type(value) is int and 0 <= value <= limits.MAX_TOKENS:
                return value
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # 12.0 is how some JSON writers put 12
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= limits.MAX_TOKENS:
                self.doubt(BAD_COUNT)
                continue
            return value
        return None

    def doubt(self, reason: str) -> None:
        """The counts cannot all be right."""
        self.sound = False
        self._facts.anomaly(reason)


def text(value: Any) -> str:
    """`value` where it is a text of reasonable length, else ""."""
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        return ""
    # A JSON text may name a lone surrogate, which no UTF-8 and so no protobuf field can hold.
    return value if value.isascii() else value.encode("utf-8", "replace").decode()


def error_name(error: Any) -> str:
    """The provider's name for an error: its code where that is a word, else its type, else a numeric code."""
    if not isinstance(error, Mapping):
        return ""
    code, kind = error.get("code"), error.get("type") or error.get("status")
    if isinstance(code, str) and code and not code.isdigit():
        return text(code)
    if isinstance(kind, str) and kind:
        return text(kind)
    return str(code) if isinstance(code, int | str) and not isinstance(code, bool) else ""
