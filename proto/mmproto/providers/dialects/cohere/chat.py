"""Cohere chat, versions 1 and 2, and the older generate and summarize.

Version 2 answers like others do: one document with `usage`, or server-sent events of which `message-end` has
it in `delta`. Version 1 has `meta`, and its stream is JSON lines that begin with `stream-start` and end with
`stream-end`, which repeats the whole answer. No answer names a model.

A stream says in its finish reason where it failed (`ERROR`, `ERROR_TOXIC`, ..., `TIMEOUT`).

Source: the API reference, versions 1 and 2.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.framing.payload import Style
from mmproto.providers.dialect import Dialect
from mmproto.providers.dialects.cohere import usage as cohere_usage
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route

_ANSWER: Final[Tree] = {
    "id": VALUE,
    "response_id": VALUE,
    "generation_id": VALUE,
    "finish_reason": VALUE,
    "meta": VALUE,
    "usage": VALUE,
}
_TREE: Final[Tree] = {
    **_ANSWER,
    "type": VALUE,
    "event_type": VALUE,
    "response": _ANSWER,
    "delta": {"finish_reason": VALUE, "usage": VALUE, "error": VALUE},
    "error": VALUE,
    "error_type": VALUE,
    "generations": PRESENT,
    "summary": PRESENT,
}
_FIRST_EVENTS: Final = frozenset({"message-start", "stream-start"})
_LAST_EVENTS: Final = frozenset({"message-end", "stream-end"})
_FAILURES: Final = ("ERROR", "TIMEOUT")


class CohereChat(Dialect):
    """POST .../v1/chat and .../v2/chat"""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "cohere"
    style: ClassVar[Style] = Style.DOCUMENTS
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _usage: Any = None

    def read_request(self, document: Any) -> None:
        """As every request; many applications have such a path, so the answer has to show what this is."""
        super().read_request(document)
        self.facts.request_shaped = False

    def read_response(self, document: Any) -> None:
        """Takes an answer, an event of one, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        kind = text(document.get("event_type")) or text(document.get("type"))
        self._take(document)
        for part in (document.get("response"), document.get("delta")):
            if isinstance(part, dict):
                self._take(part)
        facts.streamed = bool(kind)
        facts.response_shaped = facts.response_shaped or kind in _FIRST_EVENTS
        if not kind or kind in _LAST_EVENTS:
            facts.terminated = True
        if document.get("error") or document.get("error_type"):
            self.take_error(document.get("error"), document.get("error_type"))

    def _take(self, part: dict[str, Any]) -> None:
        """Takes what stands in an answer, wherever an event puts it."""
        facts = self.facts
        identifier = part.get("id") or part.get("response_id") or part.get("generation_id")
        facts.response_id = text(identifier) or facts.response_id
        usage = part.get("usage") or part.get("meta")
        if isinstance(usage, dict):
            self._usage = usage
            facts.response_shaped = facts.response_shaped or "billed_units" in usage
        if reason := text(part.get("finish_reason")):
            facts.finish_reasons = [reason]
            if reason.upper().startswith(_FAILURES):
                self.take_error(part.get("error"), reason)

    def tells(self, data: bytes) -> bool:
        """The first event, the last one, and errors."""
        return not self.facts.response_id or b"-end" in data or b'"error' in data or b'"meta"' in data

    def measured(self, *, complete: bool) -> Measured:
        """What is billed."""
        return cohere_usage.measure(self._usage, self.facts)


class CohereGenerate(CohereChat):
    """POST .../v1/generate and .../v1/summarize"""

    operation: ClassVar[str] = "text_completion"


ROUTES: Final = (
    Route(r".*/v2/chat", CohereChat),
    Route(r"(.*/v1)?/chat", CohereChat, providers=frozenset({"cohere", "azure.ai.inference"})),
    Route(r"(.*/v1)?/(generate|summarize)", CohereGenerate, providers=frozenset({"cohere"})),
)
