"""Anthropic's first API, text completions: no usage at all, in no form of answer.

The model that an answer names is the one that was asked for, repeated: it says nothing about who answered.

A stream is events `completion` (older API versions give them no name) of which the last has a `stop_reason`.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route

_TREE: Final[Tree] = {"id": VALUE, "type": VALUE, "model": VALUE, "stop_reason": VALUE, "error": VALUE}


class AnthropicComplete(Dialect):
    """POST .../v1/complete"""

    operation: ClassVar[str] = "text_completion"
    flavour: ClassVar[str] = "anthropic"
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "max_tokens_to_sample": PRESENT}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    def read_request(self, document: Any) -> None:
        """As every request; many APIs have such a path, but its limit of tokens nobody else calls so."""
        super().read_request(document)
        self.facts.request_shaped = isinstance(document, dict) and "max_tokens_to_sample" in document

    def read_response(self, document: Any) -> None:
        """Takes a completion, an event of one, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.response_shaped = facts.response_shaped or document.get("type") == "completion"
        facts.response_id = text(document.get("id")) or facts.response_id
        facts.response_model = text(document.get("model")) or facts.response_model
        if reason := text(document.get("stop_reason")):
            facts.finish_reasons = [reason]
            facts.terminated = True
        if document.get("error"):
            self.take_error(document["error"])
            facts.terminated = True

    def tells(self, data: bytes) -> bool:
        """The first event, which says who answers, the last one, and errors."""
        if not self.facts.response_id or b'"error"' in data:
            return True
        reasons = data.count(b'"stop_reason"')
        return reasons != data.count(b'"stop_reason":null') + data.count(b'"stop_reason": null')

    def close(self, *, complete: bool) -> None:
        """An answer may have been seen before the last of its request: only now are both known."""
        if self.facts.response_model == self.facts.request_model:
            self.facts.response_model = ""

    def measured(self, *, complete: bool) -> Measured:
        """Nothing is reported."""
        return Measured()


ROUTES: Final = (Route(r".*/v1/complete", AnthropicComplete),)
