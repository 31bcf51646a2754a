"""xAI's deferred completions: accepted by POST, seen and charged where they are fetched.

A request with `deferred` is answered with a `request_id` alone. Fetching it answers 202 without a body until
the completion is there; then it answers with the completion, under the completion's id.

Source: xAI's API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, Tree
from mmproto.providers.dialects.openai.chat import TREE, OpenAIChat
from mmproto.providers.reasons import RESPONSE_PENDING
from mmproto.providers.route import GET, Route

_ACCEPTED: Final = 202


class XaiChat(OpenAIChat):
    """POST .../chat/completions, GET .../chat/deferred-completion/ID"""

    flavour: ClassVar[str] = "x_ai"
    response_tree: ClassVar[Tree] = {**TREE, "request_id": PRESENT}

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """As every response; what is not there yet costs nothing yet."""
        super().read_response_head(status, headers)
        if status == _ACCEPTED:
            self.facts.free = RESPONSE_PENDING

    def read_response(self, document: Any) -> None:
        """Takes a completion, a promise of one, or an error."""
        super().read_response(document)
        if isinstance(document, dict) and "request_id" in document and "choices" not in document:
            self.facts.free = RESPONSE_PENDING


_XAI: Final = frozenset({"x_ai"})
ROUTES: Final = (
    Route(r".*/chat/completions", XaiChat, providers=_XAI),
    Route(r".*/chat/deferred-completion/[^/]+", XaiChat, methods=GET, providers=_XAI),
)
