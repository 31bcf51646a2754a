"""What the OpenAI API and its copies do for nothing: counting tokens, preparing a realtime session.

Such an exchange is read for the model it asks for and is never a call. What it answers is not taken: a number
of tokens that would be used is no usage, and the model of a session that is still to come has not answered.
The session itself shows its spend on its own connection; where that is WebRTC, it is no HTTP.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import VALUE, Tree
from mmproto.providers.dialect import Dialect
from mmproto.providers.facts import Measured
from mmproto.providers.reasons import PREPARATION, TOKEN_COUNTING
from mmproto.providers.route import Route

_TREE: Final[Tree] = {"error": VALUE, "code": VALUE}


class OpenAIFree(Dialect):
    """POST .../responses/input_tokens, .../realtime/client_secrets, ..."""

    operation: ClassVar[str] = "chat"
    flavour: ClassVar[str] = "openai"
    # A WebRTC call is answered with the description of a session.
    takes_bytes: ClassVar[bool] = True
    answers_bytes: ClassVar[bool] = True
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    def read_response_head(self, status: int, headers: Mapping[str, str]) -> None:
        """Nothing that the headers tell counts."""

    def read_response(self, document: Any) -> None:
        """Takes an error, if it is one."""
        if isinstance(document, dict) and document.get("error"):
            self.take_error(document["error"], document.get("code"))

    def measured(self, *, complete: bool) -> Measured:
        """Nothing."""
        return Measured()


ROUTES: Final = (
    Route(r".*/responses/input_tokens", OpenAIFree, free=TOKEN_COUNTING),
    Route(r".*/chat/completions/input_tokens", OpenAIFree, free=TOKEN_COUNTING),
    Route(
        r".*/realtime/(client_secrets|sessions|transcription_sessions|calls(/.*)?|translations/client_secrets)",
        OpenAIFree,
        free=PREPARATION,
    ),
    Route(r".*/realtimeapi/sessions", OpenAIFree, free=PREPARATION),  # Azure's preview
)
