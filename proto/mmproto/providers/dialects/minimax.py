"""MiniMax's own paths: a chat in OpenAI's shape, and speech billed by the character.

Errors come with HTTP 200, in `base_resp`. Chat completions and messages under their usual paths are
OpenAI's and Anthropic's dialects. Videos and music are begun here and looked at later.

Source: the API reference of MiniMax's platform.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from mmproto.framing.jsonpick import PRESENT, VALUE, Tree
from mmproto.providers.counts import Counts
from mmproto.providers.dialect import Dialect
from mmproto.providers.dialects.openai.chat import OpenAIChat
from mmproto.providers.facts import Measured, text
from mmproto.providers.route import Route

_STATUS: Final[Tree] = {"status_code": VALUE}


class MiniMaxChat(OpenAIChat):
    """POST /v1/text/chatcompletion_v2"""

    flavour: ClassVar[str] = "minimax"
    response_tree: ClassVar[Tree] = {**OpenAIChat.response_tree, "base_resp": _STATUS}
    event_tree: ClassVar[Tree] = {**OpenAIChat.event_tree, "base_resp": _STATUS}

    def take_event(self, name: str, document: dict[str, Any]) -> None:
        """As OpenAI's; the usage is a null until the end."""
        super().take_event(name, document)
        if code := _failure(document):
            self.take_error(None, code)


class MiniMaxSpeech(Dialect):
    """POST /v1/t2a_v2, and what is begun here and looked at later"""

    operation: ClassVar[str] = "speech"
    flavour: ClassVar[str] = "minimax"
    response_tree: ClassVar[Tree] = {
        "trace_id": VALUE,
        "task_id": VALUE,
        "extra_info": {"usage_characters": VALUE},
        "usage_characters": VALUE,
        "base_resp": _STATUS,
        "data": PRESENT,
    }
    event_tree: ClassVar[Tree] = response_tree

    _answer: dict[str, Any] | None = None

    def read_response(self, document: Any) -> None:
        """Takes an answer, an event of one, or an error."""
        if not isinstance(document, dict):
            return
        self.facts.terminated = True
        self.facts.response_id = text(document.get("trace_id")) or self.facts.response_id
        if document.get("extra_info") or "usage_characters" in document:
            self._answer = document
        if code := _failure(document):
            self.take_error(None, code)

    def measured(self, *, complete: bool) -> Measured:
        """Characters."""
        counts, answer = Counts(self.facts), self._answer or {}
        characters = counts.units(answer.get("extra_info"), "usage_characters")
        if characters is None:
            characters = counts.units(answer, "usage_characters")
        if characters is None:
            return Measured()
        return Measured({}, {"characters": characters}, counts.quality())


class MiniMaxTask(MiniMaxSpeech):
    """POST /v1/video_generation and /v1/music_generation"""

    operation: ClassVar[str] = "video_generation"


def _failure(document: dict[str, Any]) -> str:
    status = document.get("base_resp")
    code = status.get("status_code") if isinstance(status, dict) else None
    return str(code) if isinstance(code, int) and code else ""


_MINIMAX: Final = frozenset({"minimax"})
ROUTES: Final = (
    Route(r".*/v1/text/chatcompletion(_v2|_pro)?", MiniMaxChat, providers=_MINIMAX),
    Route(r".*/v1/t2a(_v2|_async_v2|_pro)?", MiniMaxSpeech, providers=_MINIMAX),
    Route(r".*/v1/(video|music)_generation", MiniMaxTask, providers=_MINIMAX),
)
