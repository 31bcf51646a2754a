"""Reka's own chat: `usage` with input and output tokens; each event of a stream repeats the answer so far.

Source: Reka's API reference.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import EVERY, VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route

_TREE: Final[Tree] = {
    "id": VALUE,
    "model": VALUE,
    "responses": {EVERY: {"finish_reason": VALUE}},
    "usage": VALUE,
    "error": VALUE,
    "detail": VALUE,
}


class RekaChat(Dialect):
    """POST /v1/chat"""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "reka"
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    _usage: Any = None

    def read_response(self, document: Any) -> None:
        """Takes an answer or an error."""
        if isinstance(document, dict):
            self.take_event("", document)
            self.facts.terminated = True

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """Takes an event of a stream, or a whole answer."""
        facts = self.facts
        facts.response_id = text(document.get("id")) or facts.response_id
        facts.response_model = text(document.get("model")) or facts.response_model
        self._usage = document.get("usage") or self._usage
        responses = document.get("responses")
        answers = [answer for answer in responses or () if isinstance(answer, dict)]
        reasons = [text(answer.get("finish_reason")) for answer in answers]
        facts.finish_reasons = [reason for reason in reasons if reason]
        facts.terminated = facts.terminated or bool(facts.finish_reasons)
        if document.get("error"):
            self.take_error(document["error"])

    def measured(self, *, complete: bool) -> Measured:
        """The last usage; of a stream that was cut off the input only: the output was still growing."""
        counts = Counts(self.facts)
        found = {"input": counts.get(self._usage, "input_tokens")}
        if self.facts.terminated:
            found["output"] = counts.get(self._usage, "output_tokens")
        tokens = {bucket: count for bucket, count in found.items() if count is not None}
        return Measured(tokens, {}, counts.quality(whole=len(tokens) == 2)) if tokens else Measured()


ROUTES: Final = (Route(r"/v1/chat", RekaChat, providers=frozenset({"reka"})),)
