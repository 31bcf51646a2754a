"""OpenAI moderation: a call that costs nothing, whoever passes it on.

The model that was asked for is all that is taken: `text-moderation-latest` and the snapshot behind it have
the same price, none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.dialect import Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route

_TREE: Final[Tree] = {"id": VALUE, "results": PRESENT, "error": VALUE, "code": VALUE}


class OpenAIModerations(Dialect):
    """POST .../moderations"""

    operation: ClassVar[str] = "moderation"
    flavour: ClassVar[str] = "openai"
    costs: ClassVar[bool] = False
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Nothing that the headers tell counts."""

    def read_response(self, document: Any) -> None:
        """Takes the verdicts or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.terminated = True
        facts.response_shaped = "results" in document
        facts.response_id = text(document.get("id"))
        if document.get("error"):
            self.take_error(document["error"], document.get("code"))

    def measured(self, *, complete: bool) -> Measured:
        """None is reported."""
        return Measured()


ROUTES: Final = (Route(r".*/v1/moderations", OpenAIModerations),)
