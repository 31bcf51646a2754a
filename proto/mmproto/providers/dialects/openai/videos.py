"""Videos of OpenAI and xAI: accepted by POST, and billed by the second of what comes out.

Neither has tokens, and there is no unit for seconds of video: the call is told with what it is said to cost,
where it is said. Fetching what was accepted costs nothing.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers import cost
from mmproto.providers.dialect import REQUEST_TREE, Dialect
from mmproto.providers.facts import Measured, text
from mmproto.providers.reasons import RETRIEVAL
from mmproto.providers.route import GET, Route

_TREE: Final[Tree] = {
    "id": VALUE,
    "request_id": VALUE,
    "object": VALUE,
    "status": VALUE,
    "model": VALUE,
    "usage": VALUE,
    "error": VALUE,
    "code": VALUE,
}


class OpenAIVideos(Dialect):
    """POST .../videos, .../videos/ID/remix, .../videos/generations"""

    operation: ClassVar[str] = "video_generation"
    flavour: ClassVar[str] = "openai"
    # A finished video is fetched from below the same path.
    answers_bytes: ClassVar[bool] = True
    request_tree: ClassVar[Tree] = {**REQUEST_TREE, "image": PRESENT}
    response_tree: ClassVar[Tree] = _TREE
    event_tree: ClassVar[Tree] = _TREE

    def read_response(self, document: Any) -> None:
        """Takes a job, or an error."""
        if not isinstance(document, dict):
            return
        facts = self.facts
        facts.terminated = True
        facts.response_shaped = "request_id" in document or document.get("object") == "video"
        facts.response_id = text(document.get("id")) or text(document.get("request_id"))
        facts.response_model = text(document.get("model")) or facts.response_model
        facts.reported_cost_nano_usd = cost.reported(document.get("usage"))
        if document.get("error"):
            self.take_error(document["error"], document.get("code"))

    def measured(self, *, complete: bool) -> Measured:
        """No bucket and no unit."""
        return Measured()


_MAKERS: Final = frozenset({"openai", "azure.ai.openai", "x_ai"})
ROUTES: Final = (
    Route(
        r".*/videos?(/(generations(/jobs)?|edits|extensions)|/[^/]+/remix)?",
        OpenAIVideos,
        providers=_MAKERS,
    ),
    Route(r".*/videos?(/.*)?", OpenAIVideos, methods=GET, providers=_MAKERS, free=RETRIEVAL),
)
